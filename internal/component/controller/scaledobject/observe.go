package scaledobject

import (
	"context"
	"errors"
	"fmt"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/activation"
	"ebb.dev/ebb/internal/domain/render/horizontal"
)

// state is all that matters of a ScaledObject.
type state struct {
	object *kedav1alpha1.ScaledObject
	target scaled
	// horizontal is the HorizontalPodAutoscaler of the name it is to have; former that of the name it
	// had, if that is another.
	horizontal, former *autoscalingv2.HorizontalPodAutoscaler
	// followed is what the engine found; nil if it was not asked.
	followed  *activation.Followed
	followErr error
	// engine is what the engine decided; nil before it did.
	engine *activation.State
}

// scaled is what is known of the target.
type scaled struct {
	kind kedav1alpha1.GroupVersionKindResource
	// unknown says why kind is not known.
	unknown error
	// unshown says that no HorizontalPodAutoscaler can scale the kind.
	unshown bool
	// replicas is the number it is to have; nil if that was not read.
	replicas *int32
	// err says why there is nothing to scale.
	err error
}

// observe gathers what the ScaledObject stands on. What is wrong with its target is no error but seen.
func (r *Reconciler) observe(ctx context.Context, s *state) error {
	key := client.ObjectKeyFromObject(s.object)
	var err error
	if s.horizontal, err = r.find(ctx, key.Namespace, horizontal.Name(s.object)); err != nil {
		return err
	}
	if former := s.object.Status.HpaName; former != "" && former != horizontal.Name(s.object) {
		if s.former, err = r.find(ctx, key.Namespace, former); err != nil {
			return err
		}
	}
	if state, ok := r.engine.State(key); ok {
		s.engine = &state
	}
	if ref := s.object.Spec.ScaleTargetRef; ref != nil && ref.Name != "" {
		s.target, err = r.look(ctx, s.object)
	}
	return err
}

func (r *Reconciler) find(ctx context.Context, namespace, name string) (*autoscalingv2.HorizontalPodAutoscaler, error) {
	h := &autoscalingv2.HorizontalPodAutoscaler{}
	key := types.NamespacedName{Namespace: namespace, Name: name}
	err := r.client.Get(ctx, key, h)
	r.mu.Lock()
	defer r.mu.Unlock()
	if made, ok := r.made[key]; ok && apierrors.IsNotFound(err) && r.now().Before(made.until) {
		return made.object, nil
	}
	delete(r.made, key)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("getting horizontal pod autoscaler %s/%s: %w", namespace, name, err)
	}
	return h, nil
}

// look finds the target. It reads how many replicas there are only if the status lacks that, if this
// spec's target was never seen, or to pause it at a number.
func (r *Reconciler) look(ctx context.Context, so *kedav1alpha1.ScaledObject) (scaled, error) {
	var (
		out scaled
		err error
	)
	if out.kind, err = r.targets.Resolve(so.Spec.ScaleTargetRef); err != nil {
		return scaled{unknown: err}, nil
	}
	out.unshown = !r.targets.Horizontal(out.kind)
	paused, _ := so.GetPausedReplicaCount()
	if so.NeedToBePausedByAnnotation() && paused == nil || !so.NeedToBePausedByAnnotation() && r.seen(so, out.kind) {
		return out, nil
	}
	if n, ok := r.first(so); ok && !so.NeedToBePausedByAnnotation() {
		out.replicas = &n
		return out, nil
	}
	replicas, err := r.targets.Replicas(ctx, activation.Target{
		Kind: out.kind, Namespace: so.Namespace, Name: so.Spec.ScaleTargetRef.Name, By: so.Name,
	})
	if err != nil {
		out.err = err
		return out, ctx.Err()
	}
	out.replicas = &replicas
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checked[client.ObjectKeyFromObject(so)] = version{so.UID, so.Generation, replicas}
	return out, nil
}

// first tells how many replicas the target of this very spec had when it was first seen, where the status
// does not tell that yet.
func (r *Reconciler) first(so *kedav1alpha1.ScaledObject) (n int32, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.checked[client.ObjectKeyFromObject(so)]
	return v.replicas, so.Status.OriginalReplicaCount == nil && v.uid == so.UID && v.generation == so.Generation
}

// seen tells whether the target of this very spec was there and the status tells of it.
func (r *Reconciler) seen(so *kedav1alpha1.ScaledObject, kind kedav1alpha1.GroupVersionKindResource) bool {
	st := so.Status
	if st.OriginalReplicaCount == nil || st.ScaleTargetGVKR == nil || *st.ScaleTargetGVKR != kind || st.ScaleTargetKind != kind.GVKString() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.checked[client.ObjectKeyFromObject(so)]
	return v.uid == so.UID && v.generation == so.Generation
}

// follow has the engine follow the ScaledObject, whose status names the target by then. What the
// target is to be restored to is written before anything can scale it.
func (r *Reconciler) follow(ctx context.Context, s *state) error {
	next := s.object.DeepCopy()
	named(&next.Status, s.target)
	if restores(next) && s.object.Status.OriginalReplicaCount == nil {
		written := next.DeepCopy()
		if err := r.patchStatus(ctx, written, s.object); err != nil {
			return err
		}
		s.object = written
	}
	followed, err := r.engine.Follow(ctx, next)
	if err != nil {
		s.followErr = err
		return ctx.Err()
	}
	s.followed = &followed
	if now, ok := r.engine.State(client.ObjectKeyFromObject(next)); ok {
		s.engine = &now
	}
	return nil
}

// named writes the target into a status.
func named(st *kedav1alpha1.ScaledObjectStatus, target scaled) {
	kind := target.kind
	st.ScaleTargetKind, st.ScaleTargetGVKR = kind.GVKString(), &kind
	if st.OriginalReplicaCount == nil {
		st.OriginalReplicaCount = target.replicas
	}
}

// restores tells whether the target gets back the replicas it had when the ScaledObject goes.
func restores(so *kedav1alpha1.ScaledObject) bool {
	return so.Spec.Advanced != nil && so.Spec.Advanced.RestoreToOriginalReplicaCount
}

// missing tells that the target is not there.
func (t scaled) missing() bool {
	var e *controller.TargetError
	return errors.As(t.err, &e) && e.Missing
}

// bare tells that the target has no number of replicas.
func (t scaled) bare() bool {
	var e *controller.TargetError
	return errors.As(t.err, &e) && !e.Missing
}
