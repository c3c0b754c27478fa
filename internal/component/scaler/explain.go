package scaler

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/domain/activation"
	"ebb.dev/ebb/internal/domain/horizontal"
)

// An Account says why an object's target has the replicas it has. It can be written as JSON.
type Account struct {
	// At is when the last decision was made.
	At time.Time `json:"at"`
	// Target is what is scaled: its kind and name.
	Target   string         `json:"target"`
	Triggers []AccountInput `json:"triggers"`
	// Formula makes Composite of the triggers' values.
	Formula   string  `json:"formula,omitempty"`
	Composite float64 `json:"composite,omitempty"`
	// Min, Max and Idle are bounds of replicas.
	Min  int32  `json:"min"`
	Max  int32  `json:"max"`
	Idle *int32 `json:"idle,omitempty"`
	// Active tells whether anything works at all; if that ends, replicas are taken away after Cooldown,
	// of which Left is left.
	Active   bool          `json:"active"`
	Cooldown time.Duration `json:"cooldown"`
	Left     time.Duration `json:"left,omitempty"`
	// Current replicas there were, Wish was wanted; By is the metric that asked for it, Bound what kept
	// it from more.
	Current int32  `json:"current"`
	Wish    int32  `json:"wish"`
	By      string `json:"by,omitempty"`
	Bound   string `json:"bound,omitempty"`
	// Reason and Message are the condition Active's, Problem is the condition Ready's message if all is
	// not well.
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Problem string `json:"problem,omitempty"`
	// Trail are the last changes, oldest first.
	Trail []Step `json:"trail,omitempty"`
}

// An AccountInput is one metric of one trigger, or a trigger that says nothing.
type AccountInput struct {
	Index   int     `json:"index"`
	Type    string  `json:"type"`
	Name    string  `json:"name,omitempty"`
	Metric  string  `json:"metric,omitempty"`
	Value   float64 `json:"value"`
	Target  float64 `json:"target"`
	Average bool    `json:"average"`
	// Wants is how many replicas the metric alone asks for.
	Wants  int32  `json:"wants"`
	Active bool   `json:"active"`
	Error  string `json:"error,omitempty"`
	// Pushed tells that the source says when something changes; otherwise it is polled.
	Pushed bool `json:"pushed"`
	// Age is how long ago it was asked, Took how long it needed for its answer.
	Age  time.Duration `json:"age"`
	Took time.Duration `json:"took"`
}

// A Step is one change of replicas.
type Step struct {
	At   time.Time `json:"at"`
	From int32     `json:"from"`
	To   int32     `json:"to"`
	Why  string    `json:"why"`
}

// trail is how many changes are remembered.
const trail = 20

// Explain gives an account of the last decision about an object; false while there was none.
func (e *Engine) Explain(key types.NamespacedName) (Account, bool) {
	o := e.find(key)
	if o == nil {
		return Account{}, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	a := o.account
	a.Triggers, a.Trail = slices.Clone(a.Triggers), slices.Clone(o.steps)
	for i := range a.Triggers {
		a.Triggers[i].Age += time.Since(a.At)
	}
	return a, !a.At.IsZero()
}

// explain keeps the account of a decision.
func (o *object) explain(so *kedav1alpha1.ScaledObject, seen *observation, r *reckoning, d *verdict) {
	a := Account{
		At: time.Now(), Target: so.Status.ScaleTargetKind + " " + so.Spec.ScaleTargetRef.Name,
		Max: so.GetHPAMaxReplicas(), Idle: so.Spec.IdleReplicaCount,
		Active: r.active, Cooldown: seconds(so.Spec.CooldownPeriod, defaultCooldown), Left: d.Wait,
		Current: r.current, Wish: d.wish.Replicas, By: d.wish.By, Bound: d.wish.Bound,
		Reason: d.Active.Reason, Message: d.Active.Message, Problem: d.Ready.Message,
	}
	if d.Replicas != nil && !d.Up {
		a.Wish = *d.Replicas
	}
	if so.Spec.MinReplicaCount != nil {
		a.Min = *so.Spec.MinReplicaCount
	}
	if so.IsUsingModifiers() {
		a.Formula = so.Spec.Advanced.ScalingModifiers.Formula
		for _, m := range r.metrics {
			a.Composite = m.Value
		}
	}
	for i := range seen.triggers {
		a.Triggers = append(a.Triggers, seen.triggers[i].inputs(a.At, r)...)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.account = a
}

// Preview tells what would be decided for an object now, followed or not, and does nothing about it.
// values take the place of what sources say, by the metric's name or the trigger's.
func (e *Engine) Preview(ctx context.Context, so *kedav1alpha1.ScaledObject, values map[string]float64) (Account, error) {
	o, s, err := e.tried(so)
	if err != nil {
		return Account{}, err
	}
	if known := e.find(o.key); known != nil {
		o.follows(known)
	} else {
		defer e.config.Environment.Requests.Gone(o.key)
	}
	defer o.lane.end()
	s.whole = true
	o.lane.turn.Lock()
	defer o.lane.turn.Unlock()
	o.lane.make(ctx, s, func(*watched) bool { return false })
	o.lane.ask(ctx, s)
	seen := o.lane.observe()
	if err := seen.replace(values); err != nil {
		return Account{}, err
	}
	current, err := e.config.Targets.Replicas(ctx, targetOf(so))
	if err != nil {
		return Account{}, fmt.Errorf("reading the present number of replicas: %w", err)
	}
	r := o.weigh(so, &seen, current)
	d := activation.Decide(o.input(so, &r, current))
	o.explain(so, &seen, &r, &verdict{d, o.wish(so, &r, &d, current)})
	return o.account, r.err
}

// tried is an object that is not followed, of which nothing is told.
func (e *Engine) tried(so *kedav1alpha1.ScaledObject) (*object, subject, error) {
	kind, err := e.config.Targets.Resolve(so.Spec.ScaleTargetRef)
	if err != nil {
		return nil, subject{}, fmt.Errorf("finding the kind of scaleTargetRef: %w", err)
	}
	so.Status.ScaleTargetGVKR, so.Status.ScaleTargetKind = &kind, kind.GVKString()
	o := newObject(e, types.NamespacedName{Namespace: so.Namespace, Name: so.Name})
	o.mute = true
	if err := o.compile(so); err != nil {
		return nil, subject{}, err
	}
	o.so = so
	s, _ := o.subject()
	return o, s, nil
}

// follows takes over what is known of the same object: its failures and when it was last active.
func (o *object) follows(known *object) {
	known.mu.Lock()
	defer known.mu.Unlock()
	o.lastActive, o.health = known.lastActive, maps.Clone(known.health)
	o.added, o.asked = slices.Clone(known.added), slices.Clone(known.asked)
}

// replace puts values in the place of what sources say.
func (seen *observation) replace(values map[string]float64) error {
	used := map[string]bool{}
	for i := range seen.triggers {
		a := &seen.triggers[i]
		for j := range a.specs {
			if a.specs[j].External == nil {
				continue
			}
			metric := a.specs[j].External.Metric.Name
			for _, name := range []string{a.spec.Name, metric} {
				if value, given := values[name]; given && name != "" {
					used[name] = true
					a.answer = answer{began: seen.began, readings: trigger.Judged(a.source, metric, value)}
				}
			}
		}
	}
	for name := range values {
		if !used[name] {
			return fmt.Errorf("%q is neither a metric nor the name of a trigger of this object", name)
		}
	}
	return nil
}

// inputs are a trigger's metrics as an account has them.
func (s *said) inputs(at time.Time, r *reckoning) []AccountInput {
	of := AccountInput{Index: s.index, Type: s.spec.Type, Name: s.spec.Name, Took: s.took, Pushed: s.pushes()}
	switch {
	case s.answer.err != nil:
		of.Error = s.answer.err.Error()
	case s.pending():
		of.Error = "it has not answered yet"
	default:
		of.Age = at.Sub(s.began)
	}
	var out []AccountInput
	for i := range s.specs {
		in := of
		if spec := s.specs[i].External; spec == nil {
			in.Metric = "read by the autoscaler"
		} else {
			in.Metric, in.Active = spec.Metric.Name, r.each[spec.Metric.Name]
			in.Target, in.Average = target(&s.specs[i])
			for _, reading := range s.readings {
				if reading.Metric == in.Metric {
					in.Value += reading.Value.AsApproximateFloat64()
				}
			}
			m := horizontal.Metric{Name: in.Metric, Value: in.Value, Target: in.Target, Average: in.Average}
			in.Wants = m.Wants(max(r.current, 1))
		}
		out = append(out, in)
	}
	if len(out) == 0 {
		out = append(out, of)
	}
	return out
}
