package facade

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cachingv1alpha1 "knative.dev/caching/pkg/apis/caching/v1alpha1"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/domain/scale"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

var (
	noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	node = netip.MustParseAddr("10.64.255.1")
)

// fresh is a Revision of which nothing is published yet.
func fresh(t *testing.T, annotations map[string]string) state {
	t.Helper()
	cfg := &servingv1.Configuration{ObjectMeta: metav1.ObjectMeta{Name: "hello", Namespace: "shop", UID: "cu", Generation: 1}}
	cfg.Spec.Template.Annotations = annotations
	cfg.Spec.Template.Spec.Containers = []corev1.Container{{Name: "user-container", Image: "example.com/hello:v1"}}
	rev := render.Revision(cfg, noon)
	rev.UID = "ru"
	rev.Status.ContainerStatuses = []servingv1.ContainerStatus{{Name: "user-container", ImageDigest: "example.com/hello@sha256:abc"}}
	defaults, err := settings.Parse(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := controller.ScaleSpec(rev, defaults)
	if err != nil {
		t.Fatal(err)
	}
	pa := render.PodAutoscaler(rev, autoscalingv1alpha1.ReachabilityReachable, string(spec.Class))
	pa.UID = "pu"
	return state{revision: rev, autoscaler: pa, spec: spec, activatorCapacity: 100, activator: node, gateway: "gateway.example"}
}

// shown is the state after the plan was carried out.
func (s state) shown(t *testing.T, p plan) state {
	t.Helper()
	for _, o := range slices.Concat(p.create, p.update) {
		switch o := o.(type) {
		case *netv1alpha1.ServerlessService:
			o.UID, o.Generation = "su", o.Generation+1
			s.serverless = o
		case *corev1.Service:
			if o.Name == s.revision.Name {
				s.public = o
			} else {
				s.private = o
			}
		case *discoveryv1.EndpointSlice:
			s.slice = o
		case *autoscalingv1alpha1.Metric:
			o.Generation++
			s.metric = o
		default:
			if images := render.Images(s.revision); s.images == nil {
				s.images = map[string]*cachingv1alpha1.Image{images[0].Name: images[0]}
			}
		}
	}
	return s
}

// publishedState is a Revision whose facade is up.
func publishedState(t *testing.T, annotations map[string]string, change func(*state)) state {
	t.Helper()
	s := fresh(t, annotations)
	if change != nil {
		change(&s)
	}
	s = s.shown(t, decide(s))
	return s.shown(t, decide(s))
}

// kinds names what a list of objects holds.
func kinds(list []client.Object) string {
	var out []string
	for _, o := range list {
		_, kind, _ := strings.Cut(fmt.Sprintf("%T", o), ".")
		out = append(out, kind+" "+o.GetName())
	}
	return strings.Join(out, ", ")
}

func pod(address string) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "hello-" + address, Namespace: "shop", UID: "uid"}}
	p.Status.PodIP = address
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	return p
}

func TestWhatIsPublishedAndInWhichOrder(t *testing.T) {
	s := fresh(t, nil)
	p := decide(s)
	want := "Metric hello-00001, Image hello-00001-cache-user-container, ServerlessService hello-00001"
	if got := kinds(p.create); got != want || len(p.update) > 0 {
		t.Errorf("first: %s, want %s", got, want)
	}
	s = s.shown(t, p)
	p = decide(s)
	want = "Service hello-00001-private, Service hello-00001, EndpointSlice hello-00001"
	if got := kinds(p.create); got != want {
		t.Errorf("then: %s, want %s", got, want)
	}
	for _, o := range p.create {
		if owner := metav1.GetControllerOf(o); owner == nil || owner.UID != "su" || owner.Kind != "ServerlessService" {
			t.Errorf("%s is owned by %+v, want the ServerlessService", o.GetName(), owner)
		}
	}
	s = s.shown(t, p)
	p = decide(s)
	if len(p.create)+len(p.update)+len(p.remove) > 0 {
		t.Errorf("with nothing new it writes %s, %s, %s", kinds(p.create), kinds(p.update), kinds(p.remove))
	}
	s.scaled, s.pods = &controller.ScaleState{Desired: 3, ExcessBurst: 9}, []corev1.Pod{pod("10.64.0.1")}
	p = decide(s)
	if got, want := kinds(p.update), "EndpointSlice hello-00001, ServerlessService hello-00001"; got != want {
		t.Errorf("another mode writes %s, want %s", got, want)
	}
	if s = s.shown(t, p); !s.serverless.IsReady() {
		t.Errorf("the changed object has status %+v in generation %d", s.serverless.Status, s.serverless.Generation)
	}
	if p = decide(s); len(p.update) > 0 {
		t.Errorf("afterwards it writes %s", kinds(p.update))
	}
}

func TestModeFollowsTheExcessBurstCapacity(t *testing.T) {
	const proxy, straight = "Proxy", "Serve"
	tests := map[string]struct {
		annotations map[string]string
		scaled      *controller.ScaleState
		pods        []corev1.Pod
		mode        string
		activators  int32
		addresses   string
		activated   string
		ready       string
	}{
		"nothing decided yet":             {nil, nil, nil, proxy, 3, "10.64.255.1", "True", "Unknown"},
		"at zero":                         {nil, &controller.ScaleState{}, nil, proxy, 3, "10.64.255.1", "True", "Unknown"},
		"too little for a burst":          {nil, &controller.ScaleState{Desired: 1, ExcessBurst: -111}, []corev1.Pod{pod("10.64.0.1")}, proxy, 4, "10.64.255.1", "True", "True"},
		"enough for a burst":              {nil, &controller.ScaleState{Desired: 2, ExcessBurst: 3}, []corev1.Pod{pod("10.64.0.2"), pod("10.64.0.1")}, straight, 5, "10.64.0.1 10.64.0.2", "False", "True"},
		"enough, and on the way to zero":  {nil, &controller.ScaleState{Desired: 0, ExcessBurst: 3}, []corev1.Pod{pod("10.64.0.1")}, proxy, 4, "10.64.255.1", "True", "True"},
		"enough, but no pod is there yet": {nil, &controller.ScaleState{Desired: 2, ExcessBurst: 0}, nil, straight, 3, "10.64.255.1", "True", "Unknown"},
		"always buffered": {
			map[string]string{"autoscaling.knative.dev/target-burst-capacity": "-1"},
			&controller.ScaleState{Desired: 1, ExcessBurst: -1},
			[]corev1.Pod{pod("10.64.0.1")},
			proxy, 2, "10.64.255.1", "True", "True",
		},
		"buffered from zero only": {
			map[string]string{"autoscaling.knative.dev/target-burst-capacity": "0"},
			&controller.ScaleState{Desired: 1},
			[]corev1.Pod{pod("10.64.0.1")},
			straight, 2, "10.64.0.1", "False", "True",
		},
		"class hpa": {
			map[string]string{"autoscaling.knative.dev/class": "hpa.autoscaling.knative.dev"},
			nil,
			[]corev1.Pod{pod("10.64.0.1")},
			straight, 0, "10.64.0.1", "False", "True",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := publishedState(t, tt.annotations, func(s *state) { s.scaled, s.pods = tt.scaled, tt.pods })
			if got := string(s.serverless.Spec.Mode); got != tt.mode || s.serverless.Spec.NumActivators != tt.activators {
				t.Errorf("mode %s with %d activators, want %s with %d", got, s.serverless.Spec.NumActivators, tt.mode, tt.activators)
			}
			var addresses []string
			for _, e := range s.slice.Endpoints {
				addresses = append(addresses, e.Addresses...)
			}
			if got := strings.Join(addresses, " "); got != tt.addresses {
				t.Errorf("endpoints %s, want %s", got, tt.addresses)
			}
			for condition, want := range map[string]string{"ActivatorEndpointsPopulated": tt.activated, "Ready": tt.ready, "EndpointsPopulated": tt.ready} {
				got := "none"
				for _, c := range s.serverless.Status.Conditions {
					if string(c.Type) == condition {
						got = string(c.Status)
					}
				}
				if got != want {
					t.Errorf("%s is %s, want %s", condition, got, want)
				}
			}
			if s.serverless.Status.ServiceName != "hello-00001" || s.serverless.Status.PrivateServiceName != "hello-00001-private" {
				t.Errorf("status names %+v", s.serverless.Status)
			}
		})
	}
}

func TestPortsAndSelectorsAreTheRevisions(t *testing.T) {
	s := publishedState(t, nil, func(s *state) {
		s.revision.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "h2c", ContainerPort: 9000}}
		s.autoscaler.Spec.ProtocolType = netapi.ProtocolH2C
	})
	if port := s.private.Spec.Ports[0]; port.TargetPort.IntValue() != 9000 || port.Name != "http2" || s.private.Spec.Selector[serving.RevisionUID] != "ru" {
		t.Errorf("private service %+v", s.private.Spec)
	}
	if s.public.Spec.Ports[0].Port != 81 || s.public.Spec.Selector != nil || s.public.Spec.ExternalName != "gateway.example" {
		t.Errorf("public service %+v", s.public.Spec)
	}
	if got := *s.slice.Ports[0].Port; got != render.ActivatorHTTP2Port {
		t.Errorf("the activator's port is %d", got)
	}
}

func TestMetricFollowsTheWindowAndTheClass(t *testing.T) {
	s := publishedState(t, nil, nil)
	if s.metric.Spec.StableWindow != time.Minute || s.metric.Spec.PanicWindow != 6*time.Second || s.metric.Spec.ScrapeTarget != "hello-00001-private" || !s.metric.IsReady() {
		t.Errorf("metric %+v", s.metric)
	}
	s.spec.StableWindow = 10 * time.Second
	if p := decide(s); len(p.update) != 1 || p.update[0].(*autoscalingv1alpha1.Metric).Spec.StableWindow != 10*time.Second {
		t.Errorf("a changed window writes %+v", p.update)
	}
	s.spec.Class = scale.HPA
	if p := decide(s); len(p.remove) != 1 {
		t.Errorf("class hpa removes %+v, want the metric", p.remove)
	}
}

func TestAServerlessServiceThatIsAnothersIsLeftAlone(t *testing.T) {
	s := publishedState(t, nil, nil)
	s.serverless.OwnerReferences = nil
	if p := decide(s); len(p.create)+len(p.update) > 0 {
		t.Errorf("plan %+v, want nothing", p)
	}
}

func TestPublishingWaitsForStarts(t *testing.T) {
	busy := false
	r := &Reconciler{busy: func() bool { return busy }}
	rev := fresh(t, nil).revision
	rev.CreationTimestamp = metav1.NewTime(noon)
	rev.Status.InitializeConditions()
	if got := r.wait(rev, noon.Add(time.Second)); got != patience-time.Second {
		t.Errorf("a revision on its way waits %s", got)
	}
	other := rev.DeepCopy()
	other.CreationTimestamp = metav1.NewTime(noon.Add(-10 * time.Second))
	if got := r.wait(other, noon.Add(1500*time.Millisecond)); got != lull {
		t.Errorf("while another starts, an older one waits %s", got)
	}
	if got := r.wait(rev, noon.Add(patience)); got != 0 {
		t.Errorf("one that does not get ready waits %s", got)
	}
	busy = true
	if got := r.wait(rev, noon.Add(time.Hour)); got != busyWait {
		t.Errorf("while a request waits for an instance it waits %s", got)
	}
}
