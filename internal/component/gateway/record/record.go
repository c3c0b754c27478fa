// Package record keeps the numbers of every revision's requests, by Knative's and OpenTelemetry's names.
//
// A request is counted by a few atomic additions: the row it belongs to, that is the combination of its
// attributes, is nearly always the one of the request before. A client cannot make rows at will: methods
// and tags are taken from short lists, and a revision has a bounded number of rows.
package record

import (
	"cmp"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/telemetry/series"
)

// maxRows bounds the combinations of attributes of one revision; the rest shares one row.
const maxRows = 256

// Request is a request that is over.
type Request struct {
	Method  string // as the client wrote it
	Status  int
	Version int    // of HTTP, the major one
	TLS     bool   // the client's connection was encrypted
	Tag     string // kn.route.tag
	Reason  string // why the gateway answered itself, if it did

	Took     time.Duration // from arrival to the last byte
	Invoked  time.Duration // the part of it after a slot was found; 0 without one
	Sent     int64         // bytes of the response's body
	Received int64         // bytes of the request's body, below 0 if unknown
}

// key is what makes a row.
type key struct {
	method, tag, reason string
	status, version     int
	tls                 bool
}

// row counts the requests that are alike.
type row struct {
	key
	attrs                attribute.Set
	took, sent, received *series.Histogram
	invoked              *series.Histogram // shared by all rows with the status
}

// Revision has one revision's numbers.
type Revision struct {
	attrs attribute.Set
	last  atomic.Pointer[row] // nearly all requests are like the one before
	colds atomic.Int64
	waits *series.Histogram // of cold starts

	mu       sync.RWMutex // guards what follows
	rows     map[key]*row
	invoked  map[int]*invocation
	overflow *row
}

// invocation is the time instances took for responses of one status.
type invocation struct {
	attrs attribute.Set
	took  *series.Histogram
}

// NewRevision returns an empty record.
func NewRevision(name types.NamespacedName, labels traffic.Labels) *Revision {
	return &Revision{
		attrs: Attributes(name, labels.Service, labels.Configuration), waits: series.NewHistogram(startBuckets),
		rows: map[key]*row{}, invoked: map[int]*invocation{},
	}
}

// Attributes name a revision as Knative does.
func Attributes(name types.NamespacedName, service, configuration string) attribute.Set {
	return attribute.NewSet(
		attribute.String("k8s.namespace.name", name.Namespace),
		attribute.String("kn.service.name", service),
		attribute.String("kn.configuration.name", configuration),
		attribute.String("kn.revision.name", name.Name),
	)
}

// Observe counts a request.
func (r *Revision) Observe(q *Request) {
	k := key{q.Method, q.Tag, q.Reason, q.Status, q.Version, q.TLS}
	w := r.last.Load()
	if w == nil || w.key != k {
		w = r.row(k)
		r.last.Store(w)
	}
	w.took.Observe(int64(q.Took))
	w.sent.Observe(q.Sent)
	if q.Received >= 0 {
		w.received.Observe(q.Received)
	}
	if q.Invoked > 0 {
		w.invoked.Observe(int64(q.Invoked))
	}
}

// Cold counts a request that waited so long for an instance to start.
func (r *Revision) Cold(waited time.Duration) {
	r.colds.Add(1)
	r.waits.Observe(int64(waited))
}

// row finds or makes the row for a key.
func (r *Revision) row(k key) *row {
	k.method = method(k.method)
	r.mu.RLock()
	w := r.rows[k]
	r.mu.RUnlock()
	if w != nil {
		return w
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.rows[k] != nil:
		return r.rows[k]
	case len(r.rows) < maxRows:
		w = r.newRow(k, r.rowAttributes(k))
		r.rows[k] = w
		return w
	case r.overflow == nil:
		r.overflow = r.newRow(key{}, series.With(r.attrs, attribute.Bool("otel.metric.overflow", true)))
	}
	return r.overflow
}

// newRow makes a row. r.mu is held.
func (r *Revision) newRow(k key, attrs attribute.Set) *row {
	v := r.invoked[k.status]
	if v == nil {
		v = &invocation{series.With(r.attrs, statusCode(k.status)), series.NewHistogram(durationBuckets)}
		r.invoked[k.status] = v
	}
	return &row{
		key: k, attrs: attrs, invoked: v.took, took: series.NewHistogram(durationBuckets),
		sent: series.NewHistogram(sizeBuckets), received: series.NewHistogram(sizeBuckets),
	}
}

// rowAttributes are those of OpenTelemetry's HTTP conventions, and the revision's.
func (r *Revision) rowAttributes(k key) attribute.Set {
	version := "1.1"
	if k.version > 1 {
		version = strconv.Itoa(k.version)
	}
	more := []attribute.KeyValue{
		attribute.String("http.request.method", k.method), statusCode(k.status),
		attribute.String("network.protocol.name", "http"), attribute.String("network.protocol.version", version),
		attribute.String("url.scheme", scheme(k.tls)), attribute.String("kn.route.tag", k.tag),
	}
	if k.status >= http.StatusInternalServerError {
		more = append(more, attribute.String("error.type", cmp.Or(k.reason, strconv.Itoa(k.status))))
	}
	return series.With(r.attrs, more...)
}

func statusCode(status int) attribute.KeyValue {
	return attribute.Int("http.response.status_code", status)
}

func scheme(tls bool) string {
	if tls {
		return "https"
	}
	return "http"
}

// method is the method if it is one of RFC 9110 or RFC 5789, or what OpenTelemetry calls all others.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions, http.MethodTrace, http.MethodConnect:
		return m
	}
	return "_OTHER"
}
