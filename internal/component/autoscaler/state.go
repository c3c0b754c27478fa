package autoscaler

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/scale"
)

// A State is what the autoscaler knows and has decided about a revision, at one moment.
type State struct {
	// Want is the wanted number of instances, scale.Unknown before the first decision and while a
	// revision on its way up has nothing to go by. Replicas is the number asked for, which exceeds
	// Want while the last instances are kept. Ready is how many are ready.
	Want, Replicas int32
	Ready          int
	// Service and Configuration name the revision in metrics; Metric is what it is scaled on.
	Service, Configuration string
	Metric                 scale.Metric
	// Since is when Want last changed; Reason and Message say why it is what it is.
	Since   time.Time
	Reason  scale.Reason
	Message string
	// Activity becomes the Active condition, with the time and reason of its last change.
	Activity       scale.Activity
	ActivitySince  time.Time
	ActivityReason scale.Reason
	// Initialized tells whether the initial scale was reached once.
	Initialized bool
	// Window is what the metric is averaged over.
	Window time.Duration
	// Stable and Panic are the averages of the last decision and Target what an instance should
	// carry; Panicking tells whether it was made in panic.
	Stable, Panic, Target float64
	Panicking             bool
	// ExcessBurst is the capacity beyond the target burst; below 0 requests are buffered.
	ExcessBurst int32
	// Woken, Decided and Written are the moments of the last wake from zero: a request waited, the
	// number was decided, the number was written. Written is zero until it is.
	Woken, Decided, Written time.Time
	// Err is why the last write failed, nil if it did not.
	Err error
}

// State returns the present state of a revision, and whether it is known.
func (a *Autoscaler) State(key types.NamespacedName) (State, bool) {
	r := a.find(key)
	if r == nil {
		return State{}, false
	}
	ready := a.fleet.Ready(key)
	r.mu.Lock()
	defer r.mu.Unlock()
	s := State{
		Want: scale.Unknown, Replicas: r.replicas, Ready: ready, Target: r.spec.Target, Window: r.spec.StableWindow,
		Service: r.spec.Service, Configuration: r.spec.Configuration, Metric: r.spec.Metric,
		Woken: r.woken, Decided: r.decided, Written: r.finished, Err: r.failed,
	}
	if r.state == nil {
		s.Activity, s.ActivityReason = scale.Activating, scale.Queued
		return s, true
	}
	d := r.decision
	s.Want, s.Since, s.Reason, s.Message = d.Want, r.since, d.Reason, d.Message()
	s.Activity, s.ActivitySince, s.ActivityReason = r.state.Activity()
	s.Initialized = r.state.Initialized()
	s.Stable, s.Panic = d.Wish.Stable, d.Wish.Panic
	s.Panicking, s.ExcessBurst = d.Wish.Panicking, d.Wish.ExcessBurst
	return s, true
}

// Revisions returns all known revisions.
func (a *Autoscaler) Revisions() []types.NamespacedName {
	a.mu.RLock()
	defer a.mu.RUnlock()
	keys := make([]types.NamespacedName, 0, len(a.revisions))
	for key := range a.revisions {
		keys = append(keys, key)
	}
	return keys
}
