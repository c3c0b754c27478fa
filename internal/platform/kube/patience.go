package kube

import (
	"context"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// How long a status that decides nothing waits for the next one, and the pause after a failure.
const (
	settleTime = time.Second
	holdRetry  = time.Second
)

// young is how old an object is at most whose status waits. Later, and once it was ready or failed,
// statuses are what people and controllers follow: a gradual roll-out, say.
const young = 5 * time.Second

// A patient client holds back a status that leaves a new object on its way (Ready unknown): on the way
// there are several of them within milliseconds, and each is a write that wakes all who watch. The
// latest goes out when it has settled; one that decides goes out at once, in the place of a held one.
//
// So does one that says that a child is another's: when an object is deleted and made anew at once,
// the former one's children are about to go.
//
// Whoever writes a held status is told that it was written. A reconciler does not notice: it works
// from what the cache has, and arrives at the same status again.
type patient struct {
	client.Client

	log    *slog.Logger
	starts *Starts // may be nil

	mu      sync.Mutex // guards both
	held    map[types.UID]*heldStatus
	decided map[types.UID]struct{} // young objects that were ready or failed
}

func newPatient(c client.Client, log *slog.Logger, starts *Starts) *patient {
	return &patient{Client: c, log: log, starts: starts, held: map[types.UID]*heldStatus{}, decided: map[types.UID]struct{}{}}
}

// heldStatus is the latest status of an object on its way.
type heldStatus struct {
	object client.Object
	timer  *time.Timer
}

// Status implements client.StatusClient.
func (p *patient) Status() client.SubResourceWriter {
	return patientStatus{SubResourceWriter: p.Client.Status(), patient: p}
}

type patientStatus struct {
	client.SubResourceWriter

	patient *patient
}

// Update implements client.SubResourceWriter.
func (s patientStatus) Update(ctx context.Context, o client.Object, opts ...client.SubResourceUpdateOption) error {
	shaped, ok := o.(duckv1.KRShaped)
	if !ok || len(opts) > 0 {
		return s.SubResourceWriter.Update(ctx, o, opts...)
	}
	ready := shaped.GetStatus().GetCondition(shaped.GetConditionSet().GetTopLevelConditionType())
	if undecided := ready.IsUnknown() || ready.GetReason() == servingv1.ReasonNotOwned; undecided && s.patient.hold(ctx, o) {
		return nil
	}
	s.patient.drop(o, !ready.IsUnknown())
	return s.SubResourceWriter.Update(ctx, o)
}

// hold keeps a new object's status, in the place of a former one, until its time comes; false if the
// object is not new.
func (p *patient) hold(ctx context.Context, o client.Object) bool {
	object, ok := o.DeepCopyObject().(client.Object)
	if !ok || time.Since(o.GetCreationTimestamp().Time) >= young {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, before := p.decided[o.GetUID()]; before {
		return false
	}
	if h := p.held[o.GetUID()]; h != nil {
		h.object = object
		return true
	}
	h := &heldStatus{object: object}
	h.timer = time.AfterFunc(settleTime, func() { p.flush(context.WithoutCancel(ctx), o.GetUID(), h) })
	p.held[o.GetUID()] = h
	p.starts.begin(object)
	return true
}

// drop forgets what is held of an object, as something newer is written; decided says that this is
// ready or failed.
func (p *patient) drop(o client.Object, decided bool) {
	of := o.GetUID()
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.held[of]; h != nil {
		h.timer.Stop()
		delete(p.held, of)
	}
	if !decided {
		return
	}
	p.starts.end(o)
	left := young - time.Since(o.GetCreationTimestamp().Time)
	if _, known := p.decided[of]; known || left <= 0 {
		return
	}
	p.decided[of] = struct{}{}
	time.AfterFunc(left, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.decided, of)
	})
}

// flush writes what is held. A conflict is no failure: the change behind it brings a reconcile, and
// that a new status.
func (p *patient) flush(ctx context.Context, of types.UID, h *heldStatus) {
	p.mu.Lock()
	current := p.held[of] == h
	if current {
		delete(p.held, of)
	}
	p.mu.Unlock()
	if !current {
		return
	}
	err := p.Client.Status().Update(ctx, h.object)
	if err == nil || apierrors.IsConflict(err) || apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
		return
	}
	p.log.Warn("writing a status; will try again", "object", client.ObjectKeyFromObject(h.object).String(), "error", err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[of] == nil {
		h.timer = time.AfterFunc(holdRetry, func() { p.flush(ctx, of, h) })
		p.held[of] = h
	}
}

// Starts closes a gate while a Service is on its way to ready: somebody waits for that, as for an
// instance.
type Starts struct {
	Gate   *Gate
	AtMost time.Duration // for each
}

// key stands for a Service among the gate's starts, which else are revisions'.
func (s *Starts) key(o client.Object) (types.NamespacedName, bool) {
	_, service := o.(*servingv1.Service)
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: "service/" + o.GetName()}, service && s != nil
}

func (s *Starts) begin(o client.Object) {
	if key, ok := s.key(o); ok {
		s.Gate.Begin(key, s.AtMost)
	}
}

func (s *Starts) end(o client.Object) {
	if key, ok := s.key(o); ok {
		s.Gate.End(key)
	}
}
