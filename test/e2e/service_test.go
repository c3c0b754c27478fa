package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// greeter deploys the suite's workload under a name and returns its image.
func greeter(t *testing.T, i *installation, name string, env ...string) string {
	t.Helper()
	args := []string{"deploy", "testdata/app", "--name", name}
	for _, e := range env {
		args = append(args, "--env", e)
	}
	i.do(t, args...)
	t.Cleanup(func() { _, _ = i.command(context.Background(), "delete", name) })
	return i.jsonpath(t, "ksvc/"+name, "{.spec.template.spec.containers[0].image}")
}

func host(name string) string { return name + ".default.localhost" }

func TestTheTourOfTheREADME(t *testing.T) {
	out := shared.do(t, "deploy", "../../examples/hello-go")
	t.Cleanup(func() { _, _ = shared.command(context.Background(), "delete", "hello-go") })
	_, port, _ := strings.Cut(shared.http, ":")
	if want := "http://hello-go.default.localhost"; !strings.Contains(out, want) {
		t.Errorf("deploy printed %q, want a URL like %s or with :%s", out, want, port)
	}
	if body := shared.get(t, host("hello-go"), "/"); !strings.Contains(body, "Hello") {
		t.Errorf("body = %q, want a greeting", body)
	}
	if out := shared.do(t, "get", "services"); !strings.Contains(out, "hello-go-00001") || !strings.Contains(out, "True") {
		t.Errorf("get services = %s", out)
	}
	if out := shared.do(t, "logs", "hello-go"); !strings.Contains(out, "GET /") {
		t.Errorf("logs = %q, want the request just made", out)
	}
	if out := shared.do(t, "describe", "hello-go"); !strings.Contains(out, "100%") || !strings.Contains(out, "hello-go-00001") {
		t.Errorf("describe = %s", out)
	}
	if out, err := shared.command(t.Context(), "status"); err != nil || !strings.Contains(out, "ready") {
		t.Errorf("status = %v, %s", err, out)
	}
}

func TestPrintedURLWorksAsPrinted(t *testing.T) {
	greeter(t, shared, "printed")
	url := shared.jsonpath(t, "ksvc/printed", "{.status.url}")
	// The resolver of this machine may not know *.localhost; the name is only a Host header then.
	address := strings.TrimPrefix(url, "http://")
	name, port, found := strings.Cut(address, ":")
	if !found {
		port = "80"
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+port, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = name + ":" + port
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("GET %s: status %d", url, res.StatusCode)
	}
}

func TestScalesToZeroAndWakes(t *testing.T) {
	image := greeter(t, shared, "sleeper-source")
	shared.apply(t, service("sleeper", image, `autoscaling.knative.dev/window: "6s"`))
	awaitReady(t, shared, "sleeper")
	shared.get(t, host("sleeper"), "/")
	awaitPods(t, shared, "sleeper", 0)
	if ready := shared.jsonpath(t, "ksvc/sleeper", `{.status.conditions[?(@.type=="Ready")].status}`); ready != "True" {
		t.Errorf("Ready at zero = %s, want True", ready)
	}
	started := time.Now()
	_, _, header, err := shared.request(t.Context(), host("sleeper"), "/")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("woken in %s; Server-Timing: %s", time.Since(started), header.Get("Server-Timing"))
	if header.Get("Server-Timing") == "" {
		t.Error("a cold request carries no Server-Timing header")
	}
}

func TestScalesOutUnderLoadWithoutLosingARequest(t *testing.T) {
	image := greeter(t, shared, "crowd-source")
	shared.apply(t, service("crowd", image, `autoscaling.knative.dev/target: "1"`, `autoscaling.knative.dev/window: "6s"`, `autoscaling.knative.dev/max-scale: "5"`))
	awaitReady(t, shared, "crowd")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	var sent, failed atomic.Int64
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				status, body, _, err := shared.request(ctx, host("crowd"), "/?sleep=50ms")
				if ctx.Err() != nil {
					return
				}
				sent.Add(1)
				if err != nil || status != http.StatusOK {
					failed.Add(1)
					t.Errorf("request failed: %d %v %s", status, err, body)
				}
			}
		})
	}
	awaitPods(t, shared, "crowd", 5)
	eventually(t, "200 requests", func() (bool, string) { return sent.Load() >= 200, fmt.Sprint(sent.Load()) })
	stop()
	wg.Wait()
	awaitPods(t, shared, "crowd", 0)
	t.Logf("%d requests, %d failed", sent.Load(), failed.Load())
}

func TestSplitsTrafficAndRollsBack(t *testing.T) {
	image := greeter(t, shared, "split-source")
	manifest := func(greeting, traffic string) string {
		return service("split", image) + fmt.Sprintf(`        env:
        - name: GREETING
          value: %q
  traffic:
%s`, greeting, traffic)
	}
	shared.apply(t, manifest("one", "  - latestRevision: true\n    percent: 100\n"))
	awaitReady(t, shared, "split")
	shared.apply(t, manifest("two", "  - revisionName: split-00001\n    percent: 50\n  - latestRevision: true\n    percent: 50\n    tag: next\n"))
	eventually(t, "second revision in the split", func() (bool, string) {
		seen := shared.jsonpath(t, "ksvc/split", "{.status.traffic[*].revisionName} {.status.latestReadyRevisionName}")
		return seen == "split-00001 split-00002 split-00002", seen
	})
	count := map[string]int{}
	for range 200 {
		body := shared.get(t, host("split"), "/")
		switch {
		case strings.Contains(body, "one"):
			count["one"]++
		case strings.Contains(body, "two"):
			count["two"]++
		}
	}
	if count["one"]+count["two"] != 200 || count["one"] < 60 || count["two"] < 60 {
		t.Errorf("200 requests at 50/50 gave %v", count)
	}
	if body := shared.get(t, "next-"+host("split"), "/"); !strings.Contains(body, "two") {
		t.Errorf("tag next answered %q", body)
	}
	shared.apply(t, manifest("two", "  - revisionName: split-00001\n    percent: 100\n"))
	eventually(t, "rollback to the first revision", func() (bool, string) {
		body := shared.get(t, host("split"), "/")
		return strings.Contains(body, "one"), body
	})
}

// service is a Knative Service manifest with template annotations, open at the container.
func service(name, image string, annotations ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata:\n  name: %s\nspec:\n  template:\n", name)
	if len(annotations) > 0 {
		b.WriteString("    metadata:\n      annotations:\n")
		for _, a := range annotations {
			fmt.Fprintf(&b, "        %s\n", a)
		}
	}
	fmt.Fprintf(&b, "    spec:\n      containers:\n      - image: %s\n", image)
	return b.String()
}

func awaitReady(t *testing.T, i *installation, name string) {
	t.Helper()
	eventually(t, "service "+name+" ready", func() (bool, string) {
		seen := i.jsonpath(t, "ksvc/"+name, `{range .status.conditions[?(@.type=="Ready")]}{.status} {.reason} {.message}{end}`)
		return strings.HasPrefix(seen, "True"), seen
	})
}

// awaitPods waits until a service has so many pods, ended ones included.
func awaitPods(t *testing.T, i *installation, name string, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d pods of %s", want, name), func() (bool, string) {
		out, err := i.command(t.Context(), "kubectl", "get", "pods", "-l", "serving.knative.dev/service="+name, "-o", "name")
		return err == nil && len(strings.Fields(strings.TrimSpace(out))) == want, out
	})
}
