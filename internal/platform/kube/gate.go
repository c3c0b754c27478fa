package kube

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// A Gate lets work that nobody waits for give way to starts that somebody does. Its zero value is
// open.
type Gate struct {
	// Changed, if set before use, is told when the gate closes and opens. It must not block.
	Changed func(busy bool)

	mu     sync.Mutex // guards what follows
	starts map[types.NamespacedName]*time.Timer
	opened chan struct{} // closed when the last start ends; nil while open
}

// Begin closes the gate until End is called for the same key, or the time is over.
func (g *Gate) Begin(key types.NamespacedName, atMost time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.starts == nil {
		g.starts = map[types.NamespacedName]*time.Timer{}
	}
	if g.starts[key] != nil {
		return
	}
	if len(g.starts) == 0 {
		g.opened = make(chan struct{})
		g.tell(true)
	}
	g.starts[key] = time.AfterFunc(atMost, func() { g.End(key) })
}

// End tells that a start has ended; one that did not begin changes nothing.
func (g *Gate) End(key types.NamespacedName) {
	g.mu.Lock()
	defer g.mu.Unlock()
	timer := g.starts[key]
	if timer == nil {
		return
	}
	timer.Stop()
	delete(g.starts, key)
	if len(g.starts) == 0 {
		close(g.opened)
		g.opened = nil
		g.tell(false)
	}
}

func (g *Gate) tell(busy bool) {
	if g.Changed != nil {
		g.Changed(busy)
	}
}

// Busy tells whether the gate is closed.
func (g *Gate) Busy() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opened != nil
}

// Wait returns when the gate is open, ctx ends, or the time is over.
func (g *Gate) Wait(ctx context.Context, atMost time.Duration) {
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	if opened == nil {
		return
	}
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-opened:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// eventPatience bounds how long an event waits for starts to end.
const eventPatience = 3 * time.Second

// HoldEvents wraps a transport so that Events are written when the gate is open. Nothing in the
// cluster reads them; people do, later.
func (g *Gate) HoldEvents(next http.RoundTripper) http.RoundTripper {
	return held{g, next}
}

type held struct {
	gate *Gate
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (h held) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/events") || r.Method == http.MethodPatch && strings.Contains(r.URL.Path, "/events/") {
		h.gate.Wait(r.Context(), eventPatience)
	}
	return h.next.RoundTrip(r)
}

// WrappedRoundTripper shows the transport below, as client-go's helpers expect.
func (h held) WrappedRoundTripper() http.RoundTripper { return h.next }
