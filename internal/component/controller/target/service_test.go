package target

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/activation"
	"ebb.dev/ebb/internal/domain/scale"
	"ebb.dev/ebb/internal/platform/kube"
)

var hello = activation.Target{
	Kind:      kedav1alpha1.GroupVersionKindResource{Group: "serving.knative.dev", Version: "v1", Kind: "Service", Resource: "services"},
	Namespace: "shop", Name: "hello", By: "orders",
}

// floors are those in force, by the revision's name.
type floors map[string]scale.Floor

func (f floors) SetFloor(revision types.NamespacedName, to scale.Floor) {
	if to.Count == 0 {
		delete(f, revision.Name)
		return
	}
	f[revision.Name] = to
}

// want compares the floors in force with one of count for a revision; "" for none.
func (f floors) want(t *testing.T, what, revision string, count int32) {
	t.Helper()
	want := floors{}
	if revision != "" {
		want[revision] = scale.Floor{Count: count, By: "triggers of ScaledObject shop/orders"}
	}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// knative returns a Service whose traffic is split as said.
func knative(latest string, traffic ...servingv1.TrafficTarget) *servingv1.Service {
	s := &servingv1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "hello"}}
	s.Status.LatestReadyRevisionName, s.Status.Traffic = latest, traffic
	return s
}

func to(revision string, percent int64) servingv1.TrafficTarget {
	return servingv1.TrafficTarget{RevisionName: revision, Percent: &percent}
}

func made(objects ...*servingv1.Service) (*Scales, floors) {
	b := fake.NewClientBuilder().WithScheme(kube.Scheme())
	for _, o := range objects {
		b.WithObjects(o).WithStatusSubresource(o)
	}
	f := floors{}
	return &Scales{services: newServices(b.Build(), f)}, f
}

func TestTheBusiestRevision(t *testing.T) {
	for name, tt := range map[string]struct {
		service *servingv1.Service
		want    string
	}{
		"none yet":                        {knative(""), ""},
		"no traffic yet":                  {knative("hello-00001"), "hello-00001"},
		"the one that gets all":           {knative("hello-00002", to("hello-00001", 100)), "hello-00001"},
		"the largest share":               {knative("hello-00003", to("hello-00003", 30), to("hello-00002", 40), to("hello-00001", 30)), "hello-00002"},
		"the latest of equal ones":        {knative("hello-00002", to("hello-00001", 50), to("hello-00002", 50)), "hello-00002"},
		"shares under several names":      {knative("hello-00003", to("hello-00002", 40), to("hello-00001", 30), to("hello-00001", 30)), "hello-00001"},
		"a tag without traffic is nobody": {knative("hello-00001", to("hello-00001", 100), servingv1.TrafficTarget{RevisionName: "hello-00000", Tag: "old"}), "hello-00001"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := busiest(tt.service); got.Name != tt.want || got.Namespace != "shop" {
				t.Errorf("busiest() = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestAServiceHasAFloor(t *testing.T) {
	s, f := made(knative("hello-00001", to("hello-00001", 100)))
	if s.Horizontal(hello.Kind) || !s.Horizontal(worker.Kind) {
		t.Error("a HorizontalPodAutoscaler scales Deployments, not Services")
	}
	replicas := func(want int32) {
		t.Helper()
		if n, err := s.Replicas(t.Context(), hello); err != nil || n != want {
			t.Errorf("%d replicas, %v; want %d", n, err, want)
		}
	}
	set := func(n int32) {
		t.Helper()
		if err := s.SetReplicas(t.Context(), hello, n); err != nil {
			t.Error(err)
		}
		replicas(n)
	}
	replicas(0)
	set(3)
	f.want(t, "work came", "hello-00001", 3)
	s.services.serviceChanged(knative("hello-00002", to("hello-00001", 90), to("hello-00002", 10)))
	f.want(t, "most of the traffic stays", "hello-00001", 3)
	s.services.serviceChanged(knative("hello-00002", to("hello-00002", 100)))
	f.want(t, "the traffic moved", "hello-00002", 3)
	set(0)
	f.want(t, "the work is done", "", 0)
	set(2)
	s.services.serviceGone(types.NamespacedName{Namespace: "shop", Name: "hello"})
	f.want(t, "the Service is gone", "", 0)
	replicas(0)
}

func TestAFloorWaitsForARevision(t *testing.T) {
	s, f := made(knative(""))
	if err := s.SetReplicas(t.Context(), hello, 2); err != nil {
		t.Fatal(err)
	}
	f.want(t, "there is no revision", "", 0)
	s.services.serviceChanged(knative("hello-00001"))
	f.want(t, "there is one", "hello-00001", 2)
}

func TestAFloorGoesWithItsScaledObject(t *testing.T) {
	orders := types.NamespacedName{Namespace: "shop", Name: "orders"}
	so := &kedav1alpha1.ScaledObject{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "orders"}}
	so.Spec.ScaleTargetRef = &kedav1alpha1.ScaleTarget{Name: "hello"}
	s, f := made(knative("hello-00001"))
	set := func() {
		t.Helper()
		if err := s.SetReplicas(t.Context(), hello, 2); err != nil {
			t.Fatal(err)
		}
	}
	set()
	so.Status.ScaleTargetGVKR = &hello.Kind
	s.services.scaledChanged(so)
	s.services.drop(types.NamespacedName{Namespace: "shop", Name: "another"}, types.NamespacedName{})
	f.want(t, "nothing of it changed", "hello-00001", 2)
	so.Status.ScaleTargetGVKR = &worker.Kind
	s.services.scaledChanged(so)
	f.want(t, "it names a Deployment of that name", "", 0)
	set()
	s.services.drop(orders, types.NamespacedName{})
	f.want(t, "it is gone", "", 0)
}

func TestServicesThatCannotBeScaled(t *testing.T) {
	other := knative("hello-00001")
	other.Spec.Template.Annotations = map[string]string{"autoscaling.knative.dev/class": "hpa.autoscaling.knative.dev"}
	for name, tt := range map[string]struct {
		there   []*servingv1.Service
		missing bool
	}{
		"it is not there":              {nil, true},
		"another autoscaler scales it": {[]*servingv1.Service{other}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, f := made(tt.there...)
			_, err := s.Replicas(t.Context(), hello)
			var got *controller.TargetError
			if !errors.As(err, &got) || got.Missing != tt.missing {
				t.Errorf("reading fails with %v", err)
			}
			if err := s.SetReplicas(t.Context(), hello, 1); !errors.As(err, &got) {
				t.Errorf("writing fails with %v", err)
			}
			f.want(t, "nothing is told", "", 0)
		})
	}
}
