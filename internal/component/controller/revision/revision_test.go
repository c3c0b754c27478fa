package revision

import (
	"context"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/scale"
	"ebb.dev/ebb/internal/platform/kube"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

var key = types.NamespacedName{Namespace: "shop", Name: "hello-00001"}

// instances is a fleet of one revision.
type instances struct{ ready int }

func (f *instances) Ready(types.NamespacedName) int           { return f.ready }
func (f *instances) Subscribe(func(rev types.NamespacedName)) {}

// wishes is a scaler that remembers what it was told.
type wishes struct {
	state *controller.ScaleState
	specs []scale.Spec
	gone  []types.NamespacedName
}

func (w *wishes) SetRevision(_ types.NamespacedName, spec scale.Spec) {
	w.specs = append(w.specs, spec)
}
func (w *wishes) RemoveRevision(rev types.NamespacedName)  { w.gone = append(w.gone, rev) }
func (w *wishes) Subscribe(func(rev types.NamespacedName)) {}
func (w *wishes) State(types.NamespacedName) (controller.ScaleState, bool) {
	if w.state == nil {
		return controller.ScaleState{}, false
	}
	return *w.state, true
}

type world struct {
	*Reconciler
	fleet  *instances
	scaler *wishes
	wrote  []string
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	defaults, err := settings.Parse(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{fleet: &instances{}, scaler: &wishes{}}
	note := func(what string, o client.Object) { w.wrote = append(w.wrote, what+" "+o.GetName()) }
	c := fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(objects...).
		WithStatusSubresource(&servingv1.Revision{}, &autoscalingv1alpha1.PodAutoscaler{}, &appsv1.Deployment{}).
		WithInterceptorFuncs(interceptor.Funcs{
			Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
				note("create", o)
				return c.Create(ctx, o, opts...)
			},
			SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
				note(sub, o)
				return c.SubResource(sub).Update(ctx, o, opts...)
			},
		}).Build()
	w.Reconciler = &Reconciler{
		client: c, events: events.NewFakeRecorder(20), settings: settings.Fixed(defaults),
		fleet: w.fleet, scaler: w.scaler, log: slog.New(slog.DiscardHandler),
		resolver: resolverOf(&registry{}, func(types.NamespacedName) {}),
	}
	return w
}

// reconcile runs once and returns what was written.
func (w *world) reconcile(t *testing.T) []string {
	t.Helper()
	w.wrote = nil
	if _, err := w.Reconcile(t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
		t.Fatal(err)
	}
	return w.wrote
}

func TestReconcileFromImageToReady(t *testing.T) {
	rev := revisionFixture()
	rev.Status.ContainerStatuses = []servingv1.ContainerStatus{{Name: "user-container", ImageDigest: "example.com/hello@sha256:abc"}}
	w := newWorld(t, rev)
	want := []string{"create hello-00001-deployment", "status hello-00001", "create hello-00001"}
	if diff := cmp.Diff(want, w.reconcile(t)); diff != "" {
		t.Errorf("the first run writes (-want +got):\n%s", diff)
	}
	if len(w.scaler.specs) != 1 || w.scaler.specs[0].Initial != 1 {
		t.Errorf("scaler was told %+v", w.scaler.specs)
	}
	if diff := cmp.Diff([]string{"status hello-00001"}, w.reconcile(t)); diff != "" {
		t.Errorf("the pod autoscaler's event writes (-want +got):\n%s", diff)
	}
	if wrote := w.reconcile(t); len(wrote) > 0 {
		t.Errorf("with nothing new it writes %v", wrote)
	}
	w.fleet.ready, w.scaler.state = 1, &controller.ScaleState{Desired: 1}
	if diff := cmp.Diff([]string{"status hello-00001", "status hello-00001"}, w.reconcile(t)); diff != "" {
		t.Errorf("an instance that came up writes (-want +got):\n%s", diff)
	}
	var got servingv1.Revision
	if err := w.client.Get(t.Context(), key, &got); err != nil || !got.IsReady() {
		t.Errorf("revision %+v is not ready (%v)", got.Status, err)
	}
}

func TestReconcileForgetsARevisionThatIsGone(t *testing.T) {
	w := newWorld(t)
	w.reconcile(t)
	if len(w.scaler.gone) != 1 {
		t.Errorf("scaler was told %v, want %v gone", w.scaler.gone, key)
	}
}
