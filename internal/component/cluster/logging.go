package cluster

import (
	"context"
	"log/slog"

	"k8s.io/klog/v2"
)

// redirectLogs sends what Kubernetes writes with klog to log. Its infos are detail here, and its
// errors mostly say that something will be tried again.
func redirectLogs(log *slog.Logger) {
	klog.SetSlogLogger(slog.New(quieter{log.Handler()}).With("part", "kubernetes"))
}

// quieter lowers every record by one step.
type quieter struct{ slog.Handler }

const step = slog.LevelError - slog.LevelWarn

func (q quieter) Enabled(ctx context.Context, l slog.Level) bool {
	return q.Handler.Enabled(ctx, l-step)
}

func (q quieter) Handle(ctx context.Context, r slog.Record) error {
	r.Level -= step
	return q.Handler.Handle(ctx, r)
}

func (q quieter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quieter{q.Handler.WithAttrs(attrs)}
}

func (q quieter) WithGroup(name string) slog.Handler { return quieter{q.Handler.WithGroup(name)} }
