package kubeletapi_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"

	"ebb.dev/ebb/internal/component/node/kubeletapi"
)

// fake answers for one pod.
type fake struct {
	exec func(r kubeletapi.ExecRequest) (int, error)
	logs func(r kubeletapi.LogRequest, begin func(), w io.Writer) error
}

func (f fake) Logs(_ context.Context, r kubeletapi.LogRequest, begin func(), w io.Writer) error {
	return f.logs(r, begin, w)
}
func (f fake) Exec(_ context.Context, r kubeletapi.ExecRequest) (int, error) { return f.exec(r) }
func (f fake) Dial(context.Context, string, string, uint16) (net.Conn, error) {
	return nil, errors.New("refused")
}
func (f fake) Pods(bool) (*corev1.PodList, error) { return &corev1.PodList{}, nil }

func serve(t *testing.T, f fake) *httptest.Server {
	s := httptest.NewServer(kubeletapi.Handler(kubeletapi.Config{
		Source: f, Summary: http.NotFoundHandler(), Usage: http.NotFoundHandler(),
		Metrics: http.NotFoundHandler(), Log: slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(s.Close)
	return s
}

func executors(t *testing.T, server, query string) map[string]remotecommand.Executor {
	u, err := url.Parse(server + "/exec/default/pod/user?" + query)
	if err != nil {
		t.Fatal(err)
	}
	spdy, err := remotecommand.NewSPDYExecutor(&rest.Config{Host: server}, http.MethodPost, u)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]remotecommand.Executor{"spdy": spdy}
}

func TestExecLosesNoOutput(t *testing.T) {
	s := serve(t, fake{exec: func(r kubeletapi.ExecRequest) (int, error) {
		in, err := io.ReadAll(r.In)
		if err != nil {
			return 0, err
		}
		_, err = io.WriteString(r.Out, "out:"+string(in))
		_, _ = io.WriteString(r.Err, "err")
		return 3, err
	}})
	for name, e := range executors(t, s.URL, "command=x&input=1&output=1&error=1") {
		for range 100 {
			var out, errs bytes.Buffer
			err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &errs})
			var exit utilexec.CodeExitError
			if !errors.As(err, &exit) || exit.Code != 3 {
				t.Fatalf("%s: %v, want exit code 3", name, err)
			}
			if out.String() != "out:hello" || errs.String() != "err" {
				t.Fatalf("%s: out %q, err %q", name, out.String(), errs.String())
			}
		}
	}
}

func TestTerminalHasOneStream(t *testing.T) {
	s := serve(t, fake{exec: func(r kubeletapi.ExecRequest) (int, error) {
		if !r.Terminal || r.Err != nil {
			return 0, errors.New("want a terminal and no stream of errors")
		}
		_, err := io.WriteString(r.Out, "out")
		return 0, err
	}})
	for name, e := range executors(t, s.URL, "command=x&output=1&error=1&tty=1") {
		var out, errs bytes.Buffer
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &out, Stderr: &errs, Tty: true})
		if err != nil || out.String() != "out" || errs.Len() > 0 {
			t.Errorf("%s: out %q, err %q: %v", name, out.String(), errs.String(), err)
		}
	}
}
