// Package requestlog writes a line for every request that is over, in the user's words or as JSON.
//
//	request ─► Add ─► a bounded buffer ─► Run: format ─► Out
//	                   │ full
//	                   ▼
//	                dropped, and counted
//
// Add never waits. While the log is off it is one atomic read away from costing nothing.
package requestlog

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"text/template"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"knative.dev/networking/pkg/http/header"
)

// buffered is how many requests may wait to be written.
const buffered = 4096

// Input is what a template sees. Its shape is upstream's.
type Input struct {
	Request  *http.Request
	Response *Response
	Revision *Revision
	// TraceID is of the W3C or B3 header, if the request had one.
	TraceID string

	at time.Time
}

// Response is how a request was answered.
type Response struct {
	// Code is the status.
	Code int
	// Size is of the body, in bytes.
	Size int
	// Latency is the time from arrival to the last byte, in seconds.
	Latency float64
}

// Revision is what answered.
type Revision struct {
	Name, Namespace, Service, Configuration string
	// PodName and PodIP are of the instance; empty if the request got none.
	PodName, PodIP string
}

// A Line is one request's, without the end of line.
type Line struct {
	Namespace, Service string
	Text               []byte
}

// Settings say what is logged, and how.
type Settings struct {
	// On has requests logged at all.
	On bool
	// Probes has probes logged, too.
	Probes bool
	// Template is text/template's, for an Input; empty for JSON.
	Template string
}

// Log takes requests. Its methods may be called from many goroutines.
type Log struct {
	out     func(Line)
	format  atomic.Pointer[format] // nil while the log is off
	waiting chan *Input
	dropped prometheus.Counter
}

// format is how lines are made.
type format struct {
	probes   bool
	template *template.Template // nil for JSON
}

// New returns a log that is off; out gets the lines, one at a time, and may take its time.
func New(out func(Line), r prometheus.Registerer) *Log {
	l := &Log{out: out, waiting: make(chan *Input, buffered), dropped: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ebb_gateway_request_log_dropped_total",
		Help: "Requests that are missing in the request log because it could not be written as fast as they came.",
	})}
	if r != nil {
		r.MustRegister(l.dropped)
	}
	return l
}

// Set changes what is logged from now on.
func (l *Log) Set(s Settings) error {
	if !s.On {
		l.format.Store(nil)
		return nil
	}
	f := &format{probes: s.Probes}
	if s.Template != "" {
		var err error
		if f.template, err = template.New("requestLog").Parse(s.Template); err != nil {
			return fmt.Errorf("reading the template of the request log: %w", err)
		}
	}
	l.format.Store(f)
	return nil
}

// Wants says whether a request with that header is to be added.
func (l *Log) Wants(h http.Header) bool {
	if l == nil {
		return false
	}
	f := l.format.Load()
	return f != nil && (f.probes || !header.IsProbe(&http.Request{Header: h}))
}

// Add has a request written that is over: nobody may change what in points to any more.
func (l *Log) Add(in *Input) {
	in.at = time.Now()
	select {
	case l.waiting <- in:
	default:
		l.dropped.Inc()
	}
}

// Run writes until ctx ends, then what is there.
func (l *Log) Run(ctx context.Context) error {
	for {
		select {
		case in := <-l.waiting:
			l.write(in)
		case <-ctx.Done():
			for {
				select {
				case in := <-l.waiting:
					l.write(in)
				default:
					return nil
				}
			}
		}
	}
}

func (l *Log) write(in *Input) {
	f := l.format.Load()
	if f == nil {
		return // turned off meanwhile
	}
	l.out(Line{in.Revision.Namespace, in.Revision.Service, f.text(in)})
}

// text is the request in the format's words. A template may ask for what is not there; the line then
// says so, as upstream's does.
func (f *format) text(in *Input) []byte {
	if f.template == nil {
		return structured(in)
	}
	var b bytes.Buffer
	if err := f.template.Execute(&b, in); err != nil {
		return fmt.Appendf(nil, "Invalid request log template: method: %v, response code: %v, latency: %v, url: %v",
			in.Request.Method, in.Response.Code, in.Response.Latency, in.Request.URL)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
