package telemetry

import (
	"context"
	"log/slog"
)

// floor lets only records of a level or above through.
type floor struct {
	slog.Handler

	level slog.Level
}

// Floor returns h without the records below level.
func Floor(h slog.Handler, level slog.Level) slog.Handler { return floor{h, level} }

// Enabled implements slog.Handler.
func (f floor) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= f.level && f.Handler.Enabled(ctx, l)
}

// WithAttrs implements slog.Handler.
func (f floor) WithAttrs(attrs []slog.Attr) slog.Handler {
	return floor{f.Handler.WithAttrs(attrs), f.level}
}

// WithGroup implements slog.Handler.
func (f floor) WithGroup(name string) slog.Handler { return floor{f.Handler.WithGroup(name), f.level} }
