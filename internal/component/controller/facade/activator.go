package facade

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	netapi "knative.dev/networking/pkg/apis/networking"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// activatorName is what Knative calls the Service before its activators.
const activatorName = "activator-service"

// activator publishes, once, the Service that stands for Knative's activators. Its endpoint is the
// gateway's, where requests name their Revision by header or by host.
type activator struct {
	client client.Client
	live   client.Reader
	at     netip.Addr
}

// Start implements manager.Runnable.
func (a activator) Start(ctx context.Context) error {
	svc, slice := activatorObjects(a.at)
	if err := a.put(ctx, svc, &corev1.Service{}, func(have client.Object) bool {
		now, ok := have.(*corev1.Service)
		return ok && equality.Semantic.DeepDerivative(svc.Spec, now.Spec)
	}); err != nil {
		return err
	}
	return a.put(ctx, slice, &discoveryv1.EndpointSlice{}, func(have client.Object) bool {
		now, ok := have.(*discoveryv1.EndpointSlice)
		return ok && equality.Semantic.DeepDerivative(slice.Endpoints, now.Endpoints) && equality.Semantic.DeepDerivative(slice.Ports, now.Ports)
	})
}

// put creates the object, or replaces the one there is unless it is the same.
func (a activator) put(ctx context.Context, want, have client.Object, same func(client.Object) bool) error {
	err := a.live.Get(ctx, client.ObjectKeyFromObject(want), have)
	switch {
	case apierrors.IsNotFound(err):
		err = a.client.Create(ctx, want)
	case err == nil && !same(have):
		want.SetResourceVersion(have.GetResourceVersion())
		err = a.client.Update(ctx, want)
	}
	if err != nil {
		return fmt.Errorf("publishing %T %s: %w", want, want.GetName(), err)
	}
	return nil
}

func activatorObjects(at netip.Addr) (*corev1.Service, *discoveryv1.EndpointSlice) {
	yes, tcp, labels := true, corev1.ProtocolTCP, map[string]string{"app": "activator", "app.kubernetes.io/name": "knative-serving", "app.kubernetes.io/component": "activator"}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: activatorName, Namespace: settings.Namespace, Labels: labels}}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: activatorName, Namespace: settings.Namespace, Labels: map[string]string{
			discoveryv1.LabelServiceName: activatorName, discoveryv1.LabelManagedBy: render.SliceManager,
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{at.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}}},
	}
	for _, p := range []struct {
		name           string
		port, listener int32
	}{
		{netapi.ServicePortNameHTTP1, netapi.ServiceHTTPPort, render.ActivatorHTTPPort},
		{netapi.ServicePortNameH2C, netapi.ServiceHTTP2Port, render.ActivatorHTTP2Port},
	} {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: p.name, Protocol: tcp, Port: p.port, TargetPort: intstr.FromInt32(p.listener)})
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &p.name, Protocol: &tcp, Port: &p.listener})
	}
	return svc, slice
}
