package scaler

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"

	"ebb.dev/ebb/internal/adapter/credential"
	"ebb.dev/ebb/internal/adapter/trigger"
)

// watched is one trigger with its source. Fields of the first block do not change, of the second only
// with the lane's turn held.
type watched struct {
	index      int
	spec       kedav1alpha1.ScaleTriggers
	auth, env  map[string]string
	identity   kedav1alpha1.AuthPodIdentity
	composed   bool
	source     trigger.Source // nil with an error
	err        error
	notBuiltIn bool
	missing    credential.Resolved
	stopSigns  func() // of credentials; nil if there are none
	stopSpecs  func() // of metrics that change by themselves; nil if they do not

	armed     bool
	mode      trigger.Mode
	stopWatch func() // of pushes; nil if there are none

	// The lane's mu guards these.
	specs  []autoscalingv2.MetricSpec
	last   answer
	due    bool          // it is to be asked in the next round
	asking bool          // it is being asked
	early  bool          // it was asked last before it was time
	cancel func()        // of the question; nil while there is none
	again  time.Time     // when it is to be asked out of turn; zero: not
	spare  time.Duration // of pauses that were longer than they had to be
	retry  time.Time     // when it is to be made anew; zero: not
	stale  bool          // it is to be made anew, in the next round
	// failures counts its answers that were errors.
	failures uint64
	// closing has whoever asks close the source afterwards.
	closing bool
}

// named tells how people call a trigger.
func (w *watched) named() string {
	if w.spec.Name != "" {
		return w.spec.Name
	}
	return w.spec.Type
}

func (w *watched) pushes() bool {
	_, pushes := w.source.(trigger.Pusher)
	return pushes
}

// make makes the sources of triggers that are new, changed, or wanted to be made anew. It tells whether
// there is another source than before. l.turn is held.
func (l *lane) make(ctx context.Context, s subject, anew func(*watched) bool) (changed bool) {
	before := l.triggers
	keep, all := l.kept(&s, anew)
	if all {
		return false
	}
	pod, container := l.template(ctx, &s)
	after := make([]*watched, len(s.triggers))
	for i := range s.triggers {
		if keep[i] {
			after[i] = before[i]
			continue
		}
		var old *watched
		if i < len(before) {
			old = before[i]
		}
		after[i] = l.source(ctx, s, old, i, credential.Request{
			Namespace: l.key.Namespace, Ref: s.triggers[i].AuthenticationRef, Pod: pod, Container: container,
		})
		changed = changed || after[i] != old
	}
	l.exchange(after)
	return changed || len(before) != len(after)
}

// template finds the pods' template where a trigger may take something from it.
func (l *lane) template(ctx context.Context, s *subject) (pod *corev1.PodTemplateSpec, container string) {
	if !slices.ContainsFunc(s.triggers, looksAtPods) {
		return nil, ""
	}
	pod, container, err := l.engine.config.Targets.Template(ctx, s.object)
	if err != nil {
		l.engine.config.Log.Debug("reading the template of a target", s.kind, l.key.String(), "error", err)
	}
	return pod, container
}

// looksAtPods tells whether a trigger may take something from the environment or the account of the
// target's pods.
func looksAtPods(t kedav1alpha1.ScaleTriggers) bool {
	if t.AuthenticationRef != nil {
		return true
	}
	for name := range t.Metadata {
		if strings.Contains(name, "FromEnv") {
			return true
		}
	}
	return false
}

// kept tells which triggers of a subject go on as they are, and whether all do.
func (l *lane) kept(s *subject, anew func(*watched) bool) (keep []bool, all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.triggers
	keep, all = make([]bool, len(s.triggers)), len(before) == len(s.triggers)
	for i := range s.triggers {
		keep[i] = i < len(before) && before[i].fits(s, i) && !anew(before[i])
		all = all && keep[i]
		if i < len(before) && !keep[i] {
			before[i].stale = false // from here on, changes count anew
		}
	}
	return keep, all
}

// exchange puts triggers in the place of others, and lets go of those that are not among them.
func (l *lane) exchange(after []*watched) {
	l.mu.Lock()
	before := l.triggers
	l.triggers = after
	l.mu.Unlock()
	for i, w := range before {
		if i >= len(after) || after[i] != w {
			l.close(w)
		}
	}
}

// fits tells whether a trigger is the i-th one of a subject.
func (w *watched) fits(s *subject, i int) bool {
	return w.index == i && w.composed == s.composed && reflect.DeepEqual(&w.spec, &s.triggers[i])
}

// source returns the source of a subject's i-th trigger: the old one if nothing about it changed.
func (l *lane) source(ctx context.Context, s subject, old *watched, i int, q credential.Request) *watched {
	e := l.engine
	spec := s.triggers[i]
	w := &watched{index: i, spec: spec, composed: s.composed}
	if w.notBuiltIn, w.err = e.missing(spec.Type); w.err != nil {
		l.mu.Lock()
		l.failures++
		l.mu.Unlock()
		l.owner.built(w)
		return w
	}
	stop := e.config.Credentials.Watch(q, func() { l.rotated(w) })
	resolved, err := e.config.Credentials.Resolve(ctx, q)
	same := old != nil && old.source != nil && old.fits(&s, i)
	if same && (err != nil || old.signedBy(&resolved)) {
		stop()
		l.keep(old, s, resolved, err)
		return old
	}
	w.stopSigns, w.missing = stop, resolved
	w.auth, w.env, w.identity, w.retry = resolved.Params, resolved.Env, resolved.Identity, expiry(resolved.Expires)
	if w.err = err; err == nil {
		l.build(ctx, s, w)
	}
	if w.err = resolved.Explain(w.err); w.err != nil {
		w.retry = time.Now().Add(s.interval)
	}
	w.due = true
	if w.err != nil {
		l.mu.Lock()
		l.failures++
		l.mu.Unlock()
	}
	if old != nil && old.fits(&s, i) {
		l.mu.Lock()
		w.last, w.failures = old.last, old.failures
		l.mu.Unlock()
	}
	l.owner.built(w)
	return w
}

// missing tells that nothing makes sources of a type, known or not.
func (e *Engine) missing(kind string) (known bool, err error) {
	switch _, builtIn := e.config.Builders[kind]; {
	case builtIn:
		return false, nil
	case e.config.Known(kind):
		return true, fmt.Errorf("trigger type %s is not built in", kind)
	default:
		return false, fmt.Errorf("no scaler found for type: %s", kind)
	}
}

// keep goes on with a source whose credentials are as before, or could not be found anew.
func (l *lane) keep(w *watched, s subject, resolved credential.Resolved, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.retry = expiry(resolved.Expires)
	if err != nil {
		w.retry = time.Now().Add(s.interval)
		l.engine.config.Log.Debug("resolving credentials again", s.kind, l.key.String(), "trigger", w.named(), "error", err)
	}
}

// expiry is when credentials that end are to be looked for again.
func expiry(at time.Time) time.Time {
	if soonest := time.Now().Add(5 * time.Second); !at.IsZero() && at.Before(soonest) {
		return soonest
	}
	return at
}

func (w *watched) signedBy(r *credential.Resolved) bool {
	return maps.Equal(w.auth, r.Params) && maps.Equal(w.env, r.Env) && reflect.DeepEqual(w.identity, r.Identity)
}

// build makes a trigger's source.
func (l *lane) build(ctx context.Context, s subject, w *watched) {
	c := &l.engine.config
	config := trigger.Config{Environment: c.Environment}
	config.ScalableObjectName, config.ScalableObjectNamespace, config.ScalableObjectType = l.key.Name, l.key.Namespace, s.kind
	config.TriggerName, config.TriggerType, config.TriggerIndex = w.spec.Name, w.spec.Type, w.index
	config.TriggerMetadata, config.TriggerUseCachedMetrics, config.MetricType = w.spec.Metadata, w.spec.UseCachedMetrics, w.spec.MetricType
	config.GlobalHTTPTimeout, config.AsMetricSource = c.Timeout, s.composed
	config.AuthParams, config.ResolvedEnv, config.PodIdentity = w.auth, w.env, w.identity
	if config.AuthParams == nil {
		config.AuthParams = map[string]string{}
	}
	config.Metric = func() string {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i := range w.specs {
			if metric, external := named(&w.specs[i]); external {
				return metric
			}
		}
		return ""
	}
	source, err := c.Builders[w.spec.Type](config)
	if err != nil {
		w.err = err
		return
	}
	limit, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	specs, err := source.Specs(limit)
	l.mu.Lock()
	w.specs, w.err = specs, err
	l.mu.Unlock()
	if err != nil {
		l.shut(w, source)
		return
	}
	w.source = source
	if r, ok := source.(trigger.Respecifier); ok {
		w.stopSpecs = r.WatchSpecs(func() { l.respecified(w) })
	}
}

// rotated has a trigger be made anew, as its credentials may have changed.
func (l *lane) rotated(w *watched) {
	l.mu.Lock()
	w.stale = true
	l.mu.Unlock()
	l.kick()
}

// respecified asks a source for its metrics once more.
func (l *lane) respecified(w *watched) {
	l.engine.begin(func(ctx context.Context) {
		limit, cancel := context.WithTimeout(ctx, l.engine.config.Timeout)
		defer cancel()
		l.turn.Lock()
		defer l.turn.Unlock()
		if w.source == nil {
			return
		}
		specs, err := w.source.Specs(limit)
		if err != nil {
			l.engine.config.Log.Debug("asking for metrics that changed", "trigger", w.named(), "of", l.key.String(), "error", err)
			return
		}
		l.mu.Lock()
		w.specs, w.due = specs, true
		l.mu.Unlock()
		l.owner.changed()
		l.kick()
	})
}

// arm has the source tell of work, in the way that suits whether any was there. l.turn is held.
func (w *watched) arm(mode trigger.Mode, wake func()) {
	pusher, pushes := w.source.(trigger.Pusher)
	if !pushes || w.armed && w.mode == mode {
		return
	}
	before := w.stopWatch
	w.stopWatch = pusher.Watch(mode, wake)
	w.armed, w.mode = true, mode
	if before != nil {
		before()
	}
}

// close lets go of a trigger: of its source once it is not asked any more, beside others, as one whose
// server does not answer may take a while to close. l.turn is held.
func (l *lane) close(w *watched) {
	for _, stop := range []func(){w.stopWatch, w.stopSigns, w.stopSpecs} {
		if stop != nil {
			stop()
		}
	}
	source := w.source
	if source == nil {
		return
	}
	w.source = nil
	l.mu.Lock()
	asking := w.asking
	w.closing = true
	if w.cancel != nil {
		w.cancel()
	}
	l.mu.Unlock()
	if asking {
		return
	}
	if !l.engine.begin(func(context.Context) { l.shut(w, source) }) {
		l.shut(w, source)
	}
}

func (l *lane) shut(w *watched, source trigger.Source) {
	if err := source.Close(); err != nil {
		l.engine.config.Log.Debug("closing the source of a trigger", "trigger", w.named(), "of", l.key.String(), "error", err)
	}
}
