package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New())
	defer server.Close()
	repository := strings.TrimPrefix(server.URL, "http://") + "/knative"
	if err := pack("hello", []byte("a program")).Push(t.Context(), repository+"/hello:latest"); err != nil {
		t.Fatal(err)
	}
	image, err := crane.Pull(repository + "/hello:latest")
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/ko-app/hello"}, config.Config.Entrypoint); diff != "" {
		t.Errorf("entry point, -want +got:\n%s", diff)
	}
	if config.Config.User != "65532" {
		t.Errorf("user is %q", config.Config.User)
	}
	files := map[string]string{}
	content := mutate.Extract(image)
	defer func() { _ = content.Close() }()
	for archive := tar.NewReader(content); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = fmt.Sprintf("%#o %d: %.9s", h.Mode, h.Uid, data)
	}
	want := map[string]string{
		"etc": "0755 0: ", "etc/group": "0644 0: root:x:0:", "etc/passwd": "0644 0: root:x:0:", "home": "0755 0: ",
		"home/nonroot": "0700 65532: ", "ko-app": "0755 0: ", "ko-app/hello": "0555 0: a program", "tmp": "01777 0: ",
	}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("files, -want +got:\n%s", diff)
	}
}
