// Package e2e drives the built binary as a user does: commands, kubectl and HTTP requests.
//
// EBB_BIN names the binary. Each installation gets a data folder and ports of its own, so the suite
// runs beside others, and beside the user's own ebb.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience bounds every wait; a healthy machine needs a hundredth of it.
const patience = 2 * time.Minute

// installation is one ebb with a data folder of its own.
type installation struct {
	bin, data, http, https, api string
}

// shared is the installation most tests use; TestMain starts and stops it.
var shared *installation

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: pods need root; run the suite as root")
		return 1
	}
	dir, err := os.MkdirTemp("", "ebb-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	shared, err = newInstallation(filepath.Join(dir, "shared"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	out, err := shared.command(context.Background(), "up", "--detach", "--http", shared.http, "--https", shared.https, "--api", shared.api)
	fmt.Println(out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: starting ebb:", err)
		return 1
	}
	code := m.Run()
	if out, err := shared.command(context.Background(), "down"); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: stopping ebb:", err, out)
		code = 1
	}
	return code
}

func newInstallation(data string) (*installation, error) {
	bin, err := filepath.Abs(os.Getenv("EBB_BIN"))
	if err != nil || os.Getenv("EBB_BIN") == "" {
		return nil, errors.New("EBB_BIN must name the binary to test; `make e2e` builds it and sets it")
	}
	i := &installation{bin: bin, data: data}
	if i.http, err = freeAddress(); err != nil {
		return nil, err
	}
	if i.https, err = freeAddress(); err != nil {
		return nil, err
	}
	i.api, err = freeAddress()
	return i, err
}

// fresh starts an installation of the test's own and stops it at the end.
func fresh(t *testing.T) *installation {
	t.Helper()
	i, err := newInstallation(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	i.up(t)
	t.Cleanup(func() {
		if out, err := i.command(context.Background(), "down"); err != nil {
			t.Errorf("stopping ebb: %v\n%s", err, out)
		}
	})
	return i
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

// command runs a verb and returns all it printed.
func (i *installation) command(ctx context.Context, args ...string) (string, error) {
	return i.feed(ctx, "", args...)
}

// feed runs a verb with a standard input.
func (i *installation) feed(ctx context.Context, stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if args[0] == "kubectl" {
		args = append([]string{"kubectl", "--data", i.data}, args[1:]...)
	} else {
		args = append(args, "--data", i.data)
	}
	cmd := exec.CommandContext(ctx, i.bin, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// do runs a verb that must succeed.
func (i *installation) do(t *testing.T, args ...string) string {
	t.Helper()
	out, err := i.command(t.Context(), args...)
	if err != nil {
		t.Fatalf("ebb %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (i *installation) up(t *testing.T) string {
	t.Helper()
	return i.do(t, "up", "--detach", "--http", i.http, "--https", i.https, "--api", i.api)
}

// apply gives manifests to kubectl; they are deleted when the test ends.
func (i *installation) apply(t *testing.T, manifest string) {
	t.Helper()
	if out, err := i.feed(t.Context(), manifest, "kubectl", "apply", "-f", "-"); err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		_, _ = i.feed(context.Background(), manifest, "kubectl", "delete", "--wait=false", "--ignore-not-found", "-f", "-")
	})
}

// request sends one request to a host by the gateway.
func (i *installation) request(ctx context.Context, host, path string) (status int, body string, header http.Header, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+i.http+path, http.NoBody)
	if err != nil {
		return 0, "", nil, err
	}
	req.Host = host
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	return res.StatusCode, string(data), res.Header, err
}

// get sends a request that must be answered with 200 and returns the body.
func (i *installation) get(t *testing.T, host, path string) string {
	t.Helper()
	status, body, _, err := i.request(t.Context(), host, path)
	if err != nil || status != http.StatusOK {
		t.Fatalf("GET %s%s: status %d, %v: %s", host, path, status, err, body)
	}
	return body
}

// eventually asks until the answer is right or patience ends; what it last saw is shown then.
func eventually(t *testing.T, what string, ask func() (done bool, saw string)) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		done, saw := ask()
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %s; last seen: %s", what, patience, saw)
		}
	}
}

// jsonpath reads one value by kubectl.
func (i *installation) jsonpath(t *testing.T, resource, path string) string {
	t.Helper()
	out, err := i.command(t.Context(), "kubectl", "get", resource, "-o", "jsonpath="+path)
	if err != nil {
		return "error: " + out
	}
	return strings.TrimSpace(out)
}
