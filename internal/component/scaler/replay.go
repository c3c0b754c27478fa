package scaler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/domain/activation"
	"ebb.dev/ebb/internal/domain/horizontal"
	"ebb.dev/ebb/internal/domain/recording"
)

// longestReplay bounds the time that is replayed at once.
const longestReplay = 100 * 24 * time.Hour

// Errors of Replay.
var (
	ErrPaused  = errors.New("the object is paused, so nothing would follow from anything")
	ErrTooLong = fmt.Errorf("the recording is longer than %d days", longestReplay/(24*time.Hour))
	errFailed  = errors.New("it could not be asked when this was recorded")
)

// A Replay is what would have come of a recording. It can be written as JSON.
type Replay struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// Start is how many replicas it begins with: those there are without work.
	Start int32 `json:"start"`
	// Max is maxReplicaCount, AtMax how long there were so many.
	Max   int32         `json:"max"`
	AtMax time.Duration `json:"atMax"`
	Steps []ReplayStep  `json:"steps,omitempty"`
	// Peak is the highest number of replicas, first reached PeakAt.
	Peak   int32     `json:"peak"`
	PeakAt time.Time `json:"peakAt"`
	// Run is how long replicas ran, added up: two for an hour are two hours.
	Run time.Duration `json:"run"`
	// Wakes counts the ways from zero.
	Wakes int `json:"wakes"`
	// Beside names triggers that only the autoscaler can read, and that are left out.
	Beside []string `json:"beside,omitempty"`
}

// A ReplayStep is a change of replicas, and what triggers said then.
type ReplayStep struct {
	Step

	Values map[string]float64 `json:"values,omitempty"`
	Failed []string           `json:"failed,omitempty"`
}

// Replay tells how many replicas an object's target would have had over the time of a recording, by the
// arithmetic of the engine and of the autoscaler, and does nothing about it. It begins with the replicas
// there are without work. Every sample is taken to be noticed at once and every replica to be there at
// once.
func (e *Engine) Replay(ctx context.Context, so *kedav1alpha1.ScaledObject, samples []recording.Sample) (Replay, error) {
	if len(samples) == 0 {
		return Replay{}, recording.ErrEmpty
	}
	first, last := samples[0].At, samples[len(samples)-1].At
	switch {
	case so.NeedToBePausedByAnnotation():
		return Replay{}, ErrPaused
	case last.Sub(first) > longestReplay:
		return Replay{}, ErrTooLong
	}
	so.CreationTimestamp.Time = first
	o, s, err := e.tried(so)
	if err != nil {
		return Replay{}, err
	}
	defer o.lane.end()
	o.lane.turn.Lock()
	defer o.lane.turn.Unlock()
	o.lane.make(ctx, s, func(*watched) bool { return false })
	p := &player{o: o, so: so, now: first, said: map[string]recorded{}}
	o.sole, o.clock = true, func() time.Time { return p.now }
	if err := p.cast(samples); err != nil {
		return Replay{}, err
	}
	p.begin(last)
	return p.play(ctx, samples)
}

// player goes through a recording.
type player struct {
	o        *object
	so       *kedav1alpha1.ScaledObject
	triggers []said
	said     map[string]recorded // by metric
	metrics  map[string]string   // by what the recording calls them
	now      time.Time
	soon     time.Time // when the last cooldown ends
	replicas int32
	replay   Replay
}

// recorded is what was last recorded of a metric.
type recorded struct {
	value  float64
	failed bool
}

// cast finds out which metrics the recording's names stand for, and that none is missing.
func (p *player) cast(samples []recording.Sample) error {
	p.metrics = map[string]string{}
	names := map[string]bool{}
	for _, s := range samples {
		for name := range s.Values {
			names[name] = true
		}
		for _, name := range s.Failed {
			names[name] = true
		}
	}
	p.triggers = p.o.lane.observe().triggers
	for i := range p.triggers {
		if err := p.cue(&p.triggers[i], names); err != nil {
			return err
		}
	}
	for name := range names {
		if p.metrics[name] == "" {
			return fmt.Errorf("%q in the recording is neither a metric nor the name of a trigger of this object", name)
		}
	}
	if len(p.metrics) == 0 {
		return errors.New("only the autoscaler can read the triggers of this object")
	}
	return nil
}

// cue finds out by which of the recording's names a trigger goes.
func (p *player) cue(t *said, names map[string]bool) error {
	if t.watched.err != nil {
		return fmt.Errorf("making trigger %s: %w", t.named(), t.watched.err)
	}
	for j := range t.specs {
		metric, external := named(&t.specs[j])
		if !external {
			p.replay.Beside = append(p.replay.Beside, t.named())
			continue
		}
		for _, name := range []string{metric, t.spec.Name} {
			if names[name] {
				p.metrics[name] = metric
			}
		}
		if !names[metric] && !names[t.spec.Name] {
			return fmt.Errorf("the recording says nothing of trigger %s, whose metric is %s", t.named(), metric)
		}
	}
	return nil
}

// begin sets the replicas there are without work.
func (p *player) begin(last time.Time) {
	if n := p.so.Spec.MinReplicaCount; n != nil {
		p.replicas = *n
	}
	if n := p.so.Spec.IdleReplicaCount; n != nil {
		p.replicas = *n
	}
	p.replay.From, p.replay.To, p.replay.Start, p.replay.Max = p.now, last, p.replicas, p.so.GetHPAMaxReplicas()
	p.replay.Peak, p.replay.PeakAt = p.replicas, p.now
}

// play decides at each sample, whenever an autoscaler looks, and when a cooldown ends.
func (p *player) play(ctx context.Context, samples []recording.Sample) (Replay, error) {
	look := p.now
	for next := 0; ctx.Err() == nil; {
		for next < len(samples) && !samples[next].At.After(p.now) {
			p.hear(&samples[next])
			next++
		}
		if !look.After(p.now) {
			look = p.now.Add(horizontal.SyncPeriod)
		}
		if err := p.decide(); err != nil {
			return p.replay, err
		}
		if next == len(samples) {
			return p.replay, nil
		}
		at := samples[next].At
		for _, other := range []time.Time{look, p.soon} {
			if other.After(p.now) && other.Before(at) {
				at = other
			}
		}
		p.pass(at.Sub(p.now))
	}
	return p.replay, ctx.Err()
}

// hear takes a sample over.
func (p *player) hear(s *recording.Sample) {
	for name, value := range s.Values {
		p.said[p.metrics[name]] = recorded{value: value}
	}
	for _, name := range s.Failed {
		p.said[p.metrics[name]] = recorded{failed: true}
	}
}

// pass lets time go by.
func (p *player) pass(d time.Duration) {
	p.replay.Run += time.Duration(p.replicas) * d
	if p.replicas >= p.replay.Max {
		p.replay.AtMax += d
	}
	p.now = p.now.Add(d)
}

// observation is what triggers say now.
func (p *player) observation() observation {
	seen := observation{began: p.now, triggers: slices.Clone(p.triggers)}
	for i := range seen.triggers {
		t := &seen.triggers[i]
		t.answer = answer{}
		for j := range t.specs {
			metric, external := named(&t.specs[j])
			is, known := p.said[metric]
			switch {
			case !external:
				t.began = p.now
			case is.failed:
				t.began, t.answer.err = p.now, errFailed
			case known:
				t.began = p.now
				t.readings = append(t.readings, trigger.Judged(t.source, metric, is.value)...)
			}
		}
	}
	return seen
}

// decide does what judge does, with a target that is only thought of.
func (p *player) decide() error {
	seen := p.observation()
	r := p.o.reckon(p.so, &seen, p.replicas)
	if r.err != nil {
		return fmt.Errorf("at %s: %w", p.now.Format(time.RFC3339), r.err)
	}
	d := activation.Decide(p.o.input(p.so, &r, p.replicas))
	v := verdict{d, p.o.wish(p.so, &r, &d, p.replicas)}
	if d.Working {
		p.o.mu.Lock()
		p.o.lastActive = p.now
		p.o.mu.Unlock()
	}
	if d.Wait > 0 {
		p.soon = p.now.Add(d.Wait + 1)
	}
	to := v.replicas()
	if to == p.replicas {
		return nil
	}
	step := ReplayStep{Step: Step{p.now, p.replicas, to, because(&r, &v)}, Values: map[string]float64{}}
	for _, metric := range slices.Sorted(maps.Keys(p.said)) {
		if is := p.said[metric]; is.failed {
			step.Failed = append(step.Failed, metric)
		} else {
			step.Values[metric] = is.value
		}
	}
	p.o.wrote(&r, to, step.Why)
	p.replay.Steps = append(p.replay.Steps, step)
	if p.replicas == 0 {
		p.replay.Wakes++
	}
	if to > p.replay.Peak {
		p.replay.Peak, p.replay.PeakAt = to, p.now
	}
	p.replicas = to
	return nil
}
