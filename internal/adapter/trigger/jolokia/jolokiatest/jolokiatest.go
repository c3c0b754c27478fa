// Package jolokiatest answers as a broker's Jolokia agent does.
package jolokiatest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// An Agent knows one attribute of one object, and tells it to the user "ebb" with the password
// "hunter2".
type Agent struct {
	*httptest.Server
	// Origin is who asked last, by the header of that name.
	Origin atomic.Value

	path  string
	value atomic.Int64
}

// New returns an agent that is not started yet. path leads to the attribute.
func New(t testing.TB, path string) *Agent {
	t.Helper()
	a := &Agent{path: path}
	a.Server = httptest.NewUnstartedServer(http.HandlerFunc(a.serve))
	t.Cleanup(a.Close)
	return a
}

// Host returns the agent's host and port.
func (a *Agent) Host() string { return a.Listener.Addr().String() }

// Set sets the attribute.
func (a *Agent) Set(_ *testing.T, n int) { a.value.Store(int64(n)) }

func (a *Agent) serve(w http.ResponseWriter, r *http.Request) {
	origin := r.Header.Get("Origin")
	a.Origin.Store(origin)
	user, password, _ := r.BasicAuth()
	path, err := url.PathUnescape(r.URL.EscapedPath())
	answer := map[string]any{"timestamp": 1700000000, "status": http.StatusOK, "value": a.value.Load()}
	switch {
	case user != "ebb" || password != "hunter2":
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte("<html>who are you?</html>"))
		return
	case !strings.HasPrefix(origin, "http"): // an agent with strict checking refuses others
		w.WriteHeader(http.StatusForbidden)
		answer = map[string]any{"status": http.StatusForbidden, "error": "Origin is not allowed"}
	case err != nil || path != a.path: // all went well as far as HTTP is concerned
		answer = map[string]any{"status": http.StatusNotFound, "error_type": "javax.management.InstanceNotFoundException"}
	}
	w.Header().Set("Content-Type", "text/plain;charset=utf-8")
	_ = json.NewEncoder(w).Encode(answer)
	_, _ = w.Write([]byte("\n<!-- what a proxy adds -->"))
}
