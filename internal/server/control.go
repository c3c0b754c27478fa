package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"ebb.dev/ebb/internal/platform/config"
)

// RevisionState is what ebb knows about a revision's scaling beyond the API.
type RevisionState struct {
	Wish   int32  `json:"wish"`
	Reason string `json:"reason"`
	// ColdStart is the last one's breakdown, empty before the first.
	ColdStart string `json:"coldStart,omitempty"`
}

// controlName is the socket that answers questions of the command line about a running ebb: only the
// data folder's owner can open it.
const controlName = "control.sock"

// atControl calls fn with a path of the control socket that is short however long the folder's is,
// since the kernel bounds a socket's name. The path holds as long as fn runs.
func atControl[T any](folder config.Folder, fn func(path string) (T, error)) (T, error) {
	var none T
	dir, err := os.Open(string(folder))
	if err != nil {
		return none, fmt.Errorf("opening data folder: %w", err)
	}
	defer func() { _ = dir.Close() }()
	return fn(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), controlName))
}

// startControl serves /scaling/<namespace>, /metrics, /requests and /debug/pprof on the control socket.
func (s *Server) startControl(ctx context.Context) error {
	name := filepath.Join(string(s.folder), controlName)
	remove := func() error {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the control socket: %w", err)
		}
		return nil
	}
	if err := remove(); err != nil {
		return err
	}
	listener, err := atControl(s.folder, func(path string) (net.Listener, error) {
		l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
		if unixListener, ok := l.(*net.UnixListener); ok {
			unixListener.SetUnlinkOnClose(false) // it would go by a path that is void then
		}
		return l, err
	})
	if err != nil {
		return fmt.Errorf("opening the control socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.observed.exporter.Handler())
	mux.HandleFunc("GET /requests", s.showRequests)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /scaling/{namespace}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(s.scaling(r.PathValue("namespace"))); err != nil {
			s.log.Debug("answering on the control socket", "error", err)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	s.onStop("control socket", func(ctx context.Context) error { return errors.Join(server.Shutdown(ctx), remove()) })
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.fail(fmt.Errorf("serving the control socket: %w", err))
		}
	}()
	return nil
}

// scaling gathers the state of a namespace's revisions that the gateway knows.
func (s *Server) scaling(namespace string) map[string]RevisionState {
	out := map[string]RevisionState{}
	for _, rev := range s.autoscaler.Revisions() {
		state, known := s.autoscaler.State(rev)
		if !known || rev.Namespace != namespace {
			continue
		}
		shown := RevisionState{Wish: state.Want, Reason: state.Message}
		if cold, happened := s.gateway.LastColdStart(rev); happened {
			shown.ColdStart = fmt.Sprintf("%.0f ms (%s), %s", float64(cold.Took.Microseconds())/1000, cold.Stages, cold.At.Format(time.TimeOnly))
		}
		out[rev.Name] = shown
	}
	return out
}

// controlClient asks on the control socket.
func controlClient(folder config.Folder) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return atControl(folder, func(path string) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "unix", path) })
		},
	}}
}

// ReadRequests opens the request log of a running ebb; values are those of the control socket's
// /requests. The caller closes it.
func ReadRequests(ctx context.Context, folder config.Folder, values url.Values) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://ebb/requests?"+values.Encode(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("asking ebb for requests: %w", err)
	}
	res, err := controlClient(folder).Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking ebb for requests: %w; `ebb status` tells whether one runs here", err)
	}
	return res.Body, nil
}

// ReadScaling asks a running ebb about a namespace's revisions by name; none where none runs.
func ReadScaling(ctx context.Context, folder config.Folder, namespace string) (map[string]RevisionState, error) {
	client := controlClient(folder)
	client.Timeout = 5 * time.Second
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://ebb/scaling/"+namespace, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("asking ebb about scaling: %w", err)
	}
	res, err := client.Do(req)
	if err != nil {
		return map[string]RevisionState{}, nil // not running here, or not by us: the API's answer stands alone
	}
	defer func() { _ = res.Body.Close() }()
	out := map[string]RevisionState{}
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return nil, fmt.Errorf("reading ebb's answer about scaling: %w", err)
	}
	return out, nil
}
