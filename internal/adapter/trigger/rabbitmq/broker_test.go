package rabbitmq

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestEveryQueueHasItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{watched: map[string]*followed{}}
		var queues []string
		for n := range 3*most - 50 {
			queues = append(queues, fmt.Sprintf("q%d", n))
		}
		asked := map[string]int{}
		for range 6 {
			due := b.due(queues)
			if len(due) > most {
				t.Fatalf("%d queues are asked for at once; want at most %d", len(due), most)
			}
			answers := map[string]depth{}
			for _, queue := range due {
				asked[queue]++
				answers[queue] = depth{messages: 1}
			}
			b.note(answers)
			time.Sleep(tick)
		}
		for _, queue := range queues {
			if n := asked[queue]; n != 2 && n != 3 {
				t.Errorf("%s was asked for %d times in six rounds of a third each; want 2 or 3", queue, n)
			}
		}
		if due := b.due(queues[:1]); !slices.Equal(due, queues[:1]) || len(b.watched) != 1 {
			t.Errorf("of the one that is watched still, %v are due and %d are kept", due, len(b.watched))
		}
	})
}

func TestQueuesThatCannotBeAskedForRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{watched: map[string]*followed{}}
		failed := map[string]depth{"missing": {err: errors.New("NOT_FOUND")}}
		for _, want := range []time.Duration{soon, 2 * soon, 4 * soon, 8 * soon, late, late} {
			if due := b.due([]string{"missing"}); len(due) != 1 {
				t.Fatalf("after its rest it is not due; want it to be after %s", want)
			}
			b.note(failed)
			time.Sleep(want - time.Millisecond)
			if due := b.due([]string{"missing"}); len(due) != 0 {
				t.Errorf("it is due before %s", want)
			}
			time.Sleep(time.Millisecond)
		}
		b.note(map[string]depth{"missing": {}})
		if due := b.due([]string{"missing"}); len(due) != 1 {
			t.Error("a queue that came is not asked for")
		}
		b.note(failed)
		time.Sleep(soon)
		if due := b.due([]string{"missing"}); len(due) != 1 {
			t.Error("a queue that came and went rests as long as if it had never come")
		}
	})
}
