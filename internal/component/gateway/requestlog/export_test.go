package requestlog

import "log/slog"

// NewSmallShelf is a Shelf whose file gives way sooner.
func NewSmallShelf(path string, size int64) *Shelf {
	s := NewShelf(path, slog.New(slog.DiscardHandler))
	s.size = size
	return s
}
