package scaler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/domain/activation"
	"ebb.dev/ebb/internal/domain/horizontal"
)

const (
	// confirm is how long a HorizontalPodAutoscaler may take to look at a metric again, with a margin:
	// so long it is shown the value that replicas were added for.
	confirm = 20 * time.Second
	// past is how long changes are remembered: the longest period a policy can have.
	past = 30 * time.Minute
	// renewed is how often the last time of activity is shown anew while nothing else changes.
	renewed = 5 * time.Minute
	// settling is how long a start is not shown by the status.
	settling = 250 * time.Millisecond
	// defaultCooldown is KEDA's.
	defaultCooldown = 5 * time.Minute
	// now is as soon as possible.
	now = time.Nanosecond
)

// judge decides what an observation leads to, and writes it. It implements owner.
func (o *object) judge(ctx context.Context, seen observation) time.Duration {
	so := o.present()
	if so.Status.ScaleTargetGVKR == nil {
		return 0 // nobody knows yet what to scale
	}
	o.listen(&seen)
	to := targetOf(so)
	current, err := o.engine.config.Targets.Replicas(ctx, to)
	if err != nil {
		if ctx.Err() == nil {
			o.show(so, nil, activation.Decision{Ready: activation.Condition{
				Status: "False", Reason: "ErrorGettingCurrentReplicas", Message: "Error getting current replicas count for ScaleTarget: " + err.Error(),
			}})
		}
		return 0
	}
	r := o.reckon(so, &seen, current)
	o.mu.Lock()
	o.reckoned = r
	o.mu.Unlock()
	if so.NeedToBePausedByAnnotation() {
		return 0
	}
	d := activation.Decide(o.input(so, &r, current))
	v := verdict{d, o.wish(so, &r, &d, current)}
	if again, is := v.premature(&seen, current); is {
		return again
	}
	if d.Working {
		o.mu.Lock()
		o.lastActive = o.clock()
		o.mu.Unlock()
	}
	if err := o.write(ctx, so, &r, &v); err != nil {
		v.Ready = activation.Condition{Status: "False", Reason: "ErrorScalingTarget", Message: err.Error()}
	}
	o.show(so, &r, v.Decision)
	o.explain(so, &seen, &r, &v)
	mode := trigger.Idle
	if r.active {
		mode = trigger.Active
	}
	o.lane.lean(mode)
	if seen.aside {
		return 0
	}
	return d.Wait
}

// A verdict is what is decided: whether anything works, and how many replicas ahead of the autoscaler.
type verdict struct {
	activation.Decision
	wish horizontal.Wish
}

// replicas is how many there are to be.
func (v *verdict) replicas() int32 {
	if v.Replicas != nil && !v.Up {
		return *v.Replicas
	}
	return v.wish.Replicas
}

// premature tells that something would be taken away upon an observation that is no ground for it, and
// how soon there is to be another.
func (v *verdict) premature(seen *observation, current int32) (again time.Duration, is bool) {
	switch {
	case v.Down && seen.aside:
		return 0, true // how soon work is taken to be over is for the interval to say, not for who asks in between
	case (v.Down || v.wish.Replicas < current) && seen.old():
		return now, true
	}
	return 0, false
}

// listen keeps an observation for those who ask for metrics, and tells of triggers that fail.
func (o *object) listen(seen *observation) {
	o.mu.Lock()
	o.last = *seen
	o.mu.Unlock()
	for i := range seen.triggers {
		if a := &seen.triggers[i]; !a.pending() {
			o.complain(a.index, a.answer.err)
		}
	}
}

// targetOf is what an object scales, whose kind its status names.
func targetOf(so *kedav1alpha1.ScaledObject) activation.Target {
	return activation.Target{Kind: *so.Status.ScaleTargetGVKR, Namespace: so.Namespace, Name: so.Spec.ScaleTargetRef.Name, By: so.Name}
}

// input gathers what the activation depends on.
func (o *object) input(so *kedav1alpha1.ScaledObject, r *reckoning, current int32) activation.Input {
	o.mu.Lock()
	last := o.lastActive
	o.mu.Unlock()
	in := activation.Input{
		Limits: activation.Limits{
			Idle: so.Spec.IdleReplicaCount, Cooldown: seconds(so.Spec.CooldownPeriod, defaultCooldown), Initial: seconds(so.Spec.InitialCooldownPeriod, 0),
		},
		Now: o.clock(), Created: so.CreationTimestamp.Time, LastActive: last, Current: current,
		Active: r.active, Forced: so.NeedToForceActivation(), Failed: r.failed, Unknown: r.unknown,
		NoIn: so.NeedToPauseScaleIn(), NoOut: so.NeedToPauseScaleOut(),
	}
	if so.Spec.MinReplicaCount != nil {
		in.Min = *so.Spec.MinReplicaCount
	}
	if so.Spec.Fallback != nil {
		in.Fallback = &so.Spec.Fallback.Replicas
	}
	if r.resources && !r.alone && !r.failed && !so.IsUsingModifiers() { // what the autoscaler reads itself always works
		in.Active = true
	}
	return in
}

// wish is how many replicas there are to be ahead of the autoscaler, by its own arithmetic; what the
// activation decided, or there is, if that is not more.
func (o *object) wish(so *kedav1alpha1.ScaledObject, r *reckoning, d *activation.Decision, current int32) horizontal.Wish {
	base := current
	if d.Up {
		base = *d.Replicas
	}
	if base == 0 || d.Down || o.held(so, r, d) {
		return horizontal.Wish{Replicas: base}
	}
	at := o.clock()
	up, down := rules(so)
	in := horizontal.Input{Now: at, Current: base, Min: *so.GetHPAMinReplicas(), Max: so.GetHPAMaxReplicas(), Metrics: r.metrics, Up: up}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.added = slices.DeleteFunc(o.added, func(c horizontal.Change) bool { return at.Sub(c.At) > past })
	in.Added = slices.Clone(o.added)
	in.Alone = r.alone && o.steady(at)
	w := horizontal.Wish{Replicas: base}
	if !so.NeedToPauseScaleOut() {
		w = horizontal.Up(in)
	}
	if r.alone && !d.Up && w.Replicas == base {
		return o.level(so, r, &in, down)
	}
	if r.alone {
		o.note(in, down, w.Replicas)
	}
	return w
}

// note remembers what is asked for beside a wish that goes up, which is not to be taken away before its time;
// o.mu is held.
func (o *object) note(in horizontal.Input, rules *autoscalingv2.HPAScalingRules, atLeast int32) {
	if !in.Alone {
		in.Metrics = slices.DeleteFunc(slices.Clone(in.Metrics), func(m horizontal.Metric) bool { return !m.Average })
	}
	asked := horizontal.Asked(in)
	asked.Replicas = max(asked.Replicas, atLeast)
	o.remind(in.Now, rules, asked)
}

// remind adds to what was asked for, and forgets what counts no longer; o.mu is held.
func (o *object) remind(at time.Time, rules *autoscalingv2.HPAScalingRules, asked horizontal.Wish) {
	kept := horizontal.Stabilization(rules)
	o.asked = slices.DeleteFunc(o.asked, func(w horizontal.Wished) bool { return at.Sub(w.At) > kept })
	o.asked = append(o.asked, horizontal.Wished{At: at, Wish: asked})
}

// held tells that the target is to be left with the replicas it has, or with those of the decision.
func (o *object) held(so *kedav1alpha1.ScaledObject, r *reckoning, d *activation.Decision) bool {
	return so.NeedToPauseScaleOut() && !r.alone || !d.Up && (d.Replicas != nil || o.resuming())
}

// resuming tells that a pause ended so recently that an autoscaler would not have begun again either: one
// who puts another kind of pause in its place has that long to do it.
func (o *object) resuming() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.resumed.IsZero() && o.clock().Sub(o.resumed) < horizontal.SyncPeriod
}

// steady tells that the last change is so long ago that values tell of what there is now; o.mu is held.
func (o *object) steady(at time.Time) bool {
	return len(o.added) == 0 || at.Sub(o.added[len(o.added)-1].At) >= horizontal.SyncPeriod
}

// level is the wish of a target that no autoscaler scales and that is not to have more replicas now: it
// may be fewer, or the minimum if there are not that many. o.mu is held.
func (o *object) level(so *kedav1alpha1.ScaledObject, r *reckoning, in *horizontal.Input, rules *autoscalingv2.HPAScalingRules) horizontal.Wish {
	if in.Current < in.Min && !so.NeedToPauseScaleOut() {
		return horizontal.Wish{Replicas: in.Min}
	}
	if r.failed || r.unknown || r.err != nil || len(r.metrics) == 0 {
		return horizontal.Wish{Replicas: in.Current} // who knows how much work there is
	}
	if len(o.asked) == 0 { // what there is was asked for by somebody
		o.asked = append(o.asked, horizontal.Wished{At: in.Now, Wish: horizontal.Wish{Replicas: in.Current}})
	}
	o.remind(in.Now, rules, horizontal.Asked(*in))
	if so.NeedToPauseScaleIn() {
		return horizontal.Wish{Replicas: in.Current}
	}
	return horizontal.Down(*in, rules, o.asked)
}

// write sets what was decided, and tells.
func (o *object) write(ctx context.Context, so *kedav1alpha1.ScaledObject, r *reckoning, d *verdict) error {
	to := d.replicas()
	if !d.Up && to == r.current && d.Replicas == nil {
		return nil
	}
	if d.Up && o.engine.config.Starting != nil {
		defer o.engine.config.Starting(o.key)()
	}
	err := o.engine.config.Targets.SetReplicas(ctx, targetOf(so), to)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	if err == nil {
		o.wrote(r, to, because(r, d))
	}
	what := fmt.Sprintf("%s %s/%s from %d to %d", so.Status.ScaleTargetKind, so.Namespace, so.Spec.ScaleTargetRef.Name, r.current, to)
	return o.told(so, r, d, what, err)
}

// told tells what was written, or why it could not be.
func (o *object) told(so *kedav1alpha1.ScaledObject, r *reckoning, d *verdict, what string, err error) error {
	switch {
	case d.Up && err != nil:
		err = fmt.Errorf("error activating ScaleTarget: %w", err)
		o.tell(corev1.EventTypeWarning, "KEDAScaleTargetActivationFailed", fmt.Sprintf("Failed to scale %s: %v", what, err))
	case d.Up && so.NeedToForceActivation():
		o.tell(corev1.EventTypeNormal, "KEDAScaleTargetActivated", "Scaled "+what+", caused by forced activation annotation")
	case d.Up:
		o.tell(corev1.EventTypeNormal, "KEDAScaleTargetActivated", "Scaled "+what+", triggered by "+strings.Join(r.by, ";"))
	case d.Down && err != nil:
		err = fmt.Errorf("error deactivating ScaleTarget: %w", err)
		o.tell(corev1.EventTypeWarning, "KEDAScaleTargetDeactivationFailed", fmt.Sprintf("Failed to deactivate %s: %v", what, err))
	case d.Down:
		o.tell(corev1.EventTypeNormal, "KEDAScaleTargetDeactivated", "Deactivated "+what)
	case d.Replicas != nil && err != nil:
		err = fmt.Errorf("error setting ScaleTarget replicas count to ScaledObject minReplicaCount: %w", err)
	case d.Replicas != nil:
	case err != nil:
		err = fmt.Errorf("error scaling ScaleTarget: %w", err)
	default:
		o.tell(corev1.EventTypeNormal, "ScaleTargetScaled", "Scaled "+what+", "+reason(r, d.wish))
	}
	return err
}

// reason tells which metric asked for replicas, and what bounded it.
func reason(r *reckoning, wish horizontal.Wish) string {
	if wish.By == "" {
		return "as no metric asks for more"
	}
	why := "by metric " + wish.By
	for _, m := range r.metrics {
		if m.Name == wish.By {
			why = fmt.Sprintf("as %s is %g with a target of %g", m.Name, m.Value, m.Target)
		}
	}
	if wish.Bound != "" {
		why += ", bounded by " + wish.Bound
	}
	return why
}

// because tells why replicas were written.
func because(r *reckoning, d *verdict) string {
	switch {
	case d.Up && d.wish.By != "":
		return "work came, " + reason(r, d.wish)
	case d.Up:
		return "work came by " + strings.Join(r.by, ", ")
	case d.Down:
		return "no trigger was active for the cooldown period"
	case d.Replicas != nil:
		return "minReplicaCount"
	default:
		return reason(r, d.wish)
	}
}

// wrote notes a change and, if replicas were added, the values they were added for.
func (o *object) wrote(r *reckoning, to int32, why string) {
	at := o.clock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.steps = append(o.steps, Step{at, r.current, to, why}); len(o.steps) > trail {
		o.steps = slices.Delete(o.steps, 0, len(o.steps)-trail)
	}
	if to > r.current || r.alone { // else the autoscaler knows
		o.added = append(o.added, horizontal.Change{At: at, Added: to - r.current})
	}
	if to <= r.current {
		return
	}
	for _, m := range r.metrics {
		if m.Average {
			o.peaks[m.Name] = peak{m.Value, at.Add(confirm)}
		}
	}
}

// rules are the object's own for scaling up and down.
func rules(so *kedav1alpha1.ScaledObject) (up, down *autoscalingv2.HPAScalingRules) {
	if a := so.Spec.Advanced; a != nil && a.HorizontalPodAutoscalerConfig != nil && a.HorizontalPodAutoscalerConfig.Behavior != nil {
		b := a.HorizontalPodAutoscalerConfig.Behavior
		return b.ScaleUp, b.ScaleDown
	}
	return nil, nil
}

// show makes the state of a decision, and tells the listeners if it differs from the one before. r is nil
// where nothing could be reckoned.
func (o *object) show(so *kedav1alpha1.ScaledObject, r *reckoning, d activation.Decision) {
	s := activation.State{}
	set := func(kind kedav1alpha1.ConditionType, c activation.Condition) {
		if c.Status != "" {
			s.Conditions.SetCondition(kind, metav1.ConditionStatus(c.Status), c.Reason, c.Message)
		}
	}
	set(kedav1alpha1.ConditionActive, d.Active)
	set(kedav1alpha1.ConditionReady, d.Ready)
	if so.Spec.Fallback != nil && r != nil {
		set(kedav1alpha1.ConditionFallback, r.fallback())
	}
	o.mu.Lock()
	before := o.state
	if r != nil {
		s.TriggersActivity = map[string]kedav1alpha1.TriggerActivityStatus{}
		for name, active := range r.each {
			s.TriggersActivity[name] = kedav1alpha1.TriggerActivityStatus{IsActive: active}
		}
		s.Health = maps.Clone(o.health)
	} else if before != nil {
		s.TriggersActivity, s.Health = before.TriggersActivity, before.Health
	}
	if so.Spec.Fallback == nil {
		s.Health = nil
	}
	differs := before == nil || !like(before, &s)
	if differs || o.lastActive.Sub(o.noted) >= renewed {
		differs, o.noted = true, o.lastActive
	}
	if !o.noted.IsZero() {
		s.LastActiveTime = &metav1.Time{Time: o.noted}
	}
	o.state = &s
	o.mu.Unlock()
	if differs {
		o.announce(d.Up)
	}
}

// announce tells the listeners that there is another state; not at once after a start: others may be about
// to start at the same moment, which is more urgent.
func (o *object) announce(started bool) {
	if started {
		time.AfterFunc(settling, func() { o.engine.changed(o.key) })
		return
	}
	o.engine.changed(o.key)
}

// fallback is the condition that tells whether one is in force.
func (r *reckoning) fallback() activation.Condition {
	if r.fell {
		return activation.Condition{Status: "True", Reason: "FallbackExists", Message: "At least one trigger is falling back on this scaled object"}
	}
	return activation.Condition{Status: "False", Reason: "NoFallbackFound", Message: "No fallbacks are active on this scaled object"}
}

// like tells whether two states show the same, but for times.
func like(s, other *activation.State) bool {
	return slices.EqualFunc(s.Conditions, other.Conditions, func(a, b kedav1alpha1.Condition) bool {
		return a.Type == b.Type && a.Status == b.Status && a.Reason == b.Reason && a.Message == b.Message
	}) && maps.Equal(s.TriggersActivity, other.TriggersActivity) && maps.EqualFunc(s.Health, other.Health, func(a, b kedav1alpha1.HealthStatus) bool {
		return a.Status == b.Status && (a.NumberOfFailures == nil) == (b.NumberOfFailures == nil) &&
			(a.NumberOfFailures == nil || *a.NumberOfFailures == *b.NumberOfFailures)
	})
}
