package server

import (
	"bytes"
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

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/jobs"
	"ebb.dev/ebb/internal/component/scaler"
	"ebb.dev/ebb/internal/domain/recording"
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

// startControl serves /scaling/<namespace>, /explain/<kind>/<namespace>/<name>, /preview, /replay, /metrics, /requests and /debug/pprof on the control socket.
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
	mux.HandleFunc("GET /explain/{kind}/{namespace}/{name}", s.showAccount)
	mux.HandleFunc("POST /preview", s.showPreview)
	mux.HandleFunc("POST /replay", s.showReplay)
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

// A ScaledAccount says why a ScaledObject's target has the replicas it has.
type ScaledAccount = scaler.Account

// A JobsAccount says why a ScaledJob has the Jobs it has.
type JobsAccount = jobs.Account

// A Preview asks what would be decided for an object. Values take the place of what its triggers say, by
// name of metric or trigger.
type Preview struct {
	Object *kedav1alpha1.ScaledObject `json:"object"`
	Values map[string]float64         `json:"values,omitempty"`
}

// A Recorded object is one to be replayed: what would have been decided for it over the time of a recording.
type Recorded struct {
	Object  *kedav1alpha1.ScaledObject `json:"object"`
	Samples []recording.Sample         `json:"samples"`
}

// A Replay is what would have come of a recording.
type Replay = scaler.Replay

// largestPreview and largestReplay bound what is read of them, in bytes.
const (
	largestPreview = 3 << 20
	largestReplay  = 64 << 20
)

// errNoObject says that there is nothing that could be tried.
var errNoObject = errors.New("that is no ScaledObject with a scaleTargetRef")

// errNoAccount says that nothing was decided about an object.
var errNoAccount = errors.New("nothing was decided about it: it is paused or not ready, which its conditions tell, or it does not exist")

// showAccount answers why an object is scaled as it is.
func (s *Server) showAccount(w http.ResponseWriter, r *http.Request) {
	key := types.NamespacedName{Namespace: r.PathValue("namespace"), Name: r.PathValue("name")}
	var account any
	known := false
	switch r.PathValue("kind") {
	case "scaledobject":
		account, known = s.scaled.Explain(key)
	case "scaledjob":
		account, known = s.jobs.Explain(key)
	}
	if !known {
		http.Error(w, errNoAccount.Error(), http.StatusNotFound)
		return
	}
	s.write(w, account)
}

// showPreview answers what would be decided.
func (s *Server) showPreview(w http.ResponseWriter, r *http.Request) {
	var p Preview
	s.try(w, r, largestPreview, &p, func() (any, error) { return s.scaled.Preview(r.Context(), p.Object, p.Values) })
}

// showReplay answers what would have been decided.
func (s *Server) showReplay(w http.ResponseWriter, r *http.Request) {
	var q Recorded
	s.try(w, r, largestReplay, &q, func() (any, error) { return s.scaled.Replay(r.Context(), q.Object, q.Samples) })
}

// tried is what a request holds that tries something with an object.
type tried interface {
	object() *kedav1alpha1.ScaledObject
}

func (p *Preview) object() *kedav1alpha1.ScaledObject  { return p.Object }
func (q *Recorded) object() *kedav1alpha1.ScaledObject { return q.Object }

// try reads a request of at most a number of bytes and answers what comes of it.
func (s *Server) try(w http.ResponseWriter, r *http.Request, largest int64, into tried, do func() (any, error)) {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, largest)).Decode(into); err != nil || into.object() == nil || into.object().Spec.ScaleTargetRef == nil {
		http.Error(w, errNoObject.Error(), http.StatusBadRequest)
		return
	}
	out, err := do()
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	s.write(w, out)
}

func (s *Server) write(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		s.log.Debug("answering on the control socket", "error", err)
	}
}

// ReadScaled asks a running ebb why a ScaledObject's target has the replicas it has.
func ReadScaled(ctx context.Context, folder config.Folder, key types.NamespacedName) (ScaledAccount, error) {
	return askControl[ScaledAccount](ctx, folder, http.MethodGet, "/explain/scaledobject/"+key.String(), nil)
}

// ReadJobs asks a running ebb why a ScaledJob has the Jobs it has.
func ReadJobs(ctx context.Context, folder config.Folder, key types.NamespacedName) (JobsAccount, error) {
	return askControl[JobsAccount](ctx, folder, http.MethodGet, "/explain/scaledjob/"+key.String(), nil)
}

// ReadPreview asks a running ebb what it would decide.
func ReadPreview(ctx context.Context, folder config.Folder, p Preview) (ScaledAccount, error) {
	body, err := json.Marshal(p)
	if err != nil {
		return ScaledAccount{}, fmt.Errorf("writing the question: %w", err)
	}
	return askControl[ScaledAccount](ctx, folder, http.MethodPost, "/preview", body)
}

// ReadReplay asks a running ebb what it would have decided.
func ReadReplay(ctx context.Context, folder config.Folder, q Recorded) (Replay, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return Replay{}, fmt.Errorf("writing the question: %w", err)
	}
	return askControl[Replay](ctx, folder, http.MethodPost, "/replay", body)
}

// askControl asks a running ebb on its control socket.
func askControl[T any](ctx context.Context, folder config.Folder, method, path string, body []byte) (answer T, err error) {
	client := controlClient(folder)
	client.Timeout = 30 * time.Second
	req, err := http.NewRequestWithContext(ctx, method, "http://ebb"+path, bytes.NewReader(body))
	if err != nil {
		return answer, fmt.Errorf("asking ebb: %w", err)
	}
	res, err := client.Do(req)
	if err != nil {
		return answer, fmt.Errorf("asking ebb: %w; `ebb status` tells whether one runs here", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		said, err := io.ReadAll(io.LimitReader(res.Body, largestPreview))
		if err != nil {
			return answer, fmt.Errorf("reading ebb's answer: %w", err)
		}
		return answer, errors.New(string(bytes.TrimSpace(said)))
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return answer, fmt.Errorf("reading ebb's answer: %w", err)
	}
	return answer, nil
}
