package scaler

import (
	"context"
	"sync"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/domain/activation"
	"ebb.dev/ebb/internal/domain/jobs"
)

// Jobs asks the triggers of ScaledJobs.
type Jobs struct {
	engine *Engine

	mu    sync.Mutex // guards lanes; short
	lanes map[types.NamespacedName]*lane
}

// Jobs returns the part of the engine that is for ScaledJobs.
func (e *Engine) Jobs() *Jobs { return e.jobs }

// job is one ScaledJob that is followed.
type job struct {
	jobs *Jobs
	key  types.NamespacedName
	lane *lane

	mu     sync.Mutex // guards scaled
	scaled *kedav1alpha1.ScaledJob
}

// Follow makes the sources of an object's triggers, those only that are new or changed, and asks them
// from then on: at once, every polling interval, and when a source says so. It returns the triggers
// that have no source.
func (j *Jobs) Follow(ctx context.Context, scaled *kedav1alpha1.ScaledJob) ([]activation.FailedTrigger, error) {
	key := types.NamespacedName{Namespace: scaled.Namespace, Name: scaled.Name}
	j.mu.Lock()
	l := j.lanes[key]
	if l == nil {
		of := &job{jobs: j, key: key}
		l = &lane{engine: j.engine, key: key, owner: of, ended: make(chan struct{})}
		of.lane = l
		j.lanes[key] = l
	}
	j.mu.Unlock()
	j.engine.config.Environment.Requests.Known(key)
	l.turn.Lock()
	defer l.turn.Unlock()
	of, ok := l.owner.(*job)
	if !ok {
		return nil, errGone
	}
	of.mu.Lock()
	of.scaled = scaled
	of.mu.Unlock()
	s, _ := of.subject()
	l.make(ctx, s, func(*watched) bool { return false })
	l.poll()
	var failed []activation.FailedTrigger
	for _, w := range l.triggers {
		if w.err != nil {
			failed = append(failed, w.failed())
		}
	}
	return failed, ctx.Err()
}

// Unfollow lets go of an object's sources.
func (j *Jobs) Unfollow(key types.NamespacedName) {
	j.mu.Lock()
	l := j.lanes[key]
	delete(j.lanes, key)
	j.mu.Unlock()
	if l != nil {
		l.end()
		j.engine.config.Environment.Requests.Gone(key)
	}
}

// Refresh has an object's sources be asked now. It does not block.
func (j *Jobs) Refresh(key types.NamespacedName) {
	j.mu.Lock()
	l := j.lanes[key]
	j.mu.Unlock()
	if l != nil {
		l.poll()
	}
}

func (j *Jobs) all() (lanes []*lane) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range j.lanes {
		lanes = append(lanes, l)
	}
	return lanes
}

// subject implements owner. The triggers are summed up: a sum of answers from several times counts some
// work twice.
func (j *job) subject() (subject, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.scaled == nil {
		return subject{}, false
	}
	return subject{
		object: j.scaled, kind: "ScaledJob", triggers: j.scaled.Spec.Triggers, interval: interval(j.scaled.Spec.PollingInterval),
		fast: j.scaled.Annotations[fastPoll] == "true", whole: true,
	}, true
}

// changed implements owner: an observation tells of it.
func (*job) changed() {}

// built implements owner: who makes the Jobs tells of it.
func (*job) built(*watched) {}

// judge implements owner.
func (j *job) judge(_ context.Context, seen observation) time.Duration {
	out := jobs.Observation{Began: seen.began}
	active := false
	for i := range seen.triggers {
		s := &seen.triggers[i]
		if s.source == nil {
			continue
		}
		if s.pending() {
			return 0 // it is being asked: its answer brings another round
		}
		a := jobs.Answer{Index: s.index, Type: s.spec.Type, Name: s.spec.Name, Err: s.answer.err, Targets: averages(s.specs)}
		for _, r := range s.readings {
			a.Readings = append(a.Readings, jobs.Reading{Metric: r.Metric, Value: r.Value.AsApproximateFloat64(), Active: r.Active})
			active = active || r.Active
		}
		out.Triggers = append(out.Triggers, a)
	}
	if len(out.Triggers) > 0 {
		j.jobs.engine.config.Work(j.key, out)
	}
	mode := trigger.Idle
	if active {
		mode = trigger.Active
	}
	j.lane.lean(mode)
	return 0
}

// averages are the external metrics that have a target by average.
func averages(specs []autoscalingv2.MetricSpec) (out []jobs.Target) {
	for i := range specs {
		if specs[i].External == nil {
			continue
		}
		t := jobs.Target{Metric: specs[i].External.Metric.Name}
		if average := specs[i].External.Target.AverageValue; average != nil {
			t.Average = average.AsApproximateFloat64()
		}
		out = append(out, t)
	}
	return out
}
