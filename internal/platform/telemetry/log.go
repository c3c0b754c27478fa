// Package telemetry sets up what ebb says about itself: one structured log, also for the libraries
// linked in, and one metrics registry.
package telemetry

import (
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

// NewLogger writes text lines; verbose adds debug lines.
func NewLogger(w io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: shortTime}))
}

// shortTime keeps milliseconds and drops the zone's noise.
func shortTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		a.Value = slog.StringValue(a.Value.Time().Format(time.StampMilli))
	}
	return a
}

// repeatAfter is how long an error that is told again and again stays untold.
const repeatAfter = time.Minute

// repeated tells what goes wrong when metrics and traces are sent, once a minute: a collector that is
// away is met at every batch.
type repeated struct {
	log *slog.Logger

	mu   sync.Mutex // guards last
	last time.Time
}

// Handle implements otel.ErrorHandler.
func (r *repeated) Handle(err error) {
	r.mu.Lock()
	told := time.Since(r.last) < repeatAfter
	if !told {
		r.last = time.Now()
	}
	r.mu.Unlock()
	if !told {
		r.log.Warn("sending metrics or traces", "error", err)
	}
}

// AdoptLibraries sends the logs of Kubernetes' libraries and of controller-runtime to ours, their
// chatter only when verbose: what they call information is written for their own developers.
func AdoptLibraries(log *slog.Logger, verbose bool) {
	handler := log.Handler()
	if !verbose {
		handler = floor{handler, slog.LevelWarn}
	}
	quiet := logr.FromSlogHandler(handler)
	klog.SetLoggerWithOptions(quiet, klog.ContextualLogger(true))
	ctrllog.SetLogger(quiet)
	otel.SetLogger(quiet)
	otel.SetErrorHandler(&repeated{log: log})
}
