// Package image makes the images that the suites deploy and pushes them, without Docker.
package image

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"ebb.dev/ebb/test/conformance/kit/image"
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
	packages := make([]string, 0, len(names))
	for _, n := range names {
		packages = append(packages, folder+n)
	}
	if err := image.Build(ctx, programs+"/", packages...); err != nil {
		return err
	}
	for _, n := range names {
		program := path.Base(n)
		content, err := os.ReadFile(filepath.Join(programs, program))
		if err != nil {
			return fmt.Errorf("making image %s: %w", program, err)
		}
		if err := pack(program, content).Push(ctx, repository+"/"+program+":latest"); err != nil {
			return err
		}
	}
	return nil
}

// pack puts a program where ko would, into an image laid out as ko's default base.
func pack(program string, content []byte) *image.Image {
	inside := "/ko-app/" + program
	i := &image.Image{
		Entrypoint: []string{inside}, User: strconv.Itoa(user), Folder: "/home/nonroot",
		Path: ":/ko-app", Env: []string{"SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"},
	}
	const everybody = 0o1777
	i.Files.Folder("/tmp", everybody, 0)
	i.Files.Add("/etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"))
	i.Files.Add("/etc/group", 0o644, []byte("root:x:0:\nnonroot:x:65532:\n"))
	i.Files.Folder("/home/nonroot", 0o700, user)
	i.Files.Add(inside, 0o555, content)
	return i
}
