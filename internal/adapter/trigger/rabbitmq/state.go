package rabbitmq

import "fmt"

// A state is what the management API says of a queue, or of several taken together.
type state struct {
	Messages int `json:"messages"`
	Ready    int `json:"messages_ready"`
	Stats    struct {
		Published rate `json:"publish_details"`
		Delivered rate `json:"deliver_get_details"`
	} `json:"message_stats"`
}

type rate struct {
	Rate float64 `json:"rate"`
}

// compose takes queues together. Counts stay whole: an average of them is rounded down.
func compose(queues []state, operation string) (whole state, err error) {
	if len(queues) == 0 {
		return whole, nil
	}
	for _, q := range queues {
		if operation == "max" {
			whole.Messages, whole.Ready = max(whole.Messages, q.Messages), max(whole.Ready, q.Ready)
			whole.Stats.Published.Rate = max(whole.Stats.Published.Rate, q.Stats.Published.Rate)
			whole.Stats.Delivered.Rate = max(whole.Stats.Delivered.Rate, q.Stats.Delivered.Rate)
			continue
		}
		whole.Messages += q.Messages
		whole.Ready += q.Ready
		whole.Stats.Published.Rate += q.Stats.Published.Rate
		whole.Stats.Delivered.Rate += q.Stats.Delivered.Rate
	}
	switch operation {
	case "sum", "max":
	case "avg":
		whole.Messages /= len(queues)
		whole.Ready /= len(queues)
		whole.Stats.Published.Rate /= float64(len(queues))
		whole.Stats.Delivered.Rate /= float64(len(queues))
	default:
		return state{}, fmt.Errorf("operation mode %s must be one of sum, max, avg", operation)
	}
	return whole, nil
}

// judge returns the value of a mode, and whether it makes the trigger active.
func (s *state) judge(mode string, above float64) (value float64, active bool) {
	messages, published, delivered := float64(s.Messages), s.Stats.Published.Rate, s.Stats.Delivered.Rate
	switch mode {
	case messageRate:
		return published, published > above || messages > above
	case deliverGetRate:
		return delivered, delivered > above
	case deliveredRatio:
		return ratio(published, delivered, above)
	case consumptionTime:
		return expected(messages, published, delivered, above)
	default:
		return messages, messages > above
	}
}

// ratio returns how many messages come for each that is taken. Where some come and none are taken there
// is none; it counts as the threshold then and the trigger is active all the same.
func ratio(published, delivered, above float64) (value float64, active bool) {
	switch {
	case published <= 0:
	case delivered > 0:
		value = published / delivered
	case delivered == 0:
		return above, true
	}
	return value, value > above
}

// expected returns in how many seconds the messages will have been taken. Where none are taken nobody
// knows; it counts as the threshold then and the trigger is active all the same.
func expected(messages, published, delivered, above float64) (value float64, active bool) {
	switch {
	case messages == 0:
	case delivered == 0:
		return above, messages > 0
	default:
		value = (published-delivered)/delivered + messages/delivered
	}
	return value, value > above
}
