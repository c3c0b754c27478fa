package gateway_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"ebb.dev/ebb/internal/component/gateway"
	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/fleet"
)

// A client's trace, as in the recommendation's example.
const (
	clientTrace  = "0af7651916cd43dd8448eb211c80319c"
	clientSpan   = "b7ad6b7169203331"
	clientParent = "00-" + clientTrace + "-" + clientSpan + "-01"
)

// traced has the gateway's spans recorded.
func traced(sampler sdktrace.Sampler) (*tracetest.SpanRecorder, func(*gateway.Config)) {
	recorder := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder), sdktrace.WithSampler(sampler)).Tracer("test")
	return recorder, func(c *gateway.Config) { c.Tracer = func() trace.Tracer { return tracer } }
}

// spansOf waits for the server span, which ends last, and returns all by "kind name".
func spansOf(t *testing.T, r *tracetest.SpanRecorder) map[string]sdktrace.ReadOnlySpan {
	t.Helper()
	out := map[string]sdktrace.ReadOnlySpan{}
	waitFor(t, "the server span", func() bool {
		for _, s := range r.Ended() {
			out[s.SpanKind().String()+" "+s.Name()] = s
		}
		return out["server GET"] != nil || out["server POST"] != nil
	})
	return out
}

// send sends a request with a client's trace header and returns what the application saw of traces.
func send(t *testing.T, r *rig, parent, state string) (seenParent, seenState string) {
	t.Helper()
	req := r.request("GET", "/path?secret=1", "")
	if parent != "" {
		req.Header.Set("Traceparent", parent)
	}
	if state != "" {
		req.Header.Set("Tracestate", state)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.Header.Get("Seen-Parent"), resp.Header.Get("Seen-State")
}

// tellTrace is an application that answers with the trace headers it got.
func tellTrace(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Seen-Parent", r.Header.Get("Traceparent"))
	w.Header().Set("Seen-State", r.Header.Get("Tracestate"))
}

func TestWithoutTracesTheHeaderIsPassedOn(t *testing.T) {
	r := newRig(t, traffic.Settings{}, func(c *gateway.Config) { c.Tracer = func() trace.Tracer { return nil } })
	r.serve(tellTrace)
	for _, parent := range []string{clientParent, "nonsense", ""} {
		if seen, state := send(t, r, parent, "a=b"); seen != parent || state != "a=b" {
			t.Errorf("the application saw %q and %q, want %q", seen, state, parent)
		}
	}
}

func TestTheInstanceSeesOurSpan(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			recorder, on := traced(sdktrace.AlwaysSample())
			r := newRig(t, traffic.Settings{H2C: h2, Labels: traffic.Labels{Service: "hello", Configuration: "hello"}}, on)
			serveAs(t, r, tellTrace)
			seen, state := send(t, r, clientParent, "vendor=1")
			spans := spansOf(t, recorder)
			server, client := spans["server GET"], spans["client GET"]
			if client == nil || len(spans) != 2 {
				t.Fatalf("spans: %v", spans)
			}
			if want := "00-" + clientTrace + "-" + client.SpanContext().SpanID().String() + "-01"; seen != want || state != "vendor=1" {
				t.Errorf("the application saw %q and %q, want %q", seen, state, want)
			}
			if server.Parent().SpanID().String() != clientSpan || client.Parent().SpanID() != server.SpanContext().SpanID() {
				t.Errorf("server's parent %s, client's %s", server.Parent().SpanID(), client.Parent().SpanID())
			}
			got := attribute.NewSet(append(server.Attributes(), client.Attributes()...)...)
			for key, want := range map[attribute.Key]string{
				"http.request.method": "GET", "http.response.status_code": "200", "network.protocol.version": "1.1", "url.path": "/path", "url.scheme": "http",
				"kn.revision.name": "hello-00001", "kn.service.name": "hello", "k8s.namespace.name": "default",
				"kn.route.tag": "kn:disabled", "faas.coldstart": "false", "k8s.pod.name": "pod-1",
			} {
				if value, _ := got.Value(key); value.Emit() != want {
					t.Errorf("%s = %q, want %q", key, value.Emit(), want)
				}
			}
			for _, a := range got.ToSlice() {
				if strings.Contains(a.Value.Emit(), "secret") {
					t.Errorf("a span shows the query: %s = %s", a.Key, a.Value.Emit())
				}
			}
		})
	}
}

func TestATraceBeginsHere(t *testing.T) {
	recorder, on := traced(sdktrace.AlwaysSample())
	r := newRig(t, traffic.Settings{}, on)
	r.serve(tellTrace)
	seen, state := send(t, r, "", "orphan=1")
	client := spansOf(t, recorder)["client GET"].SpanContext()
	if want := "00-" + client.TraceID().String() + "-" + client.SpanID().String() + "-01"; seen != want || state != "" {
		t.Errorf("the application saw %q and %q, want %q", seen, state, want)
	}
}

func TestTheInstanceFollowsADecisionAgainstSampling(t *testing.T) {
	recorder, on := traced(sdktrace.ParentBased(sdktrace.NeverSample()))
	r := newRig(t, traffic.Settings{}, on)
	r.serve(tellTrace)
	seen, _ := send(t, r, "00-"+clientTrace+"-"+clientSpan+"-00", "")
	if !strings.HasPrefix(seen, "00-"+clientTrace+"-") || !strings.HasSuffix(seen, "-00") {
		t.Errorf("the application saw %q", seen)
	}
	if len(recorder.Ended()) != 0 {
		t.Errorf("spans were recorded: %v", recorder.Ended())
	}
}

func TestAColdStartShowsItsStages(t *testing.T) {
	recorder, on := traced(sdktrace.AlwaysSample())
	var woken atomic.Bool
	r := newRig(t, traffic.Settings{}, on)
	addr := startApp(t, tellTrace)
	wake := func() {
		if woken.CompareAndSwap(false, true) {
			time.AfterFunc(20*time.Millisecond, func() {
				stamps := map[string]time.Time{"bound": time.Now().Add(-10 * time.Millisecond), "ready": time.Now()}
				r.fleet.Observe(fleet.Local, fleet.Instance{ID: "cold", Pod: "cold", Revision: rev, Address: addr, Ready: true, Stamps: stamps})
			})
		}
	}
	r.sink.onWake.Store(&wake)
	send(t, r, clientParent, "")
	spans := spansOf(t, recorder)
	queue, server := spans["internal queue"], spans["server GET"]
	if queue == nil || queue.Parent().SpanID() != server.SpanContext().SpanID() {
		t.Fatalf("spans: %v", spans)
	}
	if took := queue.EndTime().Sub(queue.StartTime()); took < 20*time.Millisecond || queue.StartTime().Before(server.StartTime()) {
		t.Errorf("the queue took %s", took)
	}
	for _, stage := range []string{"bound", "ready", "dispatch"} {
		s := spans["internal "+stage]
		if s == nil || s.Parent().SpanID() != queue.SpanContext().SpanID() || s.EndTime().Before(s.StartTime()) {
			t.Errorf("stage %s: %v", stage, s)
		}
	}
	got := attribute.NewSet(server.Attributes()...)
	if cold, _ := got.Value("faas.coldstart"); !cold.AsBool() {
		t.Error("the server span does not say that the start was cold")
	}
}

func TestEveryTryIsASpan(t *testing.T) {
	recorder, on := traced(sdktrace.AlwaysSample())
	r := newRig(t, traffic.Settings{Timeout: 5 * time.Second}, on)
	var calls atomic.Int64
	r.serve(func(w http.ResponseWriter, req *http.Request) {
		if calls.Add(1) == 1 {
			panic(http.ErrAbortHandler) // ends the connection without a response
		}
		tellTrace(w, req)
	})
	seen, _ := send(t, r, clientParent, "")
	spansOf(t, recorder)
	var tries []string
	for _, s := range recorder.Ended() {
		if s.SpanKind() == trace.SpanKindClient {
			set := attribute.NewSet(s.Attributes()...)
			resent, _ := set.Value("http.request.resend_count")
			tries = append(tries, s.Status().Code.String()+" "+resent.Emit())
			if resent.AsInt64() == 1 && !strings.Contains(seen, s.SpanContext().SpanID().String()) {
				t.Errorf("the second instance saw %q", seen)
			}
		}
	}
	if len(tries) != 2 || !strings.HasPrefix(tries[0], "Error") || tries[1] != "Unset 1" {
		t.Errorf("tries: %q", tries)
	}
}

func TestRefusalsAreErrorsOfTheServerSpan(t *testing.T) {
	recorder, on := traced(sdktrace.AlwaysSample())
	r := newRig(t, traffic.Settings{}, on, activation(10*time.Millisecond))
	send(t, r, clientParent, "")
	server := spansOf(t, recorder)["server GET"]
	set := attribute.NewSet(server.Attributes()...)
	kind, _ := set.Value("error.type")
	status, _ := set.Value("http.response.status_code")
	if diff := cmp.Diff([]string{"NoInstance", "503", "Error"}, []string{kind.Emit(), status.Emit(), server.Status().Code.String()}); diff != "" {
		t.Errorf("the server span (-want +got):\n%s", diff)
	}
}
