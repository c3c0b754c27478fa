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

// A patient client holds back a status that leaves its object on its way (Ready unknown): on the way
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

	mu   sync.Mutex // guards held
	held map[types.UID]*heldStatus
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
	if ready.IsUnknown() || ready.GetReason() == servingv1.ReasonNotOwned {
		s.patient.hold(ctx, o)
		return nil
	}
	s.patient.drop(o.GetUID())
	s.patient.starts.end(o)
	return s.SubResourceWriter.Update(ctx, o)
}

// hold keeps the status, in the place of a former one, until its time comes.
func (p *patient) hold(ctx context.Context, o client.Object) {
	object, ok := o.DeepCopyObject().(client.Object)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.held[o.GetUID()]; h != nil {
		h.object = object
		return
	}
	h := &heldStatus{object: object}
	h.timer = time.AfterFunc(settleTime, func() { p.flush(context.WithoutCancel(ctx), o.GetUID(), h) })
	p.held[o.GetUID()] = h
	p.starts.begin(object)
}

// drop forgets what is held of an object.
func (p *patient) drop(of types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.held[of]; h != nil {
		h.timer.Stop()
		delete(p.held, of)
	}
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
