package record

import (
	"maps"
	"slices"

	"ebb.dev/ebb/internal/platform/telemetry/series"
)

// The instruments, with Knative's and OpenTelemetry's names, units and buckets.
var (
	invocationDuration = &series.Instrument{
		Name: "kn.serving.invocation.duration", Unit: "s", Description: "Time an instance took for a request, from dispatch to the last byte.",
	}
	queueDepth = &series.Instrument{
		Name: "kn.serving.queue.depth", Unit: "{request}", Description: "Requests waiting and in flight of a revision with a containerConcurrency.",
	}
	requestConcurrency = &series.Instrument{
		Name: "kn.revision.request.concurrency", Unit: "{request}", Description: "Requests in flight, waiting ones included.",
	}
	requestQueued = &series.Instrument{
		Name: "kn.revision.request.queued", Unit: "{request}", Kind: series.UpDown, Description: "Requests that wait for an instance.",
	}
	requestActive = &series.Instrument{
		Name: "kn.revision.request.active", Unit: "{request}", Kind: series.UpDown, Description: "Requests that instances have.",
	}
	serverDuration = &series.Instrument{
		Name: "http.server.request.duration", Unit: "s", Description: "Time from a request's arrival to its last byte, waiting included.",
	}
	serverRequestSize = &series.Instrument{
		Name: "http.server.request.body.size", Unit: "By", Description: "Size of request bodies, where it is known.",
	}
	serverResponseSize = &series.Instrument{
		Name: "http.server.response.body.size", Unit: "By", Description: "Size of response bodies.",
	}
	coldStarts = &series.Instrument{
		Name: "faas.coldstarts", Unit: "{coldstart}", Kind: series.Counter, Description: "Requests that waited for an instance to start.",
	}
	initDuration = &series.Instrument{
		Name: "faas.init_duration", Unit: "s", Description: "Time such a request waited.",
	}

	durationBuckets = series.Seconds(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
	startBuckets    = durationBuckets
	sizeBuckets     = series.Whole(0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000)
)

// Load is what a revision carries at this moment.
type Load struct {
	Queued   int64 // requests that wait
	InFlight int64 // requests that wait or run
	Bounded  bool  // instances take a limited number at once
}

// Tell gives what a side-car tells in Knative.
func (r *Revision) Tell(b *series.Batch, l Load) {
	if l.Bounded {
		b.Int(queueDepth, r.attrs, l.InFlight)
	}
	r.mu.RLock()
	rows := slices.Collect(maps.Values(r.rows))
	invoked := slices.Collect(maps.Values(r.invoked))
	if r.overflow != nil {
		rows = append(rows, r.overflow)
	}
	r.mu.RUnlock()
	for _, v := range invoked {
		if !v.took.Empty() {
			b.Histogram(invocationDuration, v.attrs, v.took)
		}
	}
	for _, w := range rows {
		b.Histogram(serverDuration, w.attrs, w.took)
		b.Histogram(serverResponseSize, w.attrs, w.sent)
		if !w.received.Empty() {
			b.Histogram(serverRequestSize, w.attrs, w.received)
		}
	}
	if n := r.colds.Load(); n > 0 {
		b.Int(coldStarts, r.attrs, n)
		b.Histogram(initDuration, r.attrs, r.waits)
	}
}

// TellLoad gives what the activator tells in Knative.
func (r *Revision) TellLoad(b *series.Batch, l Load) {
	b.Float(requestConcurrency, r.attrs, float64(l.InFlight))
	b.Int(requestQueued, r.attrs, l.Queued)
	b.Int(requestActive, r.attrs, max(0, l.InFlight-l.Queued))
}
