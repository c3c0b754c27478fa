package e2e

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// conditions prints an object's conditions, one a line.
const conditions = `{range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{"\n"}{end}`

// TestImageThatCannotBePulled looks at a failure that upstream calls one only after the progress
// deadline: the reason shows at once, Ready stays Unknown.
func TestImageThatCannotBePulled(t *testing.T) {
	image := greeter(t, shared, "failing-source")
	repository, _, _ := strings.Cut(image, "@")
	shared.apply(t, service("pulling", repository+"@sha256:"+strings.Repeat("0", 64)))
	eventually(t, "reason in the service's message", func() (bool, string) {
		seen := shared.jsonpath(t, "ksvc/pulling", conditions)
		return strings.Contains(seen, "Ready=Unknown ImagePullBackOff") && strings.Contains(seen, repository), seen
	})
	if status, body, header, err := shared.request(t.Context(), host("pulling"), "/"); err != nil || status != http.StatusNotFound || header.Get("X-Ebb-Reason") == "" {
		t.Errorf("request to a service that never was ready: %d %v %s", status, err, body)
	}
}

// TestClientThatLeavesWhileAnInstanceStarts checks that its request is not made.
func TestClientThatLeavesWhileAnInstanceStarts(t *testing.T) {
	image := greeter(t, shared, "leaving-source")
	shared.apply(t, service("leaving", image, `autoscaling.knative.dev/window: "6s"`)+"        env: [{name: START_DELAY, value: 2s}]\n")
	awaitReady(t, shared, "leaving")
	awaitPods(t, shared, "leaving", 0)
	for method, body := range map[string]io.Reader{
		http.MethodGet: http.NoBody, http.MethodPost: strings.NewReader("short"), http.MethodPut: io.MultiReader(strings.NewReader("unknown length")),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		req, err := http.NewRequestWithContext(ctx, method, "http://"+shared.http+"/left-by-"+method, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host("leaving")
		if res, err := http.DefaultClient.Do(req); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, %v; want no answer within 300ms", method, res, err)
		}
		cancel()
	}
	shared.get(t, host("leaving"), "/stayed")
	if out := shared.do(t, "logs", "leaving"); strings.Contains(out, "left-by") || !strings.Contains(out, "stayed") {
		t.Errorf("the application saw:\n%s", out)
	}
}

// TestInstanceThatHangs checks the revision's own timeout: 504 before the first byte, a clean end after.
func TestInstanceThatHangs(t *testing.T) {
	image := greeter(t, shared, "hanging-source")
	shared.apply(t, strings.Replace(service("hanging", image), "      containers:", "      timeoutSeconds: 1\n      containers:", 1))
	awaitReady(t, shared, "hanging")
	if status, body, _, err := shared.request(t.Context(), host("hanging"), "/?sleep=30s"); err != nil || status != http.StatusGatewayTimeout || !strings.Contains(body, "request timeout") {
		t.Errorf("no byte within the timeout: %d %v %q", status, err, body)
	}
	if status, body, _, err := shared.request(t.Context(), host("hanging"), "/events?n=30"); err != nil || status != http.StatusOK || !strings.Contains(body, "data: 5") || strings.Contains(body, "data: 20") {
		t.Errorf("a body longer than the timeout: %d %v %q", status, err, body)
	}
}
