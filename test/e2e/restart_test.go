package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestKillOfEbbUnderLoad kills ebb while requests are under way and waiting, and starts it again. Until
// it listens connections fail; from its first answer on every request is served, nothing that ran is
// stopped and nothing that slept is started.
func TestKillOfEbbUnderLoad(t *testing.T) {
	i := fresh(t)
	image := greeter(t, i, "source")
	i.apply(t, service("awake", image, `autoscaling.knative.dev/window: "20s"`, `autoscaling.knative.dev/target: "1"`, `autoscaling.knative.dev/max-scale: "3"`))
	i.apply(t, service("asleep", image, `autoscaling.knative.dev/window: "6s"`))
	i.apply(t, service("waking", image, `autoscaling.knative.dev/window: "6s"`)+"        env: [{name: START_DELAY, value: 3s}]\n")
	for _, name := range []string{"awake", "asleep", "waking"} {
		awaitReady(t, i, name)
	}
	awaitPods(t, i, "asleep", 0)
	awaitPods(t, i, "waking", 0)
	c := send(t, i, host("awake"), "/?sleep=50ms", func(status int, err error) bool { return status == 0 && err != nil })
	awaitPods(t, i, "awake", 3)
	const names = `{range .items[*]}{.metadata.name} {.status.containerStatuses[0].restartCount}{"\n"}{end}`
	before := podsOf(t, i, "awake", names)
	waits := make(chan struct{})
	go func() {
		defer close(waits)
		_, _, _, _ = i.request(t.Context(), host("waking"), "/lost with ebb") // its client is told by the connection
	}()
	awaitPods(t, i, "waking", 1)
	kill(t, i)
	<-waits
	i.up(t)
	began := time.Now()
	i.get(t, host("waking"), "/")
	i.get(t, host("awake"), "/")
	t.Logf("first answers %s after up", time.Since(began))
	<-time.After(3 * time.Second) // an autoscaler that had forgotten would have acted
	if after := podsOf(t, i, "awake", names); after != before {
		t.Errorf("instances after the restart:\n%s\nbefore:\n%s", after, before)
	}
	if started := podsOf(t, i, "asleep", names); started != "" {
		t.Errorf("started though nobody asked: %s", started)
	}
	c.end(t)
	if status, _, _, err := i.request(t.Context(), host("asleep"), "/"); err != nil || status != http.StatusOK {
		t.Errorf("waking after the restart: %d %v", status, err)
	}
	if seen := i.jsonpath(t, "ksvc", `{range .items[*]}{.status.conditions[?(@.type=="Ready")].status} {end}`); strings.Contains(seen, "False") || strings.Contains(seen, "Unknown") {
		t.Errorf("Ready of the services: %s", seen)
	}
}
