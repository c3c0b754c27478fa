package facade

import (
	"math"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cachingv1alpha1 "knative.dev/caching/pkg/apis/caching/v1alpha1"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/domain/scale"
)

// minActivators is the fewest activators Knative puts before a Revision.
const minActivators = 2

// state is all that a decision about a Revision's facade rests on.
type state struct {
	revision          *servingv1.Revision
	autoscaler        *autoscalingv1alpha1.PodAutoscaler
	pods              []corev1.Pod // ready, by address
	spec              scale.Spec
	scaled            *controller.ScaleState // nil while nothing was decided
	activatorCapacity float64
	activator         netip.Addr
	gateway           string

	serverless      *netv1alpha1.ServerlessService // these are nil where there is none
	public, private *corev1.Service
	slice           *discoveryv1.EndpointSlice
	metric          *autoscalingv1alpha1.Metric
	images          map[string]*cachingv1alpha1.Image
}

// plan is what is to be done. Specs and statuses are written together: both are ours.
type plan struct {
	create, update, remove []client.Object
}

// decide makes the plan. What a ServerlessService owns comes after it: they need its UID.
func decide(s state) plan {
	var p plan
	mode, activators := serve(s)
	want := render.ServerlessService(s.autoscaler, mode, activators)
	decideMetric(s, &p)
	for _, image := range render.Images(s.revision) {
		if s.images[image.Name] == nil {
			p.create = append(p.create, image)
		}
	}
	switch have := s.serverless; {
	case have == nil:
		decideStatus(s, want)
		want.Status.ObservedGeneration = 1
		p.create = append(p.create, want)
	case metav1.IsControlledBy(have, s.autoscaler): // anybody else's is left alone; the Revision works without
		want.UID, want.Generation, want.ResourceVersion = have.UID, have.Generation, have.ResourceVersion
		want.Status = *have.Status.DeepCopy()
		decideStatus(s, want)
		decideServices(s, want, &p)
		if controller.Finish(want, have); want.Spec != have.Spec || !equality.Semantic.DeepEqual(want.Status, have.Status) {
			want.Status.ObservedGeneration = have.Generation + 1
			p.update = append(p.update, want)
		}
	}
	return p
}

// serve tells the mode and the number of activators that Knative would choose.
//
//	class  wanted   excess burst capacity  mode
//	kpa    0        any                    Proxy
//	kpa    >0       <0                     Proxy
//	kpa    >0       >=0                    Serve
//	kpa    unknown  any                    Proxy
//	hpa    any      any                    Serve, with all activators while there is no pod
func serve(s state) (netv1alpha1.ServerlessServiceOperationMode, int32) {
	if s.spec.Class == scale.HPA {
		return netv1alpha1.SKSOperationModeServe, 0
	}
	mode := netv1alpha1.SKSOperationModeProxy
	if s.scaled != nil && s.scaled.Desired > 0 && s.scaled.ExcessBurst >= 0 {
		mode = netv1alpha1.SKSOperationModeServe
	}
	return mode, activators(s)
}

// activators is how many activators carry the pods' capacity and the target burst.
func activators(s state) int32 {
	if s.spec.TargetBurstCapacity == 0 {
		return minActivators
	}
	carried := float64(len(s.pods))*s.spec.Total + max(0, s.spec.TargetBurstCapacity)
	return int32(min(max(minActivators, math.Ceil(carried/s.activatorCapacity)), math.MaxInt32))
}

// decideMetric keeps the Metric of a Revision of class kpa; its averages need no pod to be asked.
func decideMetric(s state, p *plan) {
	if s.spec.Class == scale.HPA {
		if s.metric != nil && metav1.IsControlledBy(s.metric, s.autoscaler) {
			p.remove = append(p.remove, s.metric)
		}
		return
	}
	target := render.PrivateServiceName(s.revision.Name)
	if s.spec.TargetBurstCapacity == -1 {
		target = ""
	}
	want := render.Metric(s.autoscaler, s.spec.StableWindow, s.spec.PanicWindow, target)
	switch have := s.metric; {
	case have == nil:
		want.Status.ObservedGeneration = 1
		want.Status.MarkMetricReady()
		p.create = append(p.create, want)
	case metav1.IsControlledBy(have, s.autoscaler) && have.Spec != want.Spec:
		want.ResourceVersion = have.ResourceVersion
		want.Status = *have.Status.DeepCopy()
		want.Status.ObservedGeneration = have.Generation + 1
		p.update = append(p.update, want)
	}
}

// decideServices keeps the Services and the public endpoints.
func decideServices(s state, sks *netv1alpha1.ServerlessService, p *plan) {
	selector := map[string]string{serving.RevisionUID: string(s.revision.UID)}
	private := render.PrivateService(sks, selector, render.Port(s.revision))
	public := render.PublicService(sks, s.gateway)
	for _, svc := range []struct{ want, have *corev1.Service }{{private, s.private}, {public, s.public}} {
		switch {
		case svc.have == nil:
			p.create = append(p.create, svc.want)
		case !equality.Semantic.DeepDerivative(svc.want.Spec, svc.have.Spec):
			svc.want.ResourceVersion = svc.have.ResourceVersion
			p.update = append(p.update, svc.want)
		}
	}
	endpoints, port := endpointsOf(s, sks.Spec)
	slice := render.PublicSlice(sks, endpoints, port)
	switch {
	case s.slice == nil:
		p.create = append(p.create, slice)
	case !equality.Semantic.DeepEqual(slice.Endpoints, s.slice.Endpoints) || !equality.Semantic.DeepEqual(slice.Ports, s.slice.Ports):
		slice.ResourceVersion = s.slice.ResourceVersion
		p.update = append(p.update, slice)
	}
}

// endpointsOf are where Knative would send requests: to the pods in mode Serve, to activators in mode
// Proxy and while there is no pod.
func endpointsOf(s state, spec netv1alpha1.ServerlessServiceSpec) ([]discoveryv1.Endpoint, int32) {
	yes := true
	if spec.Mode == netv1alpha1.SKSOperationModeProxy || len(s.pods) == 0 {
		return []discoveryv1.Endpoint{{
			Addresses: []string{s.activator.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &yes},
		}}, render.ActivatorPort(spec.ProtocolType)
	}
	out := make([]discoveryv1.Endpoint, 0, len(s.pods))
	for i := range s.pods {
		pod := &s.pods[i]
		out = append(out, discoveryv1.Endpoint{
			Addresses: []string{pod.Status.PodIP}, Conditions: discoveryv1.EndpointConditions{Ready: &yes},
			NodeName:  &pod.Spec.NodeName,
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		})
	}
	slices.SortFunc(out, func(a, b discoveryv1.Endpoint) int { return slices.Compare(a.Addresses, b.Addresses) })
	return out, render.Port(s.revision)
}

// decideStatus says whether pods are behind the Revision, and whether activators are.
func decideStatus(s state, sks *netv1alpha1.ServerlessService) {
	st := &sks.Status
	st.InitializeConditions()
	st.ServiceName, st.PrivateServiceName = s.revision.Name, render.PrivateServiceName(s.revision.Name)
	if len(s.pods) > 0 {
		st.MarkEndpointsReady()
	} else {
		st.MarkEndpointsNotReady("NoHealthyBackends")
	}
	if len(s.pods) == 0 || sks.Spec.Mode == netv1alpha1.SKSOperationModeProxy {
		st.MarkActivatorEndpointsPopulated()
	} else {
		st.MarkActivatorEndpointsRemoved()
	}
}
