package gateway

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// spans are a call's, from the gateway's side:
//
//	GET (server) ┬─ queue ── decide, replicas, bound, … dispatch, of a cold start
//	             └─ GET (client), one for each instance that was tried
//
// They are made only while traces are on. The instance then sees the client span as its parent, also
// where nothing is recorded, so that it follows the same decision.
type spans struct {
	tracer trace.Tracer
	ctx    context.Context // of the server span
	server trace.Span
	client trace.Span // of the present try
	tries  int
	stages []stageTime
}

// stageTime is one step of a cold start.
type stageTime struct {
	name     string
	from, to time.Time
}

// traceContext is W3C's header.
var traceContext = propagation.TraceContext{}

// startTrace begins the call's server span; without traces the client's header is passed on as it is.
func (c *call) startTrace() {
	if c.g.config.Tracer == nil {
		return
	}
	tracer := c.g.config.Tracer()
	if tracer == nil {
		return
	}
	s := &spans{tracer: tracer}
	parent := traceContext.Extract(c.r.Context(), propagation.HeaderCarrier(c.r.Header))
	s.ctx, s.server = tracer.Start(parent, spanName(c.r), trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(c.arrived))
	if s.server.IsRecording() {
		s.server.SetAttributes(c.serverAttributes()...)
	}
	c.spans = s
}

// spanName is the method, as OpenTelemetry has it where no route is known.
func spanName(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions, http.MethodTrace:
		return r.Method
	}
	return "HTTP"
}

// serverAttributes are known before the request is sent. Queries are left out: they may hold secrets.
func (c *call) serverAttributes() []attribute.KeyValue {
	r := c.r
	scheme, port := "http", 80
	if r.TLS != nil {
		scheme, port = "https", 443
	}
	host, text, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	} else if n, err := strconv.Atoi(text); err == nil {
		port = n
	}
	labels := c.settings.Labels
	out := []attribute.KeyValue{
		attribute.String("http.request.method", r.Method), attribute.String("url.scheme", scheme),
		attribute.String("url.path", r.URL.Path), attribute.String("server.address", host), attribute.Int("server.port", port),
		attribute.String("network.protocol.version", protocolVersion(r)), attribute.String("client.address", peerAddress(r.RemoteAddr)),
		attribute.String("k8s.namespace.name", c.rev.name.Namespace), attribute.String("kn.service.name", labels.Service),
		attribute.String("kn.configuration.name", labels.Configuration), attribute.String("kn.revision.name", c.rev.name.Name),
		attribute.String("kn.route.name", c.rule.Route.Name), attribute.String("kn.route.tag", c.routeTag()),
	}
	if agent := r.UserAgent(); agent != "" {
		out = append(out, attribute.String("user_agent.original", agent))
	}
	return out
}

// protocolVersion is HTTP's as OpenTelemetry writes it.
func protocolVersion(r *http.Request) string {
	if r.ProtoMajor > 1 {
		return strconv.Itoa(r.ProtoMajor)
	}
	return "1." + strconv.Itoa(r.ProtoMinor)
}

// startTry begins the client span of a try and names it to the instance.
func (c *call) startTry() {
	s := c.spans
	if s == nil {
		return
	}
	ctx, span := s.tracer.Start(s.ctx, spanName(c.r), trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(c.granted))
	s.client = span
	if span.IsRecording() {
		to := c.target()
		to.RawQuery, to.ForceQuery = "", false
		span.SetAttributes(
			attribute.String("http.request.method", c.r.Method), attribute.String("url.full", to.String()),
			attribute.String("server.address", c.slot.Address.Addr().String()), attribute.Int("server.port", int(c.slot.Address.Port())),
			attribute.String("k8s.pod.name", c.slot.Pod),
		)
		if s.tries > 0 {
			span.SetAttributes(attribute.Int("http.request.resend_count", s.tries))
		}
	}
	if s.tries > 0 {
		c.r.Header = c.r.Header.Clone() // HTTP/2 may still be reading the last try's
	}
	s.tries++
	c.r.Header.Del("Tracestate") // one that came without a trace says nothing about ours
	traceContext.Inject(ctx, propagation.HeaderCarrier(c.r.Header))
}

// endTry ends it; again says that the instance did not answer.
func (c *call) endTry(v verdict) {
	s := c.spans
	if s == nil || s.client == nil {
		return
	}
	switch {
	case v == again:
		s.client.SetStatus(codes.Error, "the instance did not take the request")
		s.client.SetAttributes(attribute.String("error.type", "_OTHER"))
	case c.reason != "":
		s.client.SetStatus(codes.Error, c.reason)
		s.client.SetAttributes(attribute.String("error.type", c.reason))
	case c.status == statusClientGone:
	default:
		s.client.SetAttributes(attribute.Int("http.response.status_code", c.status))
		if c.status >= http.StatusBadRequest {
			s.client.SetStatus(codes.Error, "")
			s.client.SetAttributes(attribute.String("error.type", strconv.Itoa(c.status)))
		}
	}
	s.client.End()
	s.client = nil
}

// addStage keeps a step of a cold start for the trace.
func (c *call) addStage(name string, from, to time.Time) {
	if c.spans != nil {
		c.spans.stages = append(c.spans.stages, stageTime{name, from, to})
	}
}

// endTrace ends the server span.
func (c *call) endTrace(now time.Time) {
	s := c.spans
	if s == nil {
		return
	}
	c.endTry(over) // a response that broke off
	if s.server.IsRecording() {
		c.traceQueue(s, now)
		s.server.SetAttributes(
			attribute.Bool("faas.coldstart", c.entry.Cold), attribute.Int64("http.response.body.size", c.sent),
		)
		if c.status != statusClientGone {
			s.server.SetAttributes(attribute.Int("http.response.status_code", c.status))
		}
		if c.status >= http.StatusInternalServerError {
			kind := c.reason
			if kind == "" {
				kind = strconv.Itoa(c.status)
			}
			s.server.SetStatus(codes.Error, c.reason)
			s.server.SetAttributes(attribute.String("error.type", kind))
		}
	}
	s.server.End(trace.WithTimestamp(now))
	c.spans = nil
}

// traceQueue tells the wait for a slot, and what was done meanwhile to start an instance.
func (c *call) traceQueue(s *spans, now time.Time) {
	if c.entry.Waited == 0 {
		return
	}
	end := now
	if !c.granted.IsZero() {
		end = c.granted
	}
	ctx, queue := s.tracer.Start(s.ctx, stageQueue, trace.WithTimestamp(c.arrived))
	for _, stage := range s.stages {
		_, span := s.tracer.Start(ctx, stage.name, trace.WithTimestamp(stage.from))
		span.End(trace.WithTimestamp(stage.to))
	}
	queue.End(trace.WithTimestamp(end))
}
