// Package image makes the images that the suites deploy and pushes them, without Docker.
package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// folder is where the programs are, below Knative Serving's module.
const folder = "knative.dev/serving/test/test_images/"

// user is who the programs run as: nobody of the images they are built on upstream.
const user = 65532

// All names the programs, as their folders are called. The last part is the image's name.
func All() []string {
	return []string{
		"autoscale", "configmimic", "failing", "grpc-ping", "hellohttp2", "hellovolume", "helloworld",
		"httpproxy", "multicontainer/servingcontainer", "multicontainer/sidecarcontainer", "pizzaplanetv1",
		"pizzaplanetv2", "readiness", "runtime", "singlethreaded", "slowstart", "timeout", "volumes", "wsserver",
	}
}

// Push builds the programs into a folder, makes an image of each and pushes it to a repository as latest.
func Push(ctx context.Context, programs, repository string, names ...string) error {
	programs = filepath.Join(programs, "images")
	if err := os.MkdirAll(programs, 0o750); err != nil {
		return fmt.Errorf("building images: %w", err)
	}
	args := []string{"build", "-ldflags=-s -w", "-o", programs + "/"}
	for _, n := range names {
		args = append(args, folder+n)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building images: %w\n%s", err, out)
	}
	for _, n := range names {
		if err := push(ctx, repository, filepath.Join(programs, path.Base(n))); err != nil {
			return fmt.Errorf("pushing image %s: %w", n, err)
		}
	}
	return nil
}

func push(ctx context.Context, repository, program string) error {
	ref, err := name.ParseReference(repository + "/" + filepath.Base(program) + ":latest")
	if err != nil {
		return err
	}
	image, err := pack(program)
	if err != nil {
		return err
	}
	return remote.Write(ref, image, remote.WithContext(ctx))
}

// pack puts a program where ko would, into an image laid out as ko's default base.
func pack(program string) (v1.Image, error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	inside := "/ko-app/" + filepath.Base(program)
	data, err := layer(inside, content)
	if err != nil {
		return nil, err
	}
	one, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, one)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{
		Entrypoint: []string{inside}, User: fmt.Sprint(user), WorkingDir: "/home/nonroot",
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/ko-app", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"},
	}
	return mutate.ConfigFile(image, config)
}

// layer is the only one an image has: the program and the few files programs ask for.
func layer(inside string, content []byte) ([]byte, error) {
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	for _, h := range []struct {
		tar.Header
		content []byte
	}{
		{Header: tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}},
		{Header: tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}},
		{Header: tar.Header{Name: "etc/passwd"}, content: []byte("root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")},
		{Header: tar.Header{Name: "etc/group"}, content: []byte("root:x:0:\nnonroot:x:65532:\n")},
		{Header: tar.Header{Name: "home/", Typeflag: tar.TypeDir, Mode: 0o755}},
		{Header: tar.Header{Name: "home/nonroot/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: user, Gid: user}},
		{Header: tar.Header{Name: "ko-app/", Typeflag: tar.TypeDir, Mode: 0o755}},
		{Header: tar.Header{Name: inside[1:], Mode: 0o555}, content: content},
	} {
		if h.content != nil {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(h.content))
			if h.Mode == 0 {
				h.Mode = 0o644
			}
		}
		if err := w.WriteHeader(&h.Header); err != nil {
			return nil, err
		}
		if _, err := w.Write(h.content); err != nil {
			return nil, err
		}
	}
	return data.Bytes(), w.Close()
}
