package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
)

// The manifest is Knative's own first example, with the image's public name.
const knativeHello = `apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: hello
spec:
  template:
    spec:
      containers:
        - image: ghcr.io/knative/helloworld-go:latest
          imagePullPolicy: Always
          ports:
            - containerPort: 8080
          env:
            - name: GREETING
              value: "World"
`

func TestALoadedImageIsServedUnderItsReference(t *testing.T) {
	greeter(t, shared, "load-source")
	pulled, err := crane.Pull(statusField(t, "images")+"/ebb.local/default/load-source", crane.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "image.tar")
	if err := crane.Save(pulled, "ghcr.io/knative/helloworld-go:latest", archive); err != nil {
		t.Fatal(err)
	}
	if out := shared.do(t, "image", "load", archive); !strings.Contains(out, "ghcr.io/knative/helloworld-go:latest") {
		t.Errorf("image load = %s", out)
	}
	if out := shared.do(t, "image", "list"); !strings.Contains(out, "ghcr.io/knative/helloworld-go:latest") {
		t.Errorf("image list = %s", out)
	}
	file, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := shared.feed(t.Context(), string(file), "image", "load", "-", "example.com/other:v1"); err != nil {
		t.Errorf("image load - = %v: %s", err, out)
	}
	shared.apply(t, knativeHello)
	awaitReady(t, shared, "hello")
	if body := shared.get(t, host("hello"), "/"); !strings.HasPrefix(body, "World") {
		t.Errorf("body = %q", body)
	}
	if seen := shared.jsonpath(t, "revision/hello-00001", "{.status.containerStatuses[0].imageDigest}"); !strings.HasPrefix(seen, "ghcr.io/knative/helloworld-go@sha256:") {
		t.Errorf("imageDigest = %q, want the public name with a digest", seen)
	}
}

func TestAnImageIsPushedByAnOrdinaryClient(t *testing.T) {
	greeter(t, shared, "push-source")
	registry := statusField(t, "images")
	target := registry + "/team/app:v1"
	if err := crane.Copy(registry+"/ebb.local/default/push-source", target, crane.Insecure); err != nil {
		t.Fatal(err)
	}
	shared.apply(t, service("pushed", target))
	awaitReady(t, shared, "pushed")
	if body := shared.get(t, host("pushed"), "/"); !strings.Contains(body, "Hello") {
		t.Errorf("body = %q", body)
	}
}
