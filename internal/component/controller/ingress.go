package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	netcfg "knative.dev/networking/pkg/config"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/platform/kube/settings"
)

// NotServed is why an Ingress of the gateway's is not ready: the route table lacks a host of its.
const NotServed = "NotServed"

// Ingresses writes the Ingresses that show what the gateway serves. Nothing here reads their spec:
// they are for tools, for a peer's gateway, and to know after a restart what was in force.
type Ingresses struct {
	Client client.Client
	Events events.EventRecorder
	// Inside and Outside are the DNS names of the gateway for cluster-local and public hosts.
	Inside, Outside string
}

// Ours tells whether ebb's gateway answers for an Ingress.
func Ours(ingress *netv1alpha1.Ingress) bool {
	return netapi.GetIngressClass(ingress.Annotations) == settings.IngressClass
}

// IngressClass says who is to serve an object with these annotations.
func IngressClass(annotations map[string]string, network *netcfg.Config) string {
	if class := netapi.GetIngressClass(annotations); class != "" {
		return class
	}
	return network.DefaultIngressClass
}

// Answered tells whether another's gateway has said something of the Ingress as it is wanted.
func Answered(have, want *netv1alpha1.Ingress) bool {
	return have != nil && !Ours(have) && !differs(have, want) && have.Status.ObservedGeneration == have.Generation &&
		have.Status.GetCondition(netv1alpha1.IngressConditionReady) != nil
}

// MarkUnanswered says by a condition of o that its Ingress waits for another's gateway.
func MarkUnanswered(o duckv1.KRShaped, condition apis.ConditionType, want *netv1alpha1.Ingress) {
	Manage(o).MarkUnknown(condition, "IngressNotConfigured",
		"Ingress has not yet been reconciled. Its class is %q, which ebb's gateway leaves to others; its own is %q.",
		netapi.GetIngressClass(want.Annotations), settings.IngressClass)
}

func differs(have, want *netv1alpha1.Ingress) bool {
	return !equality.Semantic.DeepEqual(have.Spec, want.Spec) ||
		!equality.Semantic.DeepEqual(have.Annotations, want.Annotations) ||
		!equality.Semantic.DeepEqual(have.Labels, want.Labels)
}

// Write makes the owner's Ingress what it is to be, from what it is (nil for none), and says of one
// that is the gateway's what the gateway had against it, served. It returns the Ingress as it is
// then; nil when the cache does not know it yet.
func (x *Ingresses) Write(ctx context.Context, owner client.Object, have, want *netv1alpha1.Ingress, served error) (*netv1alpha1.Ingress, error) {
	now, err := x.put(ctx, owner, have, want)
	if err != nil || now == nil {
		return nil, err
	}
	after := now.DeepCopy()
	switch {
	case Ours(want):
		Begin(after)
		x.mark(&after.Status, served)
		Finish(after, now)
	case have != nil && Ours(have):
		after.Status = netv1alpha1.IngressStatus{} // what the gateway said holds no longer
	}
	if equality.Semantic.DeepEqual(now.Status, after.Status) {
		return after, nil
	}
	if err := x.Client.Status().Update(ctx, after); err != nil {
		return nil, fmt.Errorf("updating status of ingress %s/%s: %w", after.Namespace, after.Name, err)
	}
	return after, nil
}

// put writes all but the status.
func (x *Ingresses) put(ctx context.Context, owner client.Object, have, want *netv1alpha1.Ingress) (*netv1alpha1.Ingress, error) {
	if have == nil {
		err := x.Client.Create(ctx, want)
		if apierrors.IsAlreadyExists(err) {
			return nil, nil // its event brings it
		}
		if err != nil {
			x.Events.Eventf(owner, nil, corev1.EventTypeWarning, "CreationFailed", "Create", "Failed to create Ingress: %v", err)
			return nil, fmt.Errorf("creating ingress %s/%s: %w", want.Namespace, want.Name, err)
		}
		x.Events.Eventf(owner, want, corev1.EventTypeNormal, "Created", "Create", "Created Ingress %q", want.Name)
		return want, nil
	}
	if !differs(have, want) {
		return have, nil
	}
	next := have.DeepCopy()
	next.Spec, next.Labels, next.Annotations = want.Spec, want.Labels, want.Annotations
	if err := x.Client.Update(ctx, next); err != nil {
		return nil, fmt.Errorf("updating ingress %s/%s: %w", want.Namespace, want.Name, err)
	}
	return next, nil
}

func (x *Ingresses) mark(status *netv1alpha1.IngressStatus, served error) {
	status.MarkLoadBalancerReady(
		[]netv1alpha1.LoadBalancerIngressStatus{{DomainInternal: x.Outside}},
		[]netv1alpha1.LoadBalancerIngressStatus{{DomainInternal: x.Inside}})
	if served == nil {
		status.MarkNetworkConfigured()
		return
	}
	(&netv1alpha1.Ingress{}).GetConditionSet().Manage(status).MarkFalse(
		netv1alpha1.IngressConditionNetworkConfigured, NotServed, "%s", served)
}
