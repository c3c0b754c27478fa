package facade

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	cachingv1alpha1 "knative.dev/caching/pkg/apis/caching/v1alpha1"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render"
)

// observe gathers what is to be shown of a Revision and what is shown; nil while it has no
// PodAutoscaler, which owns most of it.
func (r *Reconciler) observe(ctx context.Context, rev *servingv1.Revision) (*state, error) {
	now := r.settings.Current()
	s := &state{
		revision: rev, autoscaler: &autoscalingv1alpha1.PodAutoscaler{}, activatorCapacity: now.Autoscaler.ActivatorCapacity,
		activator: r.activator, gateway: r.gateway, images: map[string]*cachingv1alpha1.Image{},
	}
	key := client.ObjectKeyFromObject(rev)
	if err := r.client.Get(ctx, key, s.autoscaler); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	var err error
	if s.spec, err = controller.ScaleSpec(rev, now); err != nil {
		return nil, fmt.Errorf("reading how revision %s is scaled: %w", key, err)
	}
	if scaled, ok := r.scaler.State(key); ok {
		s.scaled = &scaled
	}
	if s.pods, err = r.pods(ctx, key); err != nil {
		return nil, err
	}
	return s, r.shownOf(ctx, s)
}

// pods lists the pods that are ready.
func (r *Reconciler) pods(ctx context.Context, key types.NamespacedName) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := r.client.List(ctx, &list, client.InNamespace(key.Namespace), client.MatchingLabels{serving.RevisionLabelKey: key.Name})
	if err != nil {
		return nil, fmt.Errorf("listing pods of revision %s: %w", key, err)
	}
	var out []corev1.Pod
	for i := range list.Items {
		if ready(&list.Items[i]) {
			out = append(out, list.Items[i])
		}
	}
	return out, nil
}

func ready(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp != nil || pod.Status.PodIP == "" {
		return false
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// shownOf reads what was published of the Revision.
func (r *Reconciler) shownOf(ctx context.Context, s *state) error {
	namespace, name := s.revision.Namespace, s.revision.Name
	var err error
	if s.serverless, err = find(ctx, r.shown, namespace, name, &netv1alpha1.ServerlessService{}); err != nil {
		return err
	}
	if s.public, err = find(ctx, r.shown, namespace, name, &corev1.Service{}); err != nil {
		return err
	}
	if s.private, err = find(ctx, r.shown, namespace, render.PrivateServiceName(name), &corev1.Service{}); err != nil {
		return err
	}
	if s.slice, err = find(ctx, r.shown, namespace, name, &discoveryv1.EndpointSlice{}); err != nil {
		return err
	}
	if s.metric, err = find(ctx, r.shown, namespace, name, &autoscalingv1alpha1.Metric{}); err != nil {
		return err
	}
	for _, image := range render.Images(s.revision) {
		have, err := find(ctx, r.shown, namespace, image.Name, &cachingv1alpha1.Image{})
		if err != nil {
			return err
		}
		s.images[image.Name] = have
	}
	return nil
}

// find reads an object; nil if there is none.
func find[T client.Object](ctx context.Context, c client.Reader, namespace, name string, into T) (T, error) {
	var none T
	switch err := c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, into); {
	case err == nil:
		return into, nil
	case apierrors.IsNotFound(err):
		return none, nil
	default:
		return none, fmt.Errorf("getting %T %s/%s: %w", into, namespace, name, err)
	}
}

// act writes the plan.
func (r *Reconciler) act(ctx context.Context, p plan) error {
	for _, o := range p.create {
		if err := r.client.Create(ctx, o); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("publishing %T %s/%s: %w", o, o.GetNamespace(), o.GetName(), err)
		}
	}
	for _, o := range p.update {
		if err := r.client.Update(ctx, o); err != nil {
			return fmt.Errorf("updating %T %s/%s: %w", o, o.GetNamespace(), o.GetName(), err)
		}
	}
	for _, o := range p.remove {
		if err := r.client.Delete(ctx, o); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting %T %s/%s: %w", o, o.GetNamespace(), o.GetName(), err)
		}
	}
	return nil
}

// settled turns the answers that mean that the cache is behind, or the namespace is going, into
// success.
func settled(err error) error {
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return controller.Settled(err)
}
