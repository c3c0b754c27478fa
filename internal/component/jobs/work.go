package jobs

import (
	"context"
	"maps"
	"slices"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/activation"
	rules "ebb.dev/ebb/internal/domain/jobs"
)

// lookAfter is when an object that is no longer followed is looked at once more: no Job of its stays
// out of sight for longer.
const lookAfter = 2 * time.Minute

// activeAfter is how much later a newer LastActiveTime must be to be shown for Jobs that were made.
const activeAfter = 30 * time.Second

// refusedFor is how long no Jobs are made after the API did not take one, unless the polling interval is
// shorter: observations may come much quicker than whoever has to grant something acts.
const refusedFor = 10 * time.Second

// work does for one object what is to be done: it judges the latest observation and takes away finished
// Jobs.
func (e *Engine) work(ctx context.Context, key types.NamespacedName) error {
	e.mu.Lock()
	o := e.objects[key]
	e.mu.Unlock()
	if o == nil {
		return nil
	}
	if !o.acting.try() {
		return nil // whoever has the turn calls release, and that here again
	}
	defer o.acting.give()
	o.mu.Lock()
	scaled := o.scaled
	o.mu.Unlock()
	if scaled == nil {
		e.forget(o)
		return nil
	}
	now := time.Now()
	if wait := o.wait(now); wait > 0 {
		e.queue.AddAfter(key, wait)
	} else if j := o.judge(now); j != nil {
		e.tellTroubles(o, j)
		if !j.again.IsZero() {
			e.queue.AddAfter(key, j.again.Sub(now))
		}
		created, err := e.create(ctx, o, j)
		e.conclude(o, j, created, err)
	} else if o.due(now) {
		e.observer.Refresh(key)
	}
	return e.clean(ctx, o, scaled)
}

// forget drops an object that is not followed, once no Job of its could be missed.
func (e *Engine) forget(o *object) {
	o.expire(time.Now())
	if !o.idle() {
		o.mu.Lock()
		hidden := len(o.unseen) > 0
		o.mu.Unlock()
		if hidden {
			e.queue.AddAfter(o.key, lookAfter)
		}
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.objects[o.key] == o {
		delete(e.objects, o.key)
	}
}

// expire gives up Jobs that never showed.
func (o *object) expire(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ledger.Observe(0, false, now, now)
	o.prune(now)
}

// prune gives up what was made and never showed; mu is held.
func (o *object) prune(now time.Time) {
	maps.DeleteFunc(o.unseen, func(_ string, of origin) bool { return now.Sub(of.made) >= lookAfter })
}

// wait tells how long no observation is to be judged.
func (o *object) wait(now time.Time) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.latest == nil {
		return 0
	}
	return o.refused.Sub(now)
}

// due tells whether the sources are to be asked again because Jobs have settled.
func (o *object) due(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.again.IsZero() || now.Before(o.again) {
		return false
	}
	o.again = time.Time{}
	return true
}

// judgement is what an observation comes to.
type judgement struct {
	scaled   *kedav1alpha1.ScaledJob
	seen     rules.Observation
	demand   rules.Demand
	counts   rules.Counts
	decision rules.Decision
	names    []string // of the Jobs to make
	failing  bool     // a trigger is, or has no source
	again    time.Time
	failed   []activation.FailedTrigger
}

// judge decides by the latest observation; nil if there is none. The Jobs to make are in the ledger
// when it returns.
func (o *object) judge(now time.Time) *judgement {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.latest == nil || o.scaled == nil {
		return nil
	}
	o.prune(now)
	j := &judgement{scaled: o.scaled, seen: *o.latest}
	o.latest, o.judged = nil, j.seen.Began
	said, silent := j.gather(o.failed)
	if !slices.Equal(silent, o.silent) { // another sum: it says nothing of what was taken
		o.ledger.Reset()
		o.silent = silent
	}
	combination := rules.Combination(o.scaled.Spec.ScalingStrategy.MultipleScalersCalculation)
	j.demand = rules.NewDemand(said, combination, o.limits)
	j.counts = o.ledger.Observe(j.demand.Level, true, j.seen.Began, now)
	j.decision = rules.Decide(j.demand, j.counts, o.limits, o.strategy)
	for range j.decision.Create {
		name := jobName(o.key.Name)
		j.names = append(j.names, name)
		o.ledger.Expect(name, now)
		o.unseen[name] = origin{o.scaled.Generation, now}
	}
	o.short, o.again = j.decision.Short > 0, time.Time{}
	if j.decision.Reason == rules.OnTheWay {
		j.again = j.counts.Settles
		o.again = j.again
	}
	return j
}

// gather returns what triggers said, and which said nothing; failed are those that had no source.
func (j *judgement) gather(failed []activation.FailedTrigger) (said []rules.Trigger, silent []int) {
	for _, t := range j.seen.Triggers {
		if t.Err != nil {
			silent = append(silent, t.Index)
			continue
		}
		said = append(said, rules.Trigger{Targets: t.Targets, Readings: t.Readings})
	}
	for _, f := range failed {
		if !slices.ContainsFunc(j.seen.Triggers, func(t rules.Answer) bool { return t.Index == f.Index }) {
			j.failed = append(j.failed, f)
			silent = append(silent, f.Index)
		}
	}
	slices.Sort(silent)
	j.failing = len(silent) > 0
	return said, silent
}

// conclude tells what came of a judgement: by the status, by events, and by the account.
func (e *Engine) conclude(o *object, j *judgement, created int, err error) {
	status, turned := o.conclude(j, created, err, time.Now())
	if turned {
		e.tellActive(j.scaled, j.demand.Active)
	}
	e.publish(o, &status)
}

func (o *object) conclude(j *judgement, created int, err error, now time.Time) (status kedav1alpha1.ScaledJobStatus, turned bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.account = j.account(o, created, err)
	if err != nil {
		o.refused = now.Add(min(refusedFor, polling(j.scaled)))
	}
	status = *o.status.DeepCopy()
	turned, o.active = j.demand.Active != o.active, j.demand.Active
	last := status.LastActiveTime
	if turned || (created > 0 && (last == nil || now.Sub(last.Time) >= activeAfter)) || (j.demand.Active && last == nil) {
		status.LastActiveTime = &metav1.Time{Time: now.Truncate(time.Second)}
	}
	status.Conditions = j.conditions(err)
	status.ExternalMetricNames, status.TriggersActivity = j.activity()
	return status, turned
}
