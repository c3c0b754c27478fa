package scaler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/expr-lang/expr/vm"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/activation"
	"ebb.dev/ebb/internal/domain/horizontal"
)

// fastPoll is the annotation by which sources that cannot tell of work are asked as often as costs them
// little.
const fastPoll = "ebb.dev/fast-poll"

// errGone says that the object is no longer followed.
var errGone = errors.New("the object is no longer followed")

// An object is one ScaledObject that is followed.
type object struct {
	engine *Engine
	key    types.NamespacedName
	lane   *lane
	mute   bool // nothing is told
	sole   bool // it does what an autoscaler would do, too
	clock  func() time.Time

	mu         sync.Mutex // guards the fields below; short
	so         *kedav1alpha1.ScaledObject
	formula    *vm.Program
	invalid    error // of the formula
	last       observation
	reckoned   reckoning // what that came to
	lastActive time.Time
	noted      time.Time // the lastActive that State shows
	resumed    time.Time // when a pause ended; zero: there was none
	health     map[string]kedav1alpha1.HealthStatus
	counted    map[string]time.Time // when a metric's failure was counted
	state      *activation.State
	added      []horizontal.Change
	asked      []horizontal.Wished // of a target that no autoscaler scales
	peaks      map[string]peak     // what is shown to the autoscaler until it has seen it
	failing    map[int]failure
	account    Account
	steps      []Step
}

// A peak is the value that replicas were added for.
type peak struct {
	value float64
	until time.Time
}

// A failure is what was told of a trigger that fails.
type failure struct {
	text string
	at   time.Time
}

// toldAgain is how soon another text of a trigger's error is told.
const toldAgain = time.Minute

func newObject(e *Engine, key types.NamespacedName) *object {
	o := &object{
		engine: e, key: key, clock: time.Now,
		health: map[string]kedav1alpha1.HealthStatus{}, counted: map[string]time.Time{},
		peaks: map[string]peak{}, failing: map[int]failure{},
	}
	o.lane = &lane{engine: e, key: key, owner: o, ended: make(chan struct{})}
	return o
}

// take takes over an object's present form.
func (o *object) take(ctx context.Context, so *kedav1alpha1.ScaledObject) (activation.Followed, error) {
	o.lane.turn.Lock()
	defer o.lane.turn.Unlock()
	o.lane.mu.Lock()
	gone := o.lane.gone
	o.lane.mu.Unlock()
	if gone {
		return activation.Followed{}, errGone
	}
	o.mu.Lock()
	before := o.so
	o.so = so
	if before == nil {
		o.remember(so)
	}
	same := before != nil && before.UID == so.UID && before.Generation == so.Generation && maps.Equal(before.Annotations, so.Annotations)
	invalid := o.invalid
	o.mu.Unlock()
	if invalid != nil && same {
		return activation.Followed{}, invalid
	}
	if !same {
		if err := o.compile(so); err != nil {
			return activation.Followed{}, err
		}
	}
	s, _ := o.subject()
	o.lane.make(ctx, s, func(*watched) bool { return false })
	if !same {
		o.lane.poll()
	}
	return o.followed(), nil
}

// compile readies the formula.
func (o *object) compile(so *kedav1alpha1.ScaledObject) error {
	var formula *vm.Program
	var err error
	if so.IsUsingModifiers() {
		formula, err = kedav1alpha1.ValidateAndCompileScalingModifiers(so)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.formula, o.invalid = formula, err
	return err
}

// remember goes on from what a former run, or the time before a pause, noted; o.mu is held. What was
// active then is taken to have been so until now.
func (o *object) remember(so *kedav1alpha1.ScaledObject) {
	if so.Status.LastActiveTime != nil {
		o.lastActive = so.Status.LastActiveTime.Time
	}
	if c := condition(so.Status.Conditions, kedav1alpha1.ConditionActive); c != nil && c.Status == metav1.ConditionTrue {
		o.lastActive = time.Now()
	}
	if c := condition(so.Status.Conditions, kedav1alpha1.ConditionPaused); c != nil && c.Status == metav1.ConditionTrue {
		o.resumed = time.Now()
	}
	maps.Copy(o.health, so.Status.Health)
	o.noted = o.lastActive
}

func condition(of kedav1alpha1.Conditions, kind kedav1alpha1.ConditionType) *kedav1alpha1.Condition {
	for i := range of {
		if of[i].Type == kind {
			return &of[i]
		}
	}
	return nil
}

// followed is what take answers.
func (o *object) followed() activation.Followed {
	o.lane.mu.Lock()
	defer o.lane.mu.Unlock()
	var f activation.Followed
	for _, w := range o.lane.triggers {
		if w.err != nil {
			f.Failed = append(f.Failed, w.failed())
			continue
		}
		f.Specs = append(f.Specs, w.specs...)
	}
	return f
}

func (w *watched) failed() activation.FailedTrigger {
	return activation.FailedTrigger{Index: w.index, Type: w.spec.Type, Name: w.spec.Name, NotBuiltIn: w.notBuiltIn, Err: w.err}
}

// subject implements owner.
func (o *object) subject() (subject, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.so == nil || o.invalid != nil {
		return subject{}, false
	}
	return subject{
		object: o.so, kind: "ScaledObject", triggers: o.so.Spec.Triggers, interval: interval(o.so.Spec.PollingInterval),
		composed: o.so.IsUsingModifiers(), fast: o.so.Annotations[fastPoll] == "true",
	}, true
}

// interval is a pollingInterval.
func interval(n *int32) time.Duration { return max(seconds(n, 30*time.Second), time.Second) }

func seconds(n *int32, otherwise time.Duration) time.Duration {
	if n == nil {
		return otherwise
	}
	return time.Duration(*n) * time.Second
}

// present returns the object; nil before there is one.
func (o *object) present() *kedav1alpha1.ScaledObject {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.so
}

// changed implements owner.
func (o *object) changed() {
	if !o.mute {
		o.engine.changed(o.key)
	}
}

// built implements owner.
func (o *object) built(w *watched) {
	o.complain(w.index, w.err)
	if w.err == nil {
		o.tell(corev1.EventTypeNormal, "KEDAScalersStarted", fmt.Sprintf("Scaler %s is built", w.spec.Type))
	}
}

// shown is the state for the status.
func (o *object) shown() (activation.State, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state == nil {
		return activation.State{}, false
	}
	return *o.state, true
}

// tell records an event of the object.
func (o *object) tell(kind, reason, message string) {
	if so := o.present(); so != nil && !o.mute {
		o.engine.config.Tell(so, kind, reason, message)
	}
}

// complain tells of a trigger's error when it begins, and now and then when it changes.
func (o *object) complain(index int, err error) {
	o.mu.Lock()
	told, fails := o.failing[index]
	tell := err != nil && (!fails || told.text != err.Error() && time.Since(told.at) >= toldAgain)
	switch {
	case err == nil:
		delete(o.failing, index)
	case tell:
		o.failing[index] = failure{err.Error(), time.Now()}
	}
	o.mu.Unlock()
	if tell {
		o.tell(corev1.EventTypeWarning, "KEDAScalerFailed", err.Error())
	}
}
