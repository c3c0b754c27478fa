// Package exporttest is an OTLP collector in memory: real servers for gRPC and HTTP that keep what they
// are sent.
package exporttest

import (
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// Collector keeps what it is sent.
type Collector struct {
	metricspb.UnimplementedMetricsServiceServer

	// GRPC and HTTP are the endpoints, as URLs.
	GRPC, HTTP string

	mu      sync.Mutex // guards all below
	metrics map[string]*metrics.Metric
	spans   []*trace.Span
	paths   []string
	changed chan struct{}
}

// spanService is the other service; its method has the same name.
type spanService struct {
	tracepb.UnimplementedTraceServiceServer

	c *Collector
}

// New serves until the test ends.
func New(t testing.TB) *Collector {
	t.Helper()
	c := &Collector{metrics: map[string]*metrics.Metric{}, changed: make(chan struct{})}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	metricspb.RegisterMetricsServiceServer(server, c)
	tracepb.RegisterTraceServiceServer(server, spanService{c: c})
	go func() { _ = server.Serve(l) }() // ends with Stop
	t.Cleanup(server.Stop)
	c.GRPC = "http://" + l.Addr().String()
	plain := httptest.NewServer(c)
	t.Cleanup(plain.Close)
	c.HTTP = plain.URL
	return c
}

// Export implements OTLP's service for metrics.
func (c *Collector) Export(_ context.Context, r *metricspb.ExportMetricsServiceRequest) (*metricspb.ExportMetricsServiceResponse, error) {
	c.keep(r, nil, "grpc")
	return &metricspb.ExportMetricsServiceResponse{}, nil
}

// Export implements OTLP's service for traces.
func (s spanService) Export(_ context.Context, r *tracepb.ExportTraceServiceRequest) (*tracepb.ExportTraceServiceResponse, error) {
	s.c.keep(nil, r, "grpc")
	return &tracepb.ExportTraceServiceResponse{}, nil
}

// ServeHTTP implements OTLP by HTTP; what is asked for is told by the path's end.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = unzipped
	}
	data, err := io.ReadAll(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	m, s := &metricspb.ExportMetricsServiceRequest{}, &tracepb.ExportTraceServiceRequest{}
	if r.URL.Path == "/v1/traces" {
		m, err = nil, proto.Unmarshal(data, s)
	} else {
		s, err = nil, proto.Unmarshal(data, m)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.keep(m, s, r.URL.Path)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func (c *Collector) keep(m *metricspb.ExportMetricsServiceRequest, s *tracepb.ExportTraceServiceRequest, path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paths = append(c.paths, path)
	for _, resource := range m.GetResourceMetrics() {
		for _, scope := range resource.GetScopeMetrics() {
			for _, one := range scope.GetMetrics() {
				c.metrics[one.GetName()] = one
			}
		}
	}
	for _, resource := range s.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// Await returns once done says so of what was sent: the latest of each metric by name, all spans, and the
// path or protocol of every delivery.
func (c *Collector) Await(t testing.TB, what string, done func(m map[string]*metrics.Metric, spans []*trace.Span, paths []string) bool) {
	t.Helper()
	for {
		c.mu.Lock()
		ok, changed := done(c.metrics, c.spans, c.paths), c.changed
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatalf("waiting for %s: the test ended", what)
		}
	}
}
