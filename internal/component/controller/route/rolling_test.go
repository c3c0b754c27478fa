package route

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/pkg/apis"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// shares writes what the table gives to each revision of a host.
func (w *world) shares(host string) string {
	rule, ok := w.table.Match(host, false)
	if !ok {
		return "nothing"
	}
	var out []string
	for _, t := range rule.Targets {
		out = append(out, fmt.Sprintf("%s %d", t.Revision.Name, t.Percent))
	}
	return strings.Join(out, ", ")
}

// settle reconciles until nothing changes any more, as events would have it; it returns the Route
// and when the next reconcile is asked for.
func (w *world) settle(t *testing.T) (*servingv1.Route, time.Duration) {
	t.Helper()
	for version := ""; ; {
		result, err := w.Reconcile(t.Context(), ctrl.Request{NamespacedName: key})
		if err != nil {
			t.Fatal(err)
		}
		var route servingv1.Route
		if err := w.client.Get(t.Context(), key, &route); err != nil {
			t.Fatal(err)
		}
		now := route.ResourceVersion + w.ingress(t).ResourceVersion
		if now == version {
			return &route, result.RequeueAfter
		}
		version = now
	}
}

func (w *world) ingress(t *testing.T) *netv1alpha1.Ingress {
	t.Helper()
	var ingress netv1alpha1.Ingress
	if err := client.IgnoreNotFound(w.client.Get(t.Context(), key, &ingress)); err != nil {
		t.Fatal(err)
	}
	return &ingress
}

// latestIs makes a revision the latest ready one.
func (w *world) latestIs(t *testing.T, name string) {
	t.Helper()
	var cfg servingv1.Configuration
	if err := w.client.Get(t.Context(), key, &cfg); err != nil {
		t.Fatal(err)
	}
	cfg.Status.LatestReadyRevisionName, cfg.Status.LatestCreatedRevisionName = name, name
	if err := w.client.Status().Update(t.Context(), &cfg); err != nil {
		t.Fatal(err)
	}
}

// rollable is a world whose first revision serves, with a minute for the next.
func rollable(t *testing.T, targets ...servingv1.TrafficTarget) *world {
	t.Helper()
	s := fixture(t, targets...)
	s.route.Annotations = map[string]string{serving.RolloutDurationKey: "1m"}
	w := filled(t, s)
	w.latestIs(t, "hello-1")
	if _, due := w.settle(t); due != 0 || !strings.HasPrefix(w.shares("hello.shop"), "hello-1 ") {
		t.Fatalf("at first %s, due in %s", w.shares("hello.shop"), due)
	}
	return w
}

func TestGradualRollout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := rollable(t)
		w.latestIs(t, "hello-2")
		began := time.Now()
		route, due := w.settle(t)
		if got := w.shares("hello.shop"); got != "hello-1 99, hello-2 1" {
			t.Errorf("begins with %s", got)
		}
		c := route.Status.GetCondition(apis.ConditionReady)
		if c.Reason != "RolloutInProgress" || !c.IsUnknown() || len(route.Status.Traffic) != 2 || *route.Status.Traffic[1].Percent != 1 {
			t.Errorf("ready %v, traffic %v", c, route.Status.Traffic)
		}
		for steps := 1; due > 0; steps++ {
			time.Sleep(due)
			if route, due = w.settle(t); steps > 100 {
				t.Fatal("no end")
			}
		}
		if got := w.shares("hello.shop"); got != "hello-2 100" || time.Since(began) > time.Minute || time.Since(began) < 45*time.Second {
			t.Errorf("after %s it is %s", time.Since(began), got)
		}
		if !route.IsReady() || len(route.Status.Traffic) != 1 {
			t.Errorf("not ready in the end: %v, traffic %v", route.Status.Conditions, route.Status.Traffic)
		}
	})
}

func TestARolloutSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := rollable(t, latest(80, "next"), fixed("hello-0", 20, ""))
		w.latestIs(t, "hello-2")
		_, due := w.settle(t)
		for range 10 {
			time.Sleep(due)
			_, due = w.settle(t)
		}
		main, tagged := w.shares("hello.shop"), w.shares("next-hello.shop")
		if main == "hello-2 80, hello-0 20" || !strings.Contains(main, "hello-0 20") || !strings.Contains(tagged, ", ") {
			t.Fatalf("nothing is rolling: %s; %s", main, tagged)
		}
		w.book = w.emptyBook()
		if err := (restorer{w.Reconciler}).Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w.shares("hello.shop") != main || w.shares("next-hello.shop") != tagged {
			t.Errorf("restored %s; %s, want %s; %s", w.shares("hello.shop"), w.shares("next-hello.shop"), main, tagged)
		}
		if _, again := w.settle(t); again != due || w.shares("hello.shop") != main {
			t.Errorf("goes on with %s in %s, want %s in %s", w.shares("hello.shop"), again, main, due)
		}
	})
}

func TestRolloutsThatEndEarly(t *testing.T) {
	tests := map[string]struct {
		change func(*testing.T, *world)
		want   string
	}{
		"the annotation is taken away": {func(t *testing.T, w *world) {
			update(t, w, &servingv1.Route{}, func(r *servingv1.Route) { r.Annotations = nil })
		}, "hello-2 100"},
		"traffic names a revision": {func(t *testing.T, w *world) {
			update(t, w, &servingv1.Route{}, func(r *servingv1.Route) {
				r.Spec.Traffic = []servingv1.TrafficTarget{fixed("hello-1", 100, "")}
				r.SetDefaults(t.Context())
			})
		}, "hello-1 100"},
		"the old revision is deleted": {func(t *testing.T, w *world) {
			if err := w.client.Delete(t.Context(), &servingv1.Revision{ObjectMeta: metav1.ObjectMeta{Name: "hello-1", Namespace: "shop"}}); err != nil {
				t.Fatal(err)
			}
		}, "hello-2 100"},
		"the state is no longer one": {func(t *testing.T, w *world) {
			update(t, w, &netv1alpha1.Ingress{}, func(i *netv1alpha1.Ingress) { i.Annotations[netapi.RolloutAnnotationKey] = "{" })
		}, "hello-2 100"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := rollable(t)
			w.latestIs(t, "hello-2")
			w.settle(t)
			tt.change(t, w)
			if _, due := w.settle(t); due != 0 || w.shares("hello.shop") != tt.want {
				t.Errorf("%s, due in %s; want %s", w.shares("hello.shop"), due, tt.want)
			}
		})
	}
}

// update changes the object that has the key's name.
func update[T client.Object](t *testing.T, w *world, o T, change func(T)) {
	t.Helper()
	if err := w.client.Get(t.Context(), key, o); err != nil {
		t.Fatal(err)
	}
	change(o)
	if err := w.client.Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

func TestTheClustersDurationCounts(t *testing.T) {
	s := fixture(t)
	s.settings = parse(t, map[string]string{"config-network/rollout-duration": "30"})
	w := filled(t, s)
	w.latestIs(t, "hello-1")
	w.settle(t)
	w.latestIs(t, "hello-2")
	if _, due := w.settle(t); due == 0 || w.shares("hello.shop") != "hello-1 99, hello-2 1" {
		t.Errorf("%s, due in %s", w.shares("hello.shop"), due)
	}
}

func TestIngressIsWrittenOnce(t *testing.T) {
	w := filled(t, fixture(t))
	w.settle(t)
	ingress := w.ingress(t)
	if !ingress.IsReady() || ingress.Status.PublicLoadBalancer.Ingress[0].DomainInternal != "outside" ||
		ingress.Status.PrivateLoadBalancer.Ingress[0].DomainInternal != gateway {
		t.Errorf("status %+v", ingress.Status)
	}
	if class := netapi.GetIngressClass(ingress.Annotations); class != settings.IngressClass {
		t.Errorf("class %q", class)
	}
	w.settle(t)
	if again := w.ingress(t); again.ResourceVersion != ingress.ResourceVersion {
		t.Error("an unchanged ingress was written again")
	}
	update(t, w, &netv1alpha1.Ingress{}, func(i *netv1alpha1.Ingress) { i.Spec.Rules = nil })
	w.settle(t)
	if got := len(w.ingress(t).Spec.Rules); got != len(ingress.Spec.Rules) {
		t.Errorf("%d rules after somebody took them away", got)
	}
}

func TestAnotherIngressClass(t *testing.T) {
	const other = "other.ingress.networking.knative.dev"
	w := filled(t, fixture(t))
	w.settle(t)
	update(t, w, &servingv1.Route{}, func(r *servingv1.Route) {
		r.Annotations = map[string]string{netapi.IngressClassAnnotationAltKey: other}
	})
	route, _ := w.settle(t)
	c := route.Status.GetCondition(servingv1.RouteConditionIngressReady)
	if !c.IsUnknown() || c.Reason != "IngressNotConfigured" || !strings.Contains(c.Message, other) {
		t.Errorf("condition %v", c)
	}
	if w.table.Hosts() != 0 {
		t.Error("the gateway serves another's route")
	}
	ingress := w.ingress(t)
	if netapi.GetIngressClass(ingress.Annotations) != other || len(ingress.Status.Conditions) != 0 {
		t.Errorf("ingress %v, %v", ingress.Annotations, ingress.Status)
	}
	ingress.Status.InitializeConditions()
	ingress.Status.MarkNetworkConfigured()
	ingress.Status.MarkLoadBalancerReady(nil, nil)
	ingress.Status.ObservedGeneration = ingress.Generation
	if err := w.client.Status().Update(t.Context(), ingress); err != nil {
		t.Fatal(err)
	}
	if route, _ := w.settle(t); !route.IsReady() {
		t.Errorf("not ready when the other gateway is: %v", route.Status.Conditions)
	}
	update(t, w, &servingv1.Route{}, func(r *servingv1.Route) { r.Annotations = nil })
	if route, _ := w.settle(t); !route.IsReady() || w.shares("hello.shop") != "hello-2 100" || !controller.Ours(w.ingress(t)) {
		t.Errorf("does not come back: %v", route.Status.Conditions)
	}
}

func TestAnIngressThatIsAnothers(t *testing.T) {
	w := filled(t, fixture(t), &netv1alpha1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: "hello", Namespace: "shop"}})
	route, _ := w.settle(t)
	if c := route.Status.GetCondition(servingv1.RouteConditionIngressReady); c.GetReason() != "NotOwned" || w.table.Hosts() > 0 {
		t.Errorf("condition %v, %d hosts", c, w.table.Hosts())
	}
}

func TestAHostThatIsTakenFailsTheIngress(t *testing.T) {
	w := filled(t, fixture(t))
	taken := controller.Entry{Rules: []traffic.Rule{{
		Host: "hello.shop.localhost", Route: types.NamespacedName{Namespace: "a", Name: "first"},
		Targets: []traffic.Target{{Revision: types.NamespacedName{Namespace: "a", Name: "first-1"}, Percent: 100}},
	}}}
	if err := w.book.Put(context.WithoutCancel(t.Context()), types.NamespacedName{Namespace: "a", Name: "first"}, taken); err != nil {
		t.Fatal(err)
	}
	route, _ := w.settle(t)
	for _, condition := range []apis.ConditionType{servingv1.RouteConditionIngressReady, servingv1.RouteConditionAllTrafficAssigned} {
		if c := route.Status.GetCondition(condition); !c.IsFalse() || !strings.Contains(c.Message, "a/first") {
			t.Errorf("condition %v", c)
		}
	}
	if w.ingress(t).IsReady() {
		t.Error("the ingress is ready all the same")
	}
}
