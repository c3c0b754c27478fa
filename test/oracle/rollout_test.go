package oracle

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"knative.dev/pkg/logging"
	"knative.dev/serving/pkg/reconciler/route/traffic"

	"ebb.dev/ebb/internal/domain/traffic/rollout"
)

// rollouts is how many random histories of a route are compared.
const rollouts = 1_000_000

// A route is a random route whose configurations get new revisions, shares and tags.
type route struct {
	*rand.Rand
	revisions map[string]int // newest of each configuration
	goals     []rollout.Configuration
}

// change makes what a user or a new revision may: another revision, other shares, tags that come
// and go.
func (r *route) change() {
	for name := range r.revisions {
		if r.IntN(4) == 0 {
			r.revisions[name]++
		}
	}
	if r.goals != nil && r.IntN(3) > 0 {
		for i := range r.goals {
			c := &r.goals[i]
			c.Revisions = []rollout.Revision{{Name: fmt.Sprintf("%s-%d", c.Name, r.revisions[c.Name]), Percent: c.Percent}}
		}
		return
	}
	r.goals = nil
	left := 100
	for _, name := range []string{"a", "b", "c"} {
		if percent := min(left, pick(r.Rand, 0, 1, 2, 50, 100, r.IntN(101))); percent > 0 {
			r.goals = append(r.goals, r.goal("", name, percent))
			left -= percent
		}
	}
	for _, tag := range []string{"blue", "green"} {
		if r.IntN(3) == 0 {
			r.goals = append(r.goals, r.goal(tag, pick(r.Rand, "a", "b", "c"), 100))
		}
	}
}

func (r *route) goal(tag, name string, percent int) rollout.Configuration {
	revision := fmt.Sprintf("%s-%d", name, r.revisions[name])
	return rollout.Configuration{Tag: tag, Name: name, Percent: percent, Revisions: []rollout.Revision{{Name: revision, Percent: percent}}}
}

// theirs is upstream's form of a Rollout.
func theirs(r rollout.Rollout) *traffic.Rollout {
	out := &traffic.Rollout{}
	for _, c := range r.Configurations {
		theirs := &traffic.ConfigurationRollout{
			ConfigurationName: c.Name, Tag: c.Tag, Percent: c.Percent,
			StepParams: traffic.RolloutParams{StartTime: c.Steps.Start, NextStepTime: c.Steps.Next, StepDuration: c.Steps.Every, StepSize: c.Steps.Size},
		}
		for _, rev := range c.Revisions {
			theirs.Revisions = append(theirs.Revisions, traffic.RevisionRollout{RevisionName: rev.Name, Percent: rev.Percent})
		}
		out.Configurations = append(out.Configurations, theirs)
	}
	return out
}

// same compares field by field, which is a tenth of the work of comparing what is written.
func same(theirs *traffic.Rollout, ours rollout.Rollout) bool {
	return slices.EqualFunc(theirs.Configurations, ours.Configurations, func(t *traffic.ConfigurationRollout, o rollout.Configuration) bool {
		p := t.StepParams
		return t.ConfigurationName == o.Name && t.Tag == o.Tag && t.Percent == o.Percent &&
			o.Steps == rollout.Steps{Start: p.StartTime, Next: p.NextStepTime, Every: p.StepDuration, Size: p.StepSize} &&
			slices.EqualFunc(t.Revisions, o.Revisions, func(t traffic.RevisionRollout, o rollout.Revision) bool {
				return t.RevisionName == o.Name && t.Percent == o.Percent
			})
	})
}

// stepTheirs is upstream's step; false when it panics, as it does when a share shrinks so far that
// a revision leaves while others are rolling.
func stepTheirs(ctx context.Context, goals, before *traffic.Rollout, now time.Time) (after *traffic.Rollout, next int64, ok bool) {
	defer func() { ok = recover() == nil }()
	after, next = goals.Step(ctx, before, now.UnixNano())
	return after, next, true
}

// TestRolloutsAreUpstreams lets random routes roll, and compares every state.
func TestRolloutsAreUpstreams(t *testing.T) {
	ctx := logging.WithLogger(t.Context(), zap.NewNop().Sugar())
	workers := runtime.GOMAXPROCS(0)
	counts := make([]struct{ states, rolling, panics int }, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for seed := w; seed < rollouts && !t.Failed(); seed += workers {
				c := &counts[w]
				states, rolling, panics := rolls(ctx, t, uint64(seed))
				c.states, c.rolling, c.panics = c.states+states, c.rolling+rolling, c.panics+panics
			}
		})
	}
	wg.Wait()
	states, rolling, panics := 0, 0, 0
	for _, c := range counts {
		states, rolling, panics = states+c.states, rolling+c.rolling, panics+c.panics
	}
	t.Logf("%d states alike, %d of them rolling; upstream gave up in %d", states, rolling, panics)
	if rolling < states/10 || panics > states/20 {
		t.Error("the histories are too tame, or too wild, to say anything")
	}
}

func rolls(ctx context.Context, t *testing.T, seed uint64) (states, rolling, panics int) {
	r := &route{Rand: rand.New(rand.NewPCG(seed, 5)), revisions: map[string]int{"a": 1, "b": 1, "c": 1}}
	now := time.Unix(1_800_000_000, r.Int64N(1e9))
	duration := time.Duration(pick(r.Rand, 1, 5, 60, 120, 600, 1+r.IntN(3600))) * time.Second
	r.change()
	ours := rollout.New(r.goals)
	for range 4 + r.IntN(16) {
		before := theirs(ours)
		if r.IntN(3) > 0 {
			ours = ours.Observe(now, duration)
			before.ObserveReady(ctx, now.UnixNano(), duration.Seconds())
		}
		if r.IntN(5) == 0 {
			r.change()
		}
		goals := rollout.New(r.goals)
		want, next, ok := stepTheirs(ctx, theirs(goals), before, now)
		ours = goals.Step(ours, now)
		if !ok {
			return states, rolling, panics + 1
		}
		if !same(want, ours) || next != nanoseconds(ours.Due()) || want.Done() != ours.Done() {
			t.Errorf("history %d, at %s, toward %s:\nupstream %s, next %d\nebb      %s, next %d", seed, now, goals, written(t, want), next, ours, nanoseconds(ours.Due()))
			return states, rolling, panics
		}
		states++
		if !ours.Done() {
			rolling++
		}
		if seed%100 == 0 {
			ours = kept(t, want, ours)
		}
		now = now.Add(pick(r.Rand, time.Duration(r.Int64N(int64(2*time.Second))), time.Second, time.Duration(r.Int64N(int64(time.Minute)))))
		if due := ours.Due(); !due.IsZero() && r.IntN(2) == 0 && due.After(now) {
			now = due
		}
	}
	return states, rolling, panics
}

// kept compares the written form, and whether it is taken when read again; one that is not is as
// good as none.
func kept(t *testing.T, want *traffic.Rollout, ours rollout.Rollout) rollout.Rollout {
	t.Helper()
	if text := written(t, want); text != ours.String() {
		t.Errorf("upstream writes %s\nebb             %s", text, ours)
	}
	read, ok := rollout.Parse(ours.String())
	if ok != (want.Validate() && len(want.Configurations) > 0) {
		t.Errorf("%s is taken: %v, by upstream: %v", ours, ok, !ok)
	}
	return read
}

func written(t *testing.T, r *traffic.Rollout) string {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

func nanoseconds(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.UnixNano()
}
