package scaledobject

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	kedaeventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/activation"
	"ebb.dev/ebb/internal/platform/kube"
)

var (
	key         = types.NamespacedName{Namespace: "shop", Name: "orders"}
	born        = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	deployments = kedav1alpha1.GroupVersionKindResource{Group: "apps", Version: "v1", Kind: "Deployment", Resource: "deployments"}
)

// object is a ScaledObject as a user writes it.
func object() *kedav1alpha1.ScaledObject {
	return &kedav1alpha1.ScaledObject{
		ObjectMeta: metav1.ObjectMeta{
			Name: key.Name, Namespace: key.Namespace, UID: "so-uid", Generation: 1, CreationTimestamp: metav1.NewTime(born),
		},
		Spec: kedav1alpha1.ScaledObjectSpec{
			ScaleTargetRef: &kedav1alpha1.ScaleTarget{Name: "worker"},
			Triggers: []kedav1alpha1.ScaleTriggers{
				{Type: "redis", AuthenticationRef: &kedav1alpha1.AuthenticationRef{Name: "password"}}, {Type: "cron"},
			},
		},
	}
}

func annotated(so *kedav1alpha1.ScaledObject, pairs ...string) *kedav1alpha1.ScaledObject {
	so.Annotations = map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		so.Annotations[pairs[i]] = pairs[i+1]
	}
	return so
}

func external(name string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: name},
		Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: new(resource.MustParse("5"))},
	}}
}

func followed(names ...string) activation.Followed {
	var out activation.Followed
	for _, name := range names {
		out.Specs = append(out.Specs, external(name))
	}
	return out
}

// fakeEngine answers what it is told to, and remembers what it was asked.
type fakeEngine struct {
	followed activation.Followed
	err      error
	state    *activation.State
	object   *kedav1alpha1.ScaledObject // of the last Follow; nil after Unfollow

	unfollowed int
}

func (e *fakeEngine) Follow(_ context.Context, so *kedav1alpha1.ScaledObject) (activation.Followed, error) {
	e.object = so
	return e.followed, e.err
}

func (e *fakeEngine) Unfollow(types.NamespacedName) { e.object, e.unfollowed = nil, e.unfollowed+1 }

func (e *fakeEngine) State(types.NamespacedName) (activation.State, bool) {
	if e.state == nil {
		return activation.State{}, false
	}
	return *e.state, true
}

func (*fakeEngine) Subscribe(func(types.NamespacedName)) {}

// fakeTargets has Deployments by name, and counts how often it was read.
type fakeTargets struct {
	replicas map[string]int32
	bare     bool
	unshown  bool
	unknown  error
	reads    int
}

func (f *fakeTargets) Resolve(*kedav1alpha1.ScaleTarget) (kedav1alpha1.GroupVersionKindResource, error) {
	return deployments, f.unknown
}

func (f *fakeTargets) Horizontal(kedav1alpha1.GroupVersionKindResource) bool { return !f.unshown }

func (f *fakeTargets) Replicas(_ context.Context, of activation.Target) (int32, error) {
	f.reads++
	n, ok := f.replicas[of.Name]
	switch {
	case f.bare:
		return 0, &controller.TargetError{Err: errors.New("no scale here")}
	case !ok:
		missing := apierrors.NewNotFound(schema.GroupResource{Group: "apps", Resource: "deployments"}, of.Name)
		return 0, &controller.TargetError{Missing: true, Err: missing}
	}
	return n, nil
}

func (f *fakeTargets) SetReplicas(_ context.Context, of activation.Target, n int32) error {
	f.replicas[of.Name] = n
	return nil
}

// told remembers events as "kind reason: message".
type told []string

func (l *told) Emit(_ client.Object, eventType string, _ kedaeventingv1alpha1.CloudEventType, reason, message string) {
	*l = append(*l, eventType+" "+reason+": "+message)
}

// world is a Reconciler on a fake API.
type world struct {
	*Reconciler

	t       *testing.T
	engine  *fakeEngine
	targets *fakeTargets
	told    told
	writes  int
	refuse  func(client.Object) error // asked before a create
	hide    bool                      // autoscalers, as a cache does that is behind
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	w := &world{t: t, engine: &fakeEngine{followed: followed("s0-redis-jobs", "s1-cron")}, targets: &fakeTargets{replicas: map[string]int32{"worker": 3}}}
	w.Reconciler = &Reconciler{
		client: fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(objects...).
			WithStatusSubresource(&kedav1alpha1.ScaledObject{}, &autoscalingv2.HorizontalPodAutoscaler{}).
			WithInterceptorFuncs(w.counting()).Build(),
		engine: w.engine, targets: w.targets, emitter: &w.told, now: func() time.Time { return born.Add(20 * time.Second) },
		log: slog.New(slog.DiscardHandler), checked: map[types.NamespacedName]version{}, made: map[types.NamespacedName]creation{},
	}
	return w
}

func (w *world) counting() interceptor.Funcs {
	return interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if _, horizontal := o.(*autoscalingv2.HorizontalPodAutoscaler); horizontal && w.hide {
				return apierrors.NewNotFound(autoscalers, key.Name)
			}
			return c.Get(ctx, key, o, opts...)
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			w.writes++
			if w.refuse != nil {
				if err := w.refuse(o); err != nil {
					return err
				}
			}
			o.SetUID("hpa-uid")
			return c.Create(ctx, o, opts...)
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			w.writes++
			return c.Update(ctx, o, opts...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			w.writes++
			return c.Patch(ctx, o, p, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			w.writes++
			return c.Delete(ctx, o, opts...)
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			w.writes++
			return c.SubResource(sub).Patch(ctx, o, p, opts...)
		},
	}
}

// reconcile runs once and returns what the ScaledObject is then; nil when it is gone.
func (w *world) reconcile() *kedav1alpha1.ScaledObject {
	w.t.Helper()
	so, _ := w.reconcileAgain()
	return so
}

func (w *world) reconcileAgain() (*kedav1alpha1.ScaledObject, ctrl.Result) {
	w.t.Helper()
	result, err := w.Reconcile(w.t.Context(), ctrl.Request{NamespacedName: key})
	if err != nil {
		w.t.Fatal(err)
	}
	so := &kedav1alpha1.ScaledObject{}
	if err := w.client.Get(w.t.Context(), key, so); apierrors.IsNotFound(err) {
		return nil, result
	} else if err != nil {
		w.t.Fatal(err)
	}
	return so, result
}

// change edits the ScaledObject as a user does.
func (w *world) change(edit func(*kedav1alpha1.ScaledObject)) {
	w.t.Helper()
	so := &kedav1alpha1.ScaledObject{}
	if err := w.client.Get(w.t.Context(), key, so); err != nil {
		w.t.Fatal(err)
	}
	edit(so)
	so.Generation++
	if err := w.client.Update(w.t.Context(), so); err != nil {
		w.t.Fatal(err)
	}
}

// autoscaler returns a HorizontalPodAutoscaler; nil if there is none of that name.
func (w *world) autoscaler(name string) *autoscalingv2.HorizontalPodAutoscaler {
	w.t.Helper()
	h, err := w.find(w.t.Context(), key.Namespace, name)
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

func conditionOf(so *kedav1alpha1.ScaledObject, kind kedav1alpha1.ConditionType) kedav1alpha1.Condition {
	if c := condition(so.Status.Conditions, kind); c != nil {
		return kedav1alpha1.Condition{Status: c.Status, Reason: c.Reason, Message: c.Message}
	}
	return kedav1alpha1.Condition{}
}
