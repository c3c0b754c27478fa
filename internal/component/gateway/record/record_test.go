package record_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/gateway/record"
	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/telemetry/series"
	"ebb.dev/ebb/internal/platform/telemetry/series/seriestest"
)

var hello = types.NamespacedName{Namespace: "default", Name: "hello-00001"}

const names = "k8s.namespace.name=default,kn.configuration.name=hello,kn.revision.name=hello-00001"

// told is what a revision tells while it carries the load.
func told(t *testing.T, r *record.Revision, l record.Load) map[string]float64 {
	var g series.Group
	g.Add("test", func(b *series.Batch) { r.Tell(b, l); r.TellLoad(b, l) })
	return seriestest.Read(t, &g)
}

func TestRequestsAreCountedByTheirAttributes(t *testing.T) {
	r := record.NewRevision(hello, traffic.Labels{Service: "hello", Configuration: "hello"})
	get := record.Request{Method: "GET", Status: 200, Version: 1, Tag: "kn:disabled", Took: time.Second, Invoked: time.Millisecond, Sent: 10}
	r.Observe(&get)
	r.Observe(&get)
	r.Observe(&record.Request{Method: "BREW", Status: 503, Version: 2, TLS: true, Tag: "next", Reason: "QueueFull", Took: time.Second, Received: -1})
	r.Cold(time.Second)
	want := map[string]float64{
		"faas.coldstarts{" + names + ",kn.service.name=hello}":                                              1,
		"faas.init_duration{" + names + ",kn.service.name=hello}":                                           1,
		"kn.serving.invocation.duration{http.response.status_code=200," + names + ",kn.service.name=hello}": 2,
		"kn.serving.queue.depth{" + names + ",kn.service.name=hello}":                                       5,
		"kn.revision.request.concurrency{" + names + ",kn.service.name=hello}":                              5,
		"kn.revision.request.queued{" + names + ",kn.service.name=hello}":                                   2,
		"kn.revision.request.active{" + names + ",kn.service.name=hello}":                                   3,
	}
	warm := "{http.request.method=GET,http.response.status_code=200," + names +
		",kn.route.tag=kn:disabled,kn.service.name=hello,network.protocol.name=http,network.protocol.version=1.1,url.scheme=http}"
	refused := "{error.type=QueueFull,http.request.method=_OTHER,http.response.status_code=503," + names +
		",kn.route.tag=next,kn.service.name=hello,network.protocol.name=http,network.protocol.version=2,url.scheme=https}"
	want["http.server.request.duration"+warm] = 2
	want["http.server.request.body.size"+warm] = 2
	want["http.server.response.body.size"+warm] = 2
	want["http.server.request.duration"+refused] = 1
	want["http.server.response.body.size"+refused] = 1
	if diff := cmp.Diff(want, told(t, r, record.Load{Queued: 2, InFlight: 5, Bounded: true})); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestClientsCannotMakeRowsWithoutEnd(t *testing.T) {
	r := record.NewRevision(hello, traffic.Labels{})
	const requests = 1000
	for i := range requests {
		r.Observe(&record.Request{Method: fmt.Sprint("M", i), Status: 200, Version: 1, Tag: "kn:disabled"})
	}
	rows := func() (n int, sum float64) {
		for name, count := range told(t, r, record.Load{}) {
			if strings.HasPrefix(name, "http.server.request.duration") {
				n++
				sum += count
			}
		}
		return n, sum
	}
	if n, sum := rows(); n != 1 || sum != requests {
		t.Errorf("%d rows with %v requests for made-up methods, want one", n, sum)
	}
	for i := range requests {
		r.Observe(&record.Request{Method: "GET", Status: 200, Version: 1, Tag: fmt.Sprint("tag-", i)})
	}
	if n, sum := rows(); n != 257 || sum != 2*requests {
		t.Errorf("%d rows with %v requests, want 256 and one for the rest", n, sum)
	}
}

func BenchmarkObserve(b *testing.B) {
	r := record.NewRevision(hello, traffic.Labels{})
	q := record.Request{Method: "GET", Status: 200, Version: 1, Tag: "kn:disabled", Took: 3 * time.Millisecond, Invoked: 2 * time.Millisecond, Sent: 12}
	b.ReportAllocs()
	for b.Loop() {
		r.Observe(&q)
	}
}
