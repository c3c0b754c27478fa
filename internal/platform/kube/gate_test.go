package kube

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

func TestGate(t *testing.T) {
	one, two := types.NamespacedName{Name: "one"}, types.NamespacedName{Name: "two"}
	for name, c := range map[string]struct {
		script func(*Gate)
		want   time.Duration // that a wait of at most a minute takes
	}{
		"open at first":                   {func(*Gate) {}, 0},
		"until the start ends":            {func(g *Gate) { g.Begin(one, time.Hour); time.AfterFunc(time.Second, func() { g.End(one) }) }, time.Second},
		"until the last of two ends":      {func(g *Gate) { g.Begin(one, time.Second); g.Begin(two, 2*time.Second) }, 2 * time.Second},
		"no longer than a start may take": {func(g *Gate) { g.Begin(one, time.Second) }, time.Second},
		"no longer than the waiter wants": {func(g *Gate) { g.Begin(one, time.Hour) }, time.Minute},
		"a second begin adds no time":     {func(g *Gate) { g.Begin(one, time.Second); g.Begin(one, time.Hour) }, time.Second},
		"an end without a begin":          {func(g *Gate) { g.End(two); g.Begin(one, time.Second); g.End(one); g.End(one) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &Gate{}
				c.script(g)
				began := time.Now()
				g.Wait(t.Context(), time.Minute)
				if took := time.Since(began); took != c.want {
					t.Errorf("waited %s, want %s", took, c.want)
				}
				g.End(one)
			})
		})
	}
}

func TestGateTellsItsChanges(t *testing.T) {
	var told []bool
	g := &Gate{Changed: func(busy bool) { told = append(told, busy) }}
	for _, name := range []string{"one", "two", "one"} {
		g.Begin(types.NamespacedName{Name: name}, time.Hour)
	}
	busy := g.Busy()
	g.End(types.NamespacedName{Name: "one"})
	g.End(types.NamespacedName{Name: "two"})
	if want := []bool{true, false}; !busy || g.Busy() || !slices.Equal(told, want) {
		t.Errorf("told %v, want %v; busy %v, then %v", told, want, busy, g.Busy())
	}
}

func TestOnlyEventsAreHeld(t *testing.T) {
	for _, c := range []struct {
		method, path string
		held         bool
	}{
		{http.MethodPost, "/api/v1/namespaces/default/events", true},
		{http.MethodPatch, "/apis/events.k8s.io/v1/namespaces/default/events/x", true},
		{http.MethodPost, "/api/v1/namespaces/default/pods", false},
		{http.MethodGet, "/api/v1/events", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := &Gate{}
			g.Begin(types.NamespacedName{Name: "one"}, time.Second)
			next := roundTripper(func(*http.Request) (*http.Response, error) { return nil, http.ErrUseLastResponse })
			began := time.Now()
			_, _ = g.HoldEvents(next).RoundTrip(httptest.NewRequest(c.method, c.path, http.NoBody))
			if held := time.Since(began) > 0; held != c.held {
				t.Errorf("%s %s held = %v, want %v", c.method, c.path, held, c.held)
			}
			g.End(types.NamespacedName{Name: "one"})
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
