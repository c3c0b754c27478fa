package cluster

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"

	"k8s.io/klog/v2"
)

// calm lowers what Kubernetes and etcd say: their infos are detail here, and their errors nearly
// always announce another try. Once the cluster is stopping, parts that miss each other are no news.
type calm struct {
	slog.Handler
	stopping *atomic.Bool
}

func (c calm) level(l slog.Level) slog.Level {
	if l >= slog.LevelError && !c.stopping.Load() {
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

func (c calm) Enabled(ctx context.Context, l slog.Level) bool {
	return c.Handler.Enabled(ctx, c.level(l))
}

func (c calm) Handle(ctx context.Context, r slog.Record) error {
	r.Level = c.level(r.Level)
	if retried(r) {
		r.Level = slog.LevelDebug
	}
	if !c.Handler.Enabled(ctx, r.Level) { // errors come without being asked for
		return nil
	}
	return c.Handler.Handle(ctx, r)
}

// retried tells errors that a controller met in one try of many: conflicts, caches that are behind.
func retried(r slog.Record) bool {
	found := false
	r.Attrs(func(a slog.Attr) bool {
		found = a.Key == "logger" && strings.HasSuffix(a.Value.String(), "UnhandledError")
		return !found
	})
	return found
}

func (c calm) WithAttrs(attrs []slog.Attr) slog.Handler {
	return calm{c.Handler.WithAttrs(attrs), c.stopping}
}

func (c calm) WithGroup(name string) slog.Handler {
	return calm{c.Handler.WithGroup(name), c.stopping}
}

// calmLog is the logger for everything linked in; klog, which Kubernetes uses, writes to it too.
func calmLog(log *slog.Logger, stopping *atomic.Bool) *slog.Logger {
	quiet := slog.New(calm{log.Handler(), stopping})
	klog.SetSlogLogger(quiet)
	return quiet
}
