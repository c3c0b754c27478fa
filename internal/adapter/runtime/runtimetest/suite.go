// Package runtimetest is the suite every runtime.Runtime passes.
//
// It starts a small static program in a root of one layer and asks it what it sees, so that what is
// tested is what containers get and not what a runtime claims.
package runtimetest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// patience is how long anything may take on a busy machine before the suite calls it lost.
const patience = 30 * time.Second

// Subject is a runtime to test.
type Subject struct {
	// Open makes a Runtime on a state folder; called again on the same folder after Close.
	Open func(t testing.TB, stateDir string) runtime.Runtime
	// Handler is used for every sandbox.
	Handler string
	// Processes says that containers are processes that do what their image says.
	Processes bool
	// Survives says that pods outlive a Runtime that was closed.
	Survives bool
	// MemoryLimits says that limits are enforced and show in control groups.
	MemoryLimits bool
	// OwnKernel says that a pod has a kernel of its own: what concerns the node's is left out.
	OwnKernel bool
	// Seccomp compiles in the profile RuntimeDefault means; nil skips those tests.
	Seccomp func(capabilities []string) (*specs.LinuxSeccomp, error)
}

// Run runs the whole suite.
func Run(t *testing.T, s Subject) {
	t.Run("lifecycle", func(t *testing.T) { runLifecycle(t, s) })
	if !s.Processes {
		return
	}
	t.Run("exits", func(t *testing.T) { runExits(t, s) })
	t.Run("logs", func(t *testing.T) { runLogs(t, s) })
	t.Run("exec", func(t *testing.T) { runExec(t, s) })
	t.Run("attach", func(t *testing.T) { runAttach(t, s) })
	t.Run("isolation", func(t *testing.T) { runIsolation(t, s) })
	t.Run("rights", func(t *testing.T) { runRights(t, s) })
	t.Run("mounts", func(t *testing.T) { runMounts(t, s) })
	t.Run("network", func(t *testing.T) { runNetwork(t, s) })
	if s.MemoryLimits {
		t.Run("memory of the whole sandbox", func(t *testing.T) { limitSandbox(t, s) })
	}
	if s.MemoryLimits && !s.OwnKernel {
		t.Run("limits", func(t *testing.T) { runLimits(t, s) })
	}
	if s.Survives && !s.OwnKernel { // which is all that could be killed from outside
		t.Run("survival", func(t *testing.T) { runSurvival(t, s) })
	}
	t.Run("leaks", func(t *testing.T) { runLeaks(t, s) })
}

// Layer builds the test program into a folder that serves as an image's only layer.
func Layer(t testing.TB) string {
	t.Helper()
	layer.once.Do(func() { layer.dir, layer.err = buildLayer() })
	if layer.err != nil {
		t.Fatal(layer.err)
	}
	return layer.dir
}

// layer is built once for a test binary; the folder is left to the system's temporary space under a
// fixed name and replaced by the next run.
var layer struct {
	once sync.Once
	dir  string
	err  error
}

func buildLayer() (string, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("ebb-runtimetest-%d", os.Getuid()))
	for _, d := range []string{"etc", "tmp", "work", "links"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return "", err
		}
	}
	if err := os.Chmod(filepath.Join(dir, "tmp"), 0o1777); err != nil {
		return "", err
	}
	files := map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
		"etc/seen":   "from the image\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	_ = os.Remove(filepath.Join(dir, "links/out")) // of a former run
	if err := os.Symlink("/../../../../../../etc", filepath.Join(dir, "links/out")); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, "pod"), "ebb.dev/ebb/internal/adapter/runtime/runtimetest/pod")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the test program: %w: %s", err, out)
	}
	return dir, nil
}

// bench is one Runtime under test with one sandbox.
type bench struct {
	t       *testing.T
	subject Subject
	dir     string
	rt      runtime.Runtime
	ends    *ends
	sandbox string
}

var serial atomic.Int64

// unique names something once in a test run.
func unique(prefix string) string { return fmt.Sprintf("%s-%d-%d", prefix, os.Getpid(), serial.Add(1)) }

// newBench opens a Runtime and, unless told otherwise by change, a plain sandbox.
func newBench(t *testing.T, s Subject, change ...func(*runtime.SandboxSpec)) *bench {
	t.Helper()
	b := &bench{t: t, subject: s, dir: t.TempDir()}
	b.open()
	t.Cleanup(func() {
		b.stopAll()
		if err := b.rt.Close(); err != nil {
			t.Error(err)
		}
	})
	spec := b.sandboxSpec()
	for _, c := range change {
		c(&spec)
	}
	sb, err := b.rt.StartSandbox(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	b.sandbox = sb.ID
	return b
}

func (b *bench) open() {
	b.rt = b.subject.Open(b.t, b.dir)
	b.ends = collect(b.rt)
}

func (b *bench) stopAll() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.t.Context()), patience)
	defer cancel()
	list, err := b.rt.List(ctx)
	if err != nil {
		b.t.Error(err)
	}
	for _, sb := range list {
		if err := b.rt.StopSandbox(ctx, sb.ID); err != nil {
			b.t.Error(err)
		}
	}
}

func (b *bench) sandboxSpec() runtime.SandboxSpec {
	return runtime.SandboxSpec{
		ID: unique("pod"), Namespace: "default", Name: "tested", Handler: b.subject.Handler, Hostname: "tested",
		Annotations: map[string]string{"kept": "yes"},
	}
}

// spec is a plain container running the test program with these arguments.
func (b *bench) spec(args ...string) runtime.ContainerSpec {
	id := unique("c")
	return runtime.ContainerSpec{
		ID: id, SandboxID: b.sandbox, Name: id, RootFS: []string{Layer(b.t)},
		Process: specs.Process{
			Args: append([]string{"/pod"}, args...), Env: []string{"PATH=/", "FROM=spec"}, Cwd: "/work",
			Capabilities: capabilities("CAP_CHOWN", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID"),
		},
		LogPath:     filepath.Join(b.dir, "logs", id, "0.log"),
		Annotations: map[string]string{"mine": "1"},
	}
}

func capabilities(names ...string) *specs.LinuxCapabilities {
	return &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}
}

func (b *bench) start(c runtime.ContainerSpec) runtime.Container {
	b.t.Helper()
	got, err := b.rt.StartContainer(b.t.Context(), c)
	if err != nil {
		b.t.Fatal(err)
	}
	return got
}

// output runs a container to its end and returns what it wrote; a code other than 0 fails.
func (b *bench) output(c runtime.ContainerSpec) string {
	b.t.Helper()
	b.start(c)
	end := b.ends.wait(b.t, c.ID)
	text := logText(b.t, c.LogPath)
	if end.ExitCode != 0 {
		b.t.Fatalf("container ended with %d: %s", end.ExitCode, text)
	}
	return text
}

// say is output for plain arguments.
func (b *bench) say(args ...string) string {
	b.t.Helper()
	return b.output(b.spec(args...))
}

// exec runs a command and returns its output and code.
func (b *bench) exec(id string, args ...string) (string, int) {
	b.t.Helper()
	var out output
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	code, err := b.rt.Exec(ctx, id, runtime.ExecSpec{
		Args: append([]string{"/pod"}, args...), Streams: runtime.Streams{Out: &out, Err: &out},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return out.String(), code
}

// eventually asks until ok or patience is over.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-tick.C
	}
}

// logText puts a CRI log together again, without stamps; unfinished lines are joined.
func logText(t *testing.T, path string) string {
	t.Helper()
	var text strings.Builder
	for _, l := range logLines(t, path) {
		text.WriteString(l.text)
		if l.tag == "F" {
			text.WriteByte('\n')
		}
	}
	return text.String()
}

type logLine struct {
	stamp             time.Time
	stream, tag, text string
}

func logLines(t *testing.T, path string) []logLine {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var lines []logLine
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(f) != 4 {
			t.Fatalf("not a CRI log line: %q", line)
		}
		stamp, err := time.Parse(time.RFC3339Nano, f[0])
		if err != nil {
			t.Fatalf("not a CRI log line: %q: %v", line, err)
		}
		lines = append(lines, logLine{stamp, f[1], f[2], f[3]})
	}
	return lines
}

// ends remembers all exits of one Runtime.
type ends struct {
	mu     sync.Mutex
	seen   map[string][]runtime.Container
	closed chan struct{}
}

func collect(rt runtime.Runtime) *ends {
	e := &ends{seen: map[string][]runtime.Container{}, closed: make(chan struct{})}
	go func() {
		defer close(e.closed)
		for c := range rt.Exits() {
			e.mu.Lock()
			e.seen[c.ID] = append(e.seen[c.ID], c)
			e.mu.Unlock()
		}
	}()
	return e
}

func (e *ends) of(id string) []runtime.Container {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen[id]
}

func (e *ends) wait(t *testing.T, id string) runtime.Container {
	t.Helper()
	eventually(t, "the end of container "+id, func() bool { return len(e.of(id)) > 0 })
	return e.of(id)[0]
}
