// Package kubeletapi is the HTTP API a kubelet serves to the API server: logs, exec, attach,
// port-forward, pods, stats and metrics.
package kubeletapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/gorilla/mux"
	vkapi "github.com/virtual-kubelet/virtual-kubelet/node/api"
	corev1 "k8s.io/api/core/v1"
	utilexec "k8s.io/utils/exec"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// Errors a Source answers with.
var (
	// ErrNotFound means the pod or container is not on this node.
	ErrNotFound = errors.New("not found")
	// ErrBadRequest means what is asked for does not exist now, such as the log of a container that waits.
	ErrBadRequest = errors.New("bad request")
)

// LogRequest asks for a container's log.
type LogRequest struct {
	Namespace, Pod, Container    string
	Follow, Previous, Timestamps bool
	Since                        time.Time
	Tail                         int // negative for all
	Limit                        int64
	Stream                       string
}

// ExecRequest asks for a command in a container, or for its own streams when Command is nil.
type ExecRequest struct {
	Namespace, Pod, Container string
	Command                   []string
	Terminal                  bool
	runtime.Streams
}

// Source answers for the node's pods.
type Source interface {
	// Logs copies a log to w; begin is called once before the first byte, when nothing can fail any more.
	Logs(ctx context.Context, r LogRequest, begin func(), w io.Writer) error
	// Exec runs a command, or attaches, and returns its exit code.
	Exec(ctx context.Context, r ExecRequest) (int, error)
	// Dial connects to a port of the pod.
	Dial(ctx context.Context, namespace, pod string, port uint16) (net.Conn, error)
	// Pods are those bound to the node; running only those with containers.
	Pods(running bool) (*corev1.PodList, error)
}

// Config says what to serve.
type Config struct {
	Source  Source
	Summary http.Handler // /stats/summary
	Usage   http.Handler // /metrics/resource
	Metrics http.Handler // /metrics
	Log     *slog.Logger
}

// Streams are closed when nothing moved for idle; a client gets created to open all of its streams.
const (
	idle    = 4 * time.Hour
	created = 30 * time.Second
)

// Handler is the API without its authentication.
func Handler(c Config) http.Handler {
	s := server{c}
	r := mux.NewRouter()
	r.StrictSlash(true)
	r.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }).Methods(http.MethodGet)
	r.HandleFunc("/pods", s.pods(false)).Methods(http.MethodGet)
	r.HandleFunc("/runningpods/", s.pods(true)).Methods(http.MethodGet)
	r.HandleFunc("/containerLogs/{namespace}/{pod}/{container}", s.logs).Methods(http.MethodGet)
	both := []string{http.MethodGet, http.MethodPost}
	r.HandleFunc("/exec/{namespace}/{pod}/{container}", terminal(vkapi.HandleContainerExec(
		func(ctx context.Context, namespace, pod, container string, cmd []string, a vkapi.AttachIO) error {
			return s.exec(ctx, ExecRequest{Namespace: namespace, Pod: pod, Container: container, Command: cmd}, a)
		},
		vkapi.WithExecStreamIdleTimeout(idle), vkapi.WithExecStreamCreationTimeout(created)))).Methods(both...)
	r.HandleFunc("/attach/{namespace}/{pod}/{container}", terminal(vkapi.HandleContainerAttach(
		func(ctx context.Context, namespace, pod, container string, a vkapi.AttachIO) error {
			return s.exec(ctx, ExecRequest{Namespace: namespace, Pod: pod, Container: container}, a)
		},
		vkapi.WithExecStreamIdleTimeout(idle), vkapi.WithExecStreamCreationTimeout(created)))).Methods(both...)
	r.HandleFunc("/run/{namespace}/{pod}/{container}", s.run).Methods(http.MethodPost)
	r.HandleFunc("/portForward/{namespace}/{pod}", vkapi.HandlePortForward(s.portForward,
		vkapi.WithPortForwardStreamIdleTimeout(idle), vkapi.WithPortForwardCreationTimeout(created))).Methods(both...)
	r.Handle("/stats/summary", c.Summary).Methods(http.MethodGet, http.MethodPost)
	r.Handle("/metrics/resource", c.Usage).Methods(http.MethodGet)
	r.Handle("/metrics", c.Metrics).Methods(http.MethodGet)
	return r
}

// terminal leaves out the stream of errors where a terminal is asked for, as kubelet does: a terminal has
// but one stream, and clients ask for both without opening both.
func terminal(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if q := r.URL.Query(); q.Get("tty") == "1" && q.Has("error") {
			q.Del("error")
			r.URL.RawQuery = q.Encode()
		}
		next(w, r)
	}
}

type server struct{ Config }

func (s server) pods(running bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		list, err := s.Source.Pods(running)
		if err != nil {
			s.refuse(w, err)
			return
		}
		list.APIVersion, list.Kind = "v1", "PodList"
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(list); err != nil {
			s.Log.Debug("answering with the node's pods", "error", err)
		}
	}
}

// refuse answers with the status the error stands for.
func (s server) refuse(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	switch {
	case errors.Is(err, ErrNotFound):
		code = http.StatusNotFound
	case errors.Is(err, ErrBadRequest):
		code = http.StatusBadRequest
	}
	http.Error(w, err.Error(), code)
}

func (s server) logs(w http.ResponseWriter, r *http.Request) {
	req, err := logRequest(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	begun := false
	begin := func() {
		begun = true
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Transfer-Encoding", "chunked")
		w.WriteHeader(http.StatusOK)
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
	}
	if err := s.Source.Logs(r.Context(), *req, begin, flusher{w}); err != nil {
		if !begun {
			s.refuse(w, err)
			return
		}
		s.Log.Debug("sending a log", "namespace", req.Namespace, "pod", req.Pod, "error", err)
	}
}

// flusher sends every write on its way at once.
type flusher struct{ w http.ResponseWriter }

func (f flusher) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if fl, ok := f.w.(http.Flusher); ok {
		fl.Flush()
	}
	return n, err
}

func logRequest(r *http.Request) (*LogRequest, error) {
	vars, q := mux.Vars(r), r.URL.Query()
	req := &LogRequest{Namespace: vars["namespace"], Pod: vars["pod"], Container: vars["container"], Tail: -1}
	var errs []error
	flag := func(name string, into *bool) {
		if v := q.Get(name); v != "" {
			b, err := strconv.ParseBool(v)
			*into = b
			errs = append(errs, err)
		}
	}
	number := func(name string, least int64, set func(int64)) {
		v := q.Get(name)
		if v == "" {
			return
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err == nil && n < least {
			err = errors.New(name + " is too small")
		}
		if err == nil {
			set(n)
		}
		errs = append(errs, err)
	}
	flag("follow", &req.Follow)
	flag("previous", &req.Previous)
	flag("timestamps", &req.Timestamps)
	number("tailLines", 0, func(n int64) { req.Tail = int(min(n, 1<<31-1)) })
	number("limitBytes", 1, func(n int64) { req.Limit = n })
	number("sinceSeconds", 1, func(n int64) { req.Since = time.Now().Add(-time.Duration(n) * time.Second) })
	if v := q.Get("sinceTime"); v != "" {
		at, err := time.Parse(time.RFC3339, v)
		req.Since = at
		errs = append(errs, err)
	}
	switch v := q.Get("stream"); v {
	case "Stdout":
		req.Stream = "stdout"
	case "Stderr":
		req.Stream = "stderr"
	case "", "All":
	default:
		errs = append(errs, errors.New("stream is All, Stdout or Stderr"))
	}
	return req, errors.Join(errs...)
}

// exec serves both exec and, without a command, attach.
func (s server) exec(ctx context.Context, req ExecRequest, a vkapi.AttachIO) error {
	req.Terminal = a.TTY()
	if in := a.Stdin(); in != nil {
		req.In = in
	}
	if out := a.Stdout(); out != nil {
		req.Out = out
	}
	if errs := a.Stderr(); errs != nil && !a.TTY() {
		req.Err = errs
	}
	if a.TTY() {
		sizes := make(chan runtime.Size, 1)
		req.Resize = sizes
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go resize(ctx, a.Resize(), sizes)
	}
	code, err := s.Source.Exec(ctx, req)
	if err != nil {
		return err
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: errors.New("exit status " + strconv.Itoa(code)), Code: code}
	}
	return nil
}

func resize(ctx context.Context, from <-chan vkapi.TermSize, to chan<- runtime.Size) {
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-from:
			if !ok {
				return
			}
			select {
			case to <- runtime.Size{Width: size.Width, Height: size.Height}:
			case <-ctx.Done():
				return
			}
		}
	}
}

// run is exec without streams: the output is the answer.
func (s server) run(w http.ResponseWriter, r *http.Request) {
	vars := mux.Vars(r)
	code, err := s.Source.Exec(r.Context(), ExecRequest{
		Namespace: vars["namespace"], Pod: vars["pod"], Container: vars["container"],
		Command: r.URL.Query()["cmd"], Streams: runtime.Streams{Out: w, Err: w},
	})
	if err != nil {
		s.refuse(w, err)
		return
	}
	if code != 0 {
		s.Log.Debug("a command run through the kubelet API failed", "code", code)
	}
}

// portForward joins a stream with a port of the pod; half-closing one way leaves the other open.
func (s server) portForward(ctx context.Context, namespace, pod string, port int32, stream io.ReadWriteCloser) error {
	if port < 1 || port > 65535 {
		return ErrBadRequest
	}
	conn, err := s.Source.Dial(ctx, namespace, pod, uint16(port))
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	go func() {
		_, _ = io.Copy(conn, stream) // its end, whatever the cause, is the client's last byte
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite() // fails only when the other side is gone, which the other copy sees
		}
	}()
	if _, err := io.Copy(stream, conn); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}
