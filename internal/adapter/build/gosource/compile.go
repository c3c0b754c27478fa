package gosource

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ebb.dev/ebb/internal/adapter/build"
)

//go:embed server.go.tmpl
var serverText string

var serverTemplate = template.Must(template.New("server").Parse(serverText))

// mainFolder is where the generated main package seems to be, inside the user's package so that it
// may import it whatever it is called.
const mainFolder = "_ebb"

// compiler runs the go command for one source. What ebb adds to the source goes in by the go
// command's overlay, so nothing is written to the user's folder.
type compiler struct {
	command  string
	work     string // scratch folder
	src      *source
	progress io.Writer
	overlay  map[string]string // path as the go command sees it → file in work
}

// prepare makes the files that the source lacks.
func (c *compiler) prepare(ctx context.Context) error {
	c.overlay = map[string]string{}
	if c.src.module == "" {
		if err := c.add(filepath.Join(c.src.dir, "go.mod"), "go.mod", []byte("module function\n")); err != nil {
			return err
		}
	}
	if c.src.function == nil {
		return nil
	}
	path, err := c.importPath(ctx)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	err = serverTemplate.Execute(&text, map[string]any{
		"Package": path, "Instanced": c.src.function.instanced, "Context": c.src.function.context,
	})
	if err != nil {
		return fmt.Errorf("generating main: %w", err)
	}
	return c.add(filepath.Join(c.src.dir, mainFolder, "main.go"), "main.go", text.Bytes())
}

func (c *compiler) add(path, file string, content []byte) error {
	c.overlay[path] = filepath.Join(c.work, file)
	if err := os.WriteFile(c.overlay[path], content, 0o600); err != nil {
		return err
	}
	list, err := json.Marshal(map[string]any{"Replace": c.overlay})
	if err != nil {
		return err
	}
	return os.WriteFile(c.overlayPath(), list, 0o600)
}

func (c *compiler) overlayPath() string { return filepath.Join(c.work, "overlay.json") }

// importPath asks the go command what the package is called.
func (c *compiler) importPath(ctx context.Context) (string, error) {
	args := append([]string{"list"}, c.flags()...)
	out, err := c.run(ctx, v1.Platform{OS: "linux"}, append(args, "-f", "{{.ImportPath}}", "."))
	return strings.TrimSpace(out), err
}

func (c *compiler) flags() []string {
	if len(c.overlay) == 0 {
		return nil
	}
	return []string{"-overlay", c.overlayPath()}
}

// compile builds the program for a platform and returns its file, good until the next compile for
// the same platform.
func (c *compiler) compile(ctx context.Context, platform v1.Platform) (string, error) {
	if platform.OS != "linux" {
		return "", fmt.Errorf("%w: containers here run Linux, not %s", build.ErrSource, platform.OS)
	}
	program := filepath.Join(c.work, "program-"+strings.ReplaceAll(platform.String(), "/", "-"))
	target := "."
	if c.src.function != nil {
		target = "./" + mainFolder
	}
	args := append([]string{"build"}, c.flags()...)
	args = append(args, "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, target)
	if _, err := c.run(ctx, platform, args); err != nil {
		return "", err
	}
	return program, nil
}

// run runs the go command in the source's folder and returns what it printed.
func (c *compiler) run(ctx context.Context, platform v1.Platform, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, c.command, args...)
	cmd.Dir = c.src.dir
	cmd.Env = append(os.Environ(), environment(platform)...)
	// The compilers are children of the go command: all of them end with ctx.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var printed, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &printed, io.Writer(&complaints)
	if c.progress != nil {
		cmd.Stderr = io.MultiWriter(&complaints, c.progress)
	}
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if _, failed := errors.AsType[*exec.ExitError](err); failed {
		return "", compileError(complaints.String())
	}
	if err != nil {
		return "", fmt.Errorf("running %s: %w", c.command, err)
	}
	return printed.String(), nil
}

// environment makes the go command build for a platform, with nothing from C and the least CPU of
// its kind, whatever the user's own settings are.
func environment(platform v1.Platform) []string {
	env := []string{"CGO_ENABLED=0", "GOOS=linux", "GOAMD64=v1"}
	if platform.Architecture != "" {
		env = append(env, "GOARCH="+platform.Architecture)
	}
	if version, ok := strings.CutPrefix(platform.Variant, "v"); ok && platform.Architecture == "arm" {
		env = append(env, "GOARM="+version)
	}
	return env
}

var placePattern = regexp.MustCompile(`(?m)^(?:\./)?([^\s:][^:\n]*\.go):(\d+):(?:(\d+):)? (.*)$`)

// compileError finds the places in what the go command printed.
func compileError(output string) error {
	out := &build.CompileError{Output: output}
	for _, found := range placePattern.FindAllStringSubmatch(output, -1) {
		line, _ := strconv.Atoi(found[2]) // digits by the pattern; too many of them make it 0
		column, _ := strconv.Atoi(found[3])
		out.Problems = append(out.Problems, build.Problem{File: found[1], Line: line, Column: column, Message: found[4]})
	}
	return out
}
