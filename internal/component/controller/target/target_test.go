package target

import (
	"errors"
	"testing"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	scalefake "k8s.io/client-go/scale/fake"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/activation"
	"ebb.dev/ebb/internal/platform/kube"
)

var worker = activation.Target{
	Kind:      kedav1alpha1.GroupVersionKindResource{Group: "apps", Version: "v1", Kind: "Deployment", Resource: "deployments"},
	Namespace: "shop", Name: "worker",
}

// scales answers reads of the scale of a Deployment that is there or not.
func scales(t *testing.T, there bool, answer error) (*Scales, *scalefake.FakeScaleClient) {
	t.Helper()
	live := fake.NewClientBuilder().WithScheme(kube.Scheme())
	if there {
		live.WithObjects(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: worker.Name, Namespace: worker.Namespace}})
	}
	client := &scalefake.FakeScaleClient{}
	client.AddReactor("get", "deployments", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: 4}}, answer
	})
	client.AddReactor("patch", "deployments", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &autoscalingv1.Scale{}, nil
	})
	return &Scales{known: memory{}, mapper: meta.NewDefaultRESTMapper(nil), scales: client, live: live.Build()}, client
}

// memory has numbers of replicas by resource, namespace and name.
type memory map[string]int32

func (m memory) Replicas(of schema.GroupResource, namespace, name string) (int32, bool) {
	n, known := m[of.String()+" "+namespace+"/"+name]
	return n, known
}

func TestWhatIsKnownIsNotAskedFor(t *testing.T) {
	s, client := scales(t, true, nil)
	s.known = memory{"deployments.apps shop/worker": 0}
	if n, err := s.Replicas(t.Context(), worker); n != 0 || err != nil || len(client.Actions()) != 0 {
		t.Errorf("%d replicas, %v, by %v; want the 0 that are known", n, err, client.Actions())
	}
}

func TestReplicas(t *testing.T) {
	resource := worker.Kind.GroupVersion().WithResource("deployments").GroupResource()
	bare := errors.New("could not find scale subresource")
	busy := apierrors.NewTooManyRequests("later", 1)
	for name, tt := range map[string]struct {
		there  bool
		answer error
		want   *controller.TargetError // nil for another or no error
	}{
		"there is a number":              {true, nil, nil},
		"the object is missing":          {false, apierrors.NewNotFound(resource, "worker"), &controller.TargetError{Missing: true}},
		"its kind has no number":         {true, bare, &controller.TargetError{}},
		"the answer is that it has none": {true, apierrors.NewNotFound(resource, "worker"), &controller.TargetError{}},
		"the server is busy":             {true, busy, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := scales(t, tt.there, tt.answer)
			n, err := s.Replicas(t.Context(), worker)
			var got *controller.TargetError
			if errors.As(err, &got) != (tt.want != nil) {
				t.Fatalf("error %v", err)
			}
			if tt.want != nil && got.Missing != tt.want.Missing {
				t.Errorf("error %+v", got)
			}
			if tt.answer == nil && n != 4 {
				t.Errorf("%d replicas", n)
			}
			if (tt.answer == nil) != (err == nil) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestSetReplicasIsOneWrite(t *testing.T) {
	s, client := scales(t, true, nil)
	if err := s.SetReplicas(t.Context(), worker, 7); err != nil {
		t.Fatal(err)
	}
	actions := client.Actions()
	if len(actions) != 1 {
		t.Fatalf("requests %v", actions)
	}
	patch, ok := actions[0].(clienttesting.PatchAction)
	if !ok || string(patch.GetPatch()) != `{"spec":{"replicas":7}}` || patch.GetSubresource() != "scale" {
		t.Errorf("request %+v", actions[0])
	}
}

func TestResolve(t *testing.T) {
	s, _ := scales(t, true, nil)
	if got, err := s.Resolve(&kedav1alpha1.ScaleTarget{Name: "worker"}); err != nil || got != worker.Kind {
		t.Errorf("nothing said means %+v, %v; want a Deployment", got, err)
	}
	if _, err := s.Resolve(&kedav1alpha1.ScaleTarget{Name: "x", APIVersion: "example.com/v1", Kind: "Thing"}); err == nil {
		t.Error("a kind nobody knows resolves")
	}
}
