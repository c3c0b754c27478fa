package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// crowd sends requests to one host until it is stopped: GET and POST, by lasting and by new
// connections, with bodies of known and of unknown length.
type crowd struct {
	stop     context.CancelFunc
	wg       sync.WaitGroup
	answered atomic.Int64
	mu       sync.Mutex // guards bodies and lost
	bodies   map[string]int
	lost     []string
}

// send starts a crowd; pardon says which failures are no loss.
func send(t *testing.T, i *installation, host, path string, pardon func(status int, err error) bool) *crowd {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	c := &crowd{stop: stop, bodies: map[string]int{}}
	t.Cleanup(func() { stop(); c.wg.Wait() })
	kinds := map[string]func() io.Reader{
		http.MethodGet: func() io.Reader { return http.NoBody },
		"POST":         func() io.Reader { return strings.NewReader("known length") },
		"POST stream":  func() io.Reader { return io.MultiReader(strings.NewReader("unknown length")) },
	}
	for kind, body := range kinds {
		for _, lasting := range []bool{true, false} {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: !lasting}, Timeout: patience}
			c.wg.Go(func() {
				defer client.CloseIdleConnections()
				for ctx.Err() == nil {
					// What was sent is waited for even when the crowd is told to stop.
					req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), strings.Fields(kind)[0], "http://"+i.http+path, body())
					if err != nil {
						c.miss(err.Error())
						return
					}
					req.Host = host
					c.one(ctx, client, req, pardon)
				}
			})
		}
	}
	return c
}

func (c *crowd) one(ctx context.Context, client *http.Client, req *http.Request, pardon func(int, error) bool) {
	began := time.Now()
	status, data := 0, []byte(nil)
	res, err := client.Do(req)
	if err == nil {
		status = res.StatusCode
		data, err = io.ReadAll(res.Body)
		_ = res.Body.Close()
	}
	switch {
	case err == nil && status == http.StatusOK:
		c.answered.Add(1)
		c.mu.Lock()
		c.bodies[strings.TrimSpace(string(data))]++
		c.mu.Unlock()
	case pardon != nil && pardon(status, err):
	default:
		c.miss(fmt.Sprintf("%s after %s: %d %v %s", req.Method, time.Since(began), status, err, data))
	}
	pause := time.NewTimer(5 * time.Millisecond)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
}

func (c *crowd) miss(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = append(c.lost, what)
}

// end stops the crowd and fails the test for each lost request.
func (c *crowd) end(t *testing.T) {
	t.Helper()
	c.stop()
	c.wg.Wait()
	t.Logf("%d requests answered", c.answered.Load())
	if c.answered.Load() < 50 {
		t.Errorf("only %d requests were answered", c.answered.Load())
	}
	for n, what := range c.lost {
		if n == 5 {
			t.Errorf("and %d more", len(c.lost)-n)
			break
		}
		t.Errorf("lost: %s", what)
	}
}

func TestNoRequestIsLostWhileRevisionsChange(t *testing.T) {
	image := greeter(t, shared, "rolling-source")
	manifest := func(greeting, traffic string) string {
		return service("rolling", image, `autoscaling.knative.dev/window: "6s"`, `autoscaling.knative.dev/target: "2"`) +
			fmt.Sprintf("        env:\n        - {name: GREETING, value: %q}\n        - {name: IDLE_TIMEOUT, value: 20ms}\n  traffic:\n%s", greeting, traffic)
	}
	const latest = "  - {latestRevision: true, percent: 100}\n"
	shared.apply(t, manifest("first", latest))
	awaitReady(t, shared, "rolling")
	c := send(t, shared, host("rolling"), "/?sleep=10ms", nil)
	serves := func(revision string) {
		t.Helper()
		eventually(t, revision+" has the traffic", func() (bool, string) {
			seen := shared.jsonpath(t, "ksvc/rolling", "{.status.traffic[*].revisionName}")
			return seen == revision, seen
		})
	}
	shared.apply(t, manifest("second", latest))
	serves("rolling-00002")
	shared.apply(t, manifest("third", "  - {revisionName: rolling-00001, percent: 50}\n  - {latestRevision: true, percent: 50}\n"))
	serves("rolling-00001 rolling-00003")
	shared.apply(t, manifest("third", "  - {revisionName: rolling-00001, percent: 100}\n"))
	serves("rolling-00001")
	shared.do(t, "kubectl", "delete", "pod", "--wait=false", "-l", "serving.knative.dev/service=rolling")
	eventually(t, "instances replaced", func() (bool, string) {
		seen := shared.jsonpath(t, "pod", "{range .items[*]}{.metadata.deletionTimestamp}{end}")
		return seen == "", seen
	})
	c.end(t)
	for _, greeting := range []string{"first", "second", "third"} {
		if !strings.Contains(fmt.Sprint(c.bodies), greeting) {
			t.Errorf("no answer of the %s revision: %v", greeting, c.bodies)
		}
	}
}

func TestOneRequestAtATime(t *testing.T) {
	image := greeter(t, shared, "single-source")
	shared.apply(t, strings.Replace(service("single", image, `autoscaling.knative.dev/max-scale: "3"`), "      containers:", "      containerConcurrency: 1\n      containers:", 1))
	awaitReady(t, shared, "single")
	one, two, three := send(t, shared, host("single"), "/busy", nil), send(t, shared, host("single"), "/busy", nil), send(t, shared, host("single"), "/busy", nil)
	<-time.After(3 * time.Second) // of load
	for _, c := range []*crowd{one, two, three} {
		c.end(t)
		if len(c.bodies) != 1 || c.bodies["1"] == 0 {
			t.Errorf("requests in an instance at once, and how often: %v", c.bodies)
		}
	}
}

// TestKilledInstance kills the application's processes under load. Only requests that must not be
// repeated and had reached the process may fail.
func TestKilledInstance(t *testing.T) {
	image := greeter(t, shared, "mortal-source")
	shared.apply(t, service("mortal", image, `autoscaling.knative.dev/min-scale: "2"`)+"        env:\n        - {name: MARK, value: mortal-instance}\n")
	awaitReady(t, shared, "mortal")
	c := send(t, shared, host("mortal"), "/?sleep=20ms", func(status int, _ error) bool { return status == http.StatusBadGateway })
	for range 2 {
		<-time.After(time.Second) // of load
		killProcesses(t, "MARK=mortal-instance", 1)
	}
	<-time.After(time.Second)
	c.end(t)
	if failed := shared.jsonpath(t, "ksvc/mortal", `{.status.conditions[?(@.type=="Ready")].status}`); failed != "True" {
		t.Errorf("Ready = %s after instances were killed", failed)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+shared.http+"/die", strings.NewReader("once only"))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host("mortal")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusBadGateway || res.Header.Get("X-Ebb-Reason") != "InstanceDied" {
		t.Errorf("POST that kills the instance: %d %v", res.StatusCode, res.Header)
	}
	if status, body, _, err := shared.request(t.Context(), host("mortal"), "/die?partly"); err == nil {
		t.Errorf("a response that was cut off looks whole: %d %q", status, body)
	}
}

// killProcesses kills so many processes that have a variable in their environment.
func killProcesses(t *testing.T, variable string, n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || !strings.Contains("\x00"+string(data), "\x00"+variable+"\x00") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
		if n--; n == 0 {
			return
		}
	}
	t.Fatalf("no process with %s", variable)
}
