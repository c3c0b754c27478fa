package cloudeventsource

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	protocol "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/google/go-cmp/cmp"
	kedaeventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ebb.dev/ebb/internal/adapter/credential"
	"ebb.dev/ebb/internal/platform/kube"
)

// sinks is a network of sinks, by host.
type sinks struct {
	mu     sync.Mutex
	got    map[string][]event.Event
	bodies map[string][]string
	heads  map[string]http.Header
	answer map[string]func(ctx context.Context) (int, error)
}

func (s *sinks) RoundTrip(r *http.Request) (*http.Response, error) {
	status := http.StatusOK
	s.mu.Lock()
	answer := s.answer[r.URL.Host]
	s.mu.Unlock()
	if answer != nil {
		var err error
		if status, err = answer(r.Context()); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	s.heads[r.URL.Host] = r.Header
	if status == http.StatusOK {
		s.bodies[r.URL.Host] = append(s.bodies[r.URL.Host], r.Method+" "+r.URL.String()+" "+string(body))
	}
	if status == http.StatusOK && !strings.HasPrefix(r.Header.Get("Content-Type"), "application/cloudevents-batch") {
		e, err := binding.ToEvent(r.Context(), protocol.NewMessage(r.Header, io.NopCloser(strings.NewReader(string(body)))))
		if err != nil {
			return nil, err
		}
		s.got[r.URL.Host] = append(s.got[r.URL.Host], *e)
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: http.NoBody, Request: r}, nil
}

// names of the objects that a sink was told of.
func (s *sinks) names(host string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, e := range s.got[host] {
		out = append(out, e.Subject()[strings.LastIndex(e.Subject(), "/")+1:])
	}
	return out
}

// rig is the controllers on a fake API.
type rig struct {
	*Sources

	sinks    *sinks
	client   client.Client
	registry *prometheus.Registry
}

type fixed credential.Resolved

func (f fixed) Resolve(_ context.Context, q credential.Request) (credential.Resolved, error) {
	if q.Namespace == "" {
		return credential.Resolved{}, errors.New("no namespace")
	}
	return credential.Resolved(f), nil
}

func newRig(t *testing.T, c Config, objects ...client.Object) *rig {
	t.Helper()
	r := &rig{registry: prometheus.NewRegistry(), sinks: &sinks{
		got: map[string][]event.Event{}, bodies: map[string][]string{}, heads: map[string]http.Header{},
		answer: map[string]func(context.Context) (int, error){},
	}}
	c.Transport, c.Log, c.Registerer = r.sinks, slog.New(slog.DiscardHandler), r.registry
	var err error
	if r.Sources, err = New(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	scheme := kube.Scheme()
	r.use(scheme)
	r.client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(objects...).Build()
	for _, o := range objects {
		r.reconcile(t, o)
	}
	return r
}

func (r *rig) reconcile(t *testing.T, o client.Object) {
	t.Helper()
	_, clusters := o.(*kedaeventingv1alpha1.ClusterCloudEventSource)
	k := &Reconciler{client: r.client, sources: r.Sources, object: func() source {
		if clusters {
			return &kedaeventingv1alpha1.ClusterCloudEventSource{}
		}
		return &kedaeventingv1alpha1.CloudEventSource{}
	}}
	if _, err := k.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(o)}); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) condition(t *testing.T, o source) kedav1alpha1.Condition {
	t.Helper()
	r.reconcile(t, o)
	if err := r.client.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		t.Fatal(err)
	}
	return o.GetStatus().Conditions.GetActiveCondition()
}

// count is a metric's value for a source.
func (r *rig) count(t *testing.T, name, label, value, state string) float64 {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if f.GetName() == name && labels[label] == value && labels["state"] == state {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func toHTTP(uri string, subscription kedaeventingv1alpha1.EventSubscription) kedaeventingv1alpha1.CloudEventSourceSpec {
	return kedaeventingv1alpha1.CloudEventSourceSpec{
		ClusterName: "e2e", EventSubscription: subscription,
		Destination: kedaeventingv1alpha1.Destination{HTTP: &kedaeventingv1alpha1.CloudEventHTTP{URI: uri}},
	}
}

func local(namespace, name string, spec kedaeventingv1alpha1.CloudEventSourceSpec) *kedaeventingv1alpha1.CloudEventSource {
	return &kedaeventingv1alpha1.CloudEventSource{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
}

func clusterWide(name string, spec kedaeventingv1alpha1.CloudEventSourceSpec) *kedaeventingv1alpha1.ClusterCloudEventSource {
	return &kedaeventingv1alpha1.ClusterCloudEventSource{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
}

func scaledObject(namespace, name string) *kedav1alpha1.ScaledObject {
	return &kedav1alpha1.ScaledObject{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}

type subscription = kedaeventingv1alpha1.EventSubscription

func TestAnEventIsKEDAs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, local("default", "mine", toHTTP("http://sink/path", subscription{})))
		r.Emit(scaledObject("default", "Web"), "Warning", kedaeventingv1alpha1.ScaledObjectFailedType, "ScaledObjectCheckFailed", "it is 100% broken")
		r.Emit(scaledObject("default", "web"), "Normal", "", "KEDAScalersStarted", "for people only")
		synctest.Wait()
		got := r.sinks.got["sink"]
		if len(got) != 1 {
			t.Fatalf("%d events, want 1", len(got))
		}
		e := got[0]
		want := []string{"/e2e/keda/keda", "/e2e/default/scaledobject/web", "keda.scaledobject.failed.v1", "application/json", `{"reason":"ScaledObjectCheckFailed","message":"it is 100% broken"}`}
		if diff := cmp.Diff(want, []string{e.Source(), e.Subject(), e.Type(), e.DataContentType(), string(e.Data())}); diff != "" {
			t.Error(diff)
		}
		if e.Validate() != nil || e.ID() == "" || !e.Time().Equal(time.Now()) {
			t.Errorf("%v: want an id and the time", e)
		}
		if r.sinks.heads["sink"].Get("Ce-Type") == "" || !strings.HasPrefix(r.sinks.bodies["sink"][0], "POST http://sink/path {") {
			t.Errorf("sent %q, want binary mode", r.sinks.bodies["sink"][0])
		}
	})
}

func TestWhoIsToldOfWhat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := []kedaeventingv1alpha1.CloudEventType{kedaeventingv1alpha1.ScaledObjectFailedType}
		r := newRig(t, Config{},
			local("default", "none", toHTTP("http://excluded", subscription{ExcludedEventTypes: failed})),
			local("default", "all", toHTTP("http://all", subscription{})),
			local("default", "some", toHTTP("http://included", subscription{IncludedEventTypes: failed})),
			local("other", "all", toHTTP("http://other", subscription{})),
			clusterWide("all", toHTTP("http://cluster", subscription{})))
		r.Emit(scaledObject("default", "failed"), "Warning", kedaeventingv1alpha1.ScaledObjectFailedType, "r", "m")
		r.Emit(scaledObject("default", "ready"), "Normal", kedaeventingv1alpha1.ScaledObjectReadyType, "r", "m")
		r.Emit(&kedav1alpha1.ClusterTriggerAuthentication{ObjectMeta: metav1.ObjectMeta{Name: "auth"}}, "Normal",
			kedaeventingv1alpha1.ClusterTriggerAuthenticationCreatedType, "r", "m")
		synctest.Wait()
		for host, want := range map[string][]string{
			"excluded": {"ready"}, "all": {"failed", "ready"}, "included": {"failed"}, "other": nil, "cluster": {"failed", "ready", "auth"},
		} {
			if diff := cmp.Diff(want, r.sinks.names(host)); diff != "" {
				t.Errorf("%s: %s", host, diff)
			}
		}
	})
}

func TestABadSinkHoldsUpNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good, bad := local("default", "good", toHTTP("http://good", subscription{})), local("default", "bad", toHTTP("http://bad", subscription{}))
		slow := local("default", "slow", toHTTP("http://slow", subscription{}))
		r := newRig(t, Config{}, good, bad, slow)
		var tries atomic.Int32
		r.sinks.answer["bad"] = func(context.Context) (int, error) { tries.Add(1); return http.StatusServiceUnavailable, nil }
		r.sinks.answer["slow"] = func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() }
		begun := time.Now()
		for _, name := range []string{"one", "two"} {
			r.Emit(scaledObject("default", name), "Normal", kedaeventingv1alpha1.ScaledObjectReadyType, "r", "m")
		}
		synctest.Wait()
		if got := r.sinks.names("good"); len(got) != 2 || time.Since(begun) > 0 {
			t.Errorf("the good sink got %v after %s", got, time.Since(begun))
		}
		if c := r.condition(t, bad); !c.IsTrue() || c.Reason != "CloudEventSourceActive" || c.Message != "Is configured to send events to the configured destination" {
			t.Errorf("after one failure: %v", c)
		}
		if got := r.count(t, "keda_cloudeventsource_events_queued", "namespace", "default", ""); got != 4 {
			t.Errorf("%v queued, want those of the bad and the slow one", got)
		}
		time.Sleep(20 * time.Second)
		if c := r.condition(t, bad); !c.IsFalse() || c.Reason != "CloudEventSourceFailed" || c.Message != "Failed to send events to the configured destination" {
			t.Errorf("after giving up: %v", c)
		}
		if n := tries.Load(); n < 5 || n > 8 {
			t.Errorf("%d attempts in 20 s", n)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if got := r.count(t, "keda_cloudeventsource_events_queued", "namespace", "default", ""); got != 0 || tries.Load() != 10 {
			t.Errorf("%v queued after a while, %d attempts", got, tries.Load())
		}
		r.sinks.mu.Lock()
		delete(r.sinks.answer, "bad")
		r.sinks.mu.Unlock()
		r.Emit(scaledObject("default", "three"), "Normal", kedaeventingv1alpha1.ScaledObjectReadyType, "r", "m")
		synctest.Wait()
		if c := r.condition(t, bad); !c.IsTrue() {
			t.Errorf("once it works again: %v", c)
		}
		if got := r.count(t, "keda_cloudeventsource_events_emitted_total", "cloudeventsource", "bad", "failed"); got != 10 {
			t.Errorf("%v failed", got)
		}
		if got := r.count(t, "keda_cloudeventsource_events_emitted_total", "cloudeventsource", "good", "emitted"); got != 3 {
			t.Errorf("%v emitted", got)
		}
		time.Sleep(5 * time.Minute)
	})
}

func TestTheQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, local("default", "mine", toHTTP("http://sink", subscription{})))
		held := make(chan struct{})
		r.sinks.answer["sink"] = func(ctx context.Context) (int, error) {
			select {
			case <-held:
				return http.StatusOK, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		for range 3000 {
			r.Emit(scaledObject("default", "web"), "Normal", kedaeventingv1alpha1.ScaledObjectReadyType, "r", "m")
		}
		if got := r.count(t, "keda_cloudeventsource_events_queued", "namespace", "default", ""); got != 1024 {
			t.Errorf("%v queued", got)
		}
		close(held)
		synctest.Wait()
		if got := len(r.sinks.names("sink")); got < 1024 || got > 1025 {
			t.Errorf("%d delivered, want the latest 1024", got)
		}
		if got := r.count(t, "keda_cloudeventsource_events_queued", "namespace", "default", ""); got != 0 {
			t.Errorf("%v queued at the end", got)
		}
	})
}

func TestASourceChangesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine := local("default", "mine", toHTTP("http://old", subscription{}))
		mine.Finalizers = []string{finalizer}
		r := newRig(t, Config{}, mine)
		r.sinks.answer["old"] = func(context.Context) (int, error) { return 0, errors.New("connection refused") }
		r.Emit(scaledObject("default", "web"), "Normal", kedaeventingv1alpha1.ScaledObjectReadyType, "r", "m")
		synctest.Wait()
		if err := r.client.Get(t.Context(), client.ObjectKeyFromObject(mine), mine); err != nil {
			t.Fatal(err)
		}
		mine.Spec.Destination.HTTP.URI = "http://new"
		if err := r.client.Update(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
		r.reconcile(t, mine)
		synctest.Wait()
		if got := r.sinks.names("new"); len(got) != 1 {
			t.Errorf("the new sink got %v, want what waited", got)
		}
		if err := r.client.Delete(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
		r.reconcile(t, mine)
		if err := r.client.Get(t.Context(), client.ObjectKeyFromObject(mine), mine); client.IgnoreNotFound(err) != nil || err == nil {
			t.Errorf("%v: want it gone, without KEDA's finalizer", err)
		}
		r.Emit(scaledObject("default", "web"), "Normal", kedaeventingv1alpha1.ScaledObjectReadyType, "r", "m")
		synctest.Wait()
		if got := r.sinks.names("new"); len(got) != 1 || r.lanes.Any() {
			t.Errorf("%v was sent to a source that is gone", got)
		}
	})
}

func TestASourceThatCannotBe(t *testing.T) {
	for name, spec := range map[string]kedaeventingv1alpha1.CloudEventSourceSpec{
		"no destination is given":        {},
		"is no URI":                      toHTTP("not a uri", subscription{}),
		"must begin with http://":        toHTTP("ftp://sink", subscription{}),
		"must begin with https://":       {Destination: kedaeventingv1alpha1.Destination{AzureEventGridTopic: &kedaeventingv1alpha1.AzureEventGridTopicSpec{Endpoint: "http://topic"}}},
		"the destination \"\" is no URI": toHTTP("", subscription{}),
	} {
		t.Run(name, func(t *testing.T) {
			mine := local("default", "mine", spec)
			r := newRig(t, Config{}, mine)
			c := r.condition(t, mine)
			if !c.IsFalse() || c.Reason != "CloudEventSourceFailed" || !strings.HasPrefix(c.Message, "Failed to send events to the configured destination: ") || !strings.Contains(c.Message, name) {
				t.Errorf("%v, want what is wrong", c)
			}
			if r.lanes.Any() {
				t.Error("it has a lane")
			}
		})
	}
}

func TestEventGrid(t *testing.T) {
	topic := kedaeventingv1alpha1.CloudEventSourceSpec{
		AuthenticationRef: &kedav1alpha1.AuthenticationRef{Name: "auth"},
		Destination:       kedaeventingv1alpha1.Destination{AzureEventGridTopic: &kedaeventingv1alpha1.AzureEventGridTopicSpec{Endpoint: "https://topic/api/events"}},
	}
	workload := kedav1alpha1.AuthPodIdentity{Provider: kedav1alpha1.PodIdentityProviderAzureWorkload, IdentityID: new("me")}
	for name, tt := range map[string]struct {
		have         credential.Resolved
		header, want string
	}{
		"by an access key": {credential.Resolved{Params: map[string]string{"accessKey": "k"}}, "Aeg-Sas-Key", "k"},
		"by a token":       {credential.Resolved{Identity: workload}, "Authorization", "Bearer token of me for https://eventgrid.azure.net/.default"},
		"by nothing":       {credential.Resolved{}, "Aeg-Sas-Key", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{
					Credentials: fixed(tt.have),
					AzureToken: func(_ context.Context, id kedav1alpha1.AuthPodIdentity, scope string) (string, error) {
						return "token of " + id.GetIdentityID() + " for " + scope, nil
					},
				}, clusterWide("mine", topic))
				r.Emit(scaledObject("default", "web"), "Normal", kedaeventingv1alpha1.ScaledObjectReadyType, "Ready", "m")
				synctest.Wait()
				defer time.Sleep(time.Minute) // until the last attempt
				bodies := r.sinks.bodies["topic"]
				if tt.want == "" {
					if len(bodies) > 0 || r.count(t, "keda_cloudeventsource_events_emitted_total", "cloudeventsource", "mine", "failed") == 0 {
						t.Errorf("sent %v", bodies)
					}
					return
				}
				if len(bodies) != 1 || r.sinks.heads["topic"].Get(tt.header) != tt.want {
					t.Fatalf("sent %v with %v", bodies, r.sinks.heads["topic"])
				}
				if !strings.HasPrefix(bodies[0], `POST https://topic/api/events?api-version=2018-01-01 [{"specversion":"1.0","id":"`) ||
					!strings.Contains(bodies[0], `"source":"/kubernetes-default/keda/keda","subject":"/kubernetes-default/default/scaledobject/web","type":"keda.scaledobject.ready.v1"`) ||
					!strings.Contains(bodies[0], `"datacontenttype":"application/json","data":{"reason":"Ready","message":"m"}}]`) {
					t.Errorf("sent %s", bodies[0])
				}
			})
		})
	}
}

func TestNothingIsOfferedBeforeThereAreSources(t *testing.T) {
	r := newRig(t, Config{})
	r.Emit(scaledObject("default", "web"), "Normal", kedaeventingv1alpha1.ScaledObjectReadyType, "r", "m")
	r.remove(types.NamespacedName{Namespace: "default", Name: "none"})
}
