// Command build compiles cmd/shim for every platform and packs it for embedding.
//
//	go run ./internal/adapter/runtime/container/shim/build          # writes the files
//	go run ./internal/adapter/runtime/container/shim/build -check   # compares them
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	command = "ebb.dev/ebb/cmd/shim"
	folder  = "internal/adapter/runtime/container/shim"
)

var errStale = errors.New("the embedded program is not what cmd/shim compiles to: run go run ./" + folder + "/build")

func main() {
	check := flag.Bool("check", false, "compare instead of writing")
	flag.Parse()
	for _, arch := range []string{"amd64", "arm64"} {
		if err := run(arch, *check); err != nil {
			fmt.Fprintln(os.Stderr, "building the pod program for linux/"+arch+":", err)
			os.Exit(1)
		}
	}
}

func run(arch string, check bool) error {
	packed, err := compile(arch)
	if err != nil {
		return err
	}
	name := filepath.Join(folder, "shim_linux_"+arch+".gz")
	if !check {
		return os.WriteFile(name, packed, 0o644) //nolint:gosec // a source file like others
	}
	have, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if !bytes.Equal(have, packed) {
		return errStale
	}
	return nil
}

// compile builds without anything that depends on where or when: paths, version control, ids.
func compile(arch string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "shim")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "shim")
	cmd := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, command) //nolint:forbidigo // a command begins here
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "GOEXPERIMENT=")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}
