package revision

import (
	"context"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/domain/scale"
)

// decideHorizontal works out the HorizontalPodAutoscaler of a Revision of class hpa. One of any other
// class must have none: two would pull at its scale.
func decideHorizontal(s state, pa *autoscalingv1alpha1.PodAutoscaler, p *plan) {
	have := s.horizontal
	owned := have != nil && metav1.IsControlledBy(have, pa)
	switch {
	case s.spec.Class != scale.HPA:
		if owned {
			p.deleteHorizontal = have
		}
		return
	case pa.UID == "":
		return // the PodAutoscaler is only being made; its event comes
	}
	want := render.HorizontalPodAutoscaler(pa, s.spec.Min, s.spec.Max)
	if pa.Spec.Reachability == autoscalingv1alpha1.ReachabilityUnreachable {
		want = render.HorizontalPodAutoscaler(pa, 0, s.spec.Max)
	}
	switch {
	case have == nil:
		p.createHorizontal = want
	case !owned:
		pa.Status.MarkResourceNotOwned("HorizontalPodAutoscaler", have.Name)
	case differs(want, have):
		p.updateHorizontal = have.DeepCopy()
		p.updateHorizontal.Spec, p.updateHorizontal.Labels, p.updateHorizontal.Annotations = want.Spec, want.Labels, want.Annotations
	}
}

// differs compares what is wanted only: the API server fills in the rest.
func differs(want, have *autoscalingv2.HorizontalPodAutoscaler) bool {
	return !equality.Semantic.DeepDerivative(want.Spec, have.Spec) ||
		want.Spec.Behavior == nil && have.Spec.Behavior != nil ||
		want.Annotations[scalingMetric] != have.Annotations[scalingMetric]
}

const scalingMetric = "autoscaling.knative.dev/metric"

// horizontalStatus brings the status of a PodAutoscaler of class hpa up to what Kubernetes decided.
// Such a Revision is always active.
func horizontalStatus(s state, st *autoscalingv1alpha1.PodAutoscalerStatus) {
	begin(s, st)
	ready, wanted := int32(s.ready), s.spec.Initial
	if d := s.deployment; d != nil && d.Spec.Replicas != nil {
		wanted = *d.Spec.Replicas
	}
	if h := s.horizontal; h != nil && h.Status.DesiredReplicas > 0 {
		wanted = h.Status.DesiredReplicas
	}
	st.ActualScale, st.DesiredScale = &ready, &wanted
	if s.ready > 0 && ready >= threshold(s, st) || wasReady(s.revision) {
		st.MarkScaleTargetInitialized()
	}
	st.MarkActive()
}

// putHorizontal writes the HorizontalPodAutoscaler.
func (r *Reconciler) putHorizontal(ctx context.Context, p plan) error {
	var err error
	switch {
	case p.createHorizontal != nil:
		if err = r.client.Create(ctx, p.createHorizontal); apierrors.IsAlreadyExists(err) {
			err = nil // the cache is behind; its event comes
		}
	case p.updateHorizontal != nil:
		err = r.client.Update(ctx, p.updateHorizontal)
	case p.deleteHorizontal != nil:
		err = client.IgnoreNotFound(r.client.Delete(ctx, p.deleteHorizontal))
	}
	if err != nil {
		return fmt.Errorf("writing the horizontal pod autoscaler of revision %s/%s: %w", p.after.Namespace, p.after.Name, err)
	}
	return nil
}
