package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// features switches flags of config-features on until the test ends.
func features(t *testing.T, flags ...string) {
	t.Helper()
	patch := func(ctx context.Context, value string) (string, error) {
		var data []string
		for _, flag := range flags {
			data = append(data, `"`+flag+`":`+value)
		}
		return shared.command(ctx, "kubectl", "patch", "configmap", "config-features", "-n", "knative-serving",
			"--type=merge", "-p", `{"data":{`+strings.Join(data, ",")+`}}`)
	}
	if out, err := patch(t.Context(), `"Enabled"`); err != nil {
		t.Fatalf("switching on %v: %v\n%s", flags, err, out)
	}
	t.Cleanup(func() { _, _ = patch(context.Background(), "null") })
}

func TestInitContainersFillVolumes(t *testing.T) {
	image := greeter(t, shared, "filling-source")
	features(t, "kubernetes.podspec-init-containers", "kubernetes.podspec-persistent-volume-claim",
		"kubernetes.podspec-persistent-volume-write", "kubernetes.podspec-securitycontext")
	const mounts = "volumeMounts: [{name: data, mountPath: /data}, {name: claim, mountPath: /claim}]"
	shared.apply(t, `apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: filled}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: filling}
spec:
  template:
    spec:
      securityContext: {runAsUser: 1000, fsGroup: 2000}
      initContainers:
      - {image: "`+image+`", env: [{name: WRITE, value: /data/first}, {name: EXIT, value: "0"}], `+mounts+`}
      containers:
      - {image: "`+image+`", `+mounts+`}
      volumes: [{name: data, emptyDir: {medium: Memory}}, {name: claim, persistentVolumeClaim: {claimName: filled}}]
`)
	awaitReady(t, shared, "filling")
	if body := shared.get(t, host("filling"), "/?read=/data/first"); body != "written at the start" {
		t.Errorf("the init container left %q", body)
	}
	shared.get(t, host("filling"), "/?write=/claim/x&data=kept")
	if body := shared.get(t, host("filling"), "/?read=/claim/x"); body != "kept" {
		t.Errorf("the claim holds %q", body)
	}
	if digest := shared.jsonpath(t, "rev/filling-00001", "{.status.initContainerStatuses[0].imageDigest}"); !strings.Contains(digest, "@sha256:") {
		t.Errorf("digest of the init container's image: %q", digest)
	}
}

func TestServiceIsReadyWhenItsSidecarIs(t *testing.T) {
	image := greeter(t, shared, "pair-source")
	features(t, "multi-container-probing")
	const delay = 3 * time.Second
	begun := time.Now()
	shared.apply(t, service("pair", image)+`        ports: [{containerPort: 8080}]
      - image: `+image+`
        env: [{name: PORT, value: "8081"}, {name: START_DELAY, value: 3s}]
        readinessProbe: {httpGet: {path: /proto, port: 8081, scheme: http, host: 192.0.2.1}}
`)
	awaitReady(t, shared, "pair")
	if took := time.Since(begun); took < delay {
		t.Errorf("ready after %s, although the side-car takes %s to start", took, delay)
	}
	if body := shared.get(t, host("pair"), "/?call=http://127.0.0.1:8081/proto"); !strings.Contains(body, "HTTP/1.1") {
		t.Errorf("the side-car answered %q", body)
	}
}

func TestPodsAreSecureByDefault(t *testing.T) {
	image := greeter(t, shared, "secure-source")
	features(t, "secure-pod-defaults")
	shared.apply(t, service("secure", image))
	awaitReady(t, shared, "secure")
	seen := shared.jsonpath(t, "pods", `{range .items[?(@.metadata.labels.serving\.knative\.dev/service=="secure")]}{.spec.containers[0].securityContext}{end}`)
	for _, want := range []string{`"allowPrivilegeEscalation":false`, `"drop":["ALL"]`, `"runAsNonRoot":true`, `"type":"RuntimeDefault"`} {
		if !strings.Contains(seen, want) {
			t.Errorf("securityContext %s, want %s", seen, want)
		}
	}
	status := shared.get(t, host("secure"), "/?read=/proc/self/status")
	for _, want := range []string{"NoNewPrivs:\t1", "CapBnd:\t0000000000000000", "Seccomp:\t2"} {
		if !strings.Contains(status, want) {
			t.Errorf("the process has not %q:\n%s", want, status)
		}
	}
}

func TestProtocolOfAnUnnamedPortIsFoundOut(t *testing.T) {
	greeter(t, shared, "unnamed")
	if body := shared.get(t, host("unnamed"), "/proto"); !strings.HasPrefix(body, "HTTP/1.1 ") {
		t.Errorf("the application saw %q before it is asked for", body)
	}
	features(t, "autodetect-http2")
	eventually(t, "HTTP/2", func() (bool, string) {
		body := shared.get(t, host("unnamed"), "/proto")
		return strings.HasPrefix(body, "HTTP/2.0 "), body
	})
}

func TestAnInstanceThatBecomesUnreadyGetsNoRequests(t *testing.T) {
	image := greeter(t, shared, "sick-source")
	shared.apply(t, service("sick", image)+`        readinessProbe: {httpGet: {path: "/?read=/tmp/well"}, periodSeconds: 1, failureThreshold: 1}
        env: [{name: WRITE, value: /tmp/well}]
`)
	awaitReady(t, shared, "sick")
	shared.get(t, host("sick"), "/?remove=/tmp/well")
	eventually(t, "a request that waits", func() (bool, string) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		status, body, _, err := shared.request(ctx, host("sick"), "/")
		return ctx.Err() != nil, fmt.Sprint(status, " ", err, " ", body)
	})
}
