package gosource

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ebb.dev/ebb/internal/adapter/build"
	"ebb.dev/ebb/internal/adapter/build/buildtest"
)

// write puts files, given as name and content by turns, into a folder.
func write(t *testing.T, dir string, files ...string) string {
	t.Helper()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(dir, files[i])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const goMod = "module example.test/fn\n\ngo 1.22\n"

const server = `package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, %q) })
	go func() { panic(http.ListenAndServe(":"+os.Getenv("PORT"), nil)) }()
	<-ctx.Done()
}
`

func needGo(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no Go toolchain on PATH")
	}
}

func TestSuite(t *testing.T) {
	needGo(t)
	buildtest.Run(t, buildtest.Subject{
		Builder: &Builder{},
		Server: func(t *testing.T, dir, greeting string) {
			write(t, dir, "go.mod", goMod, "main.go", fmt.Sprintf(server, greeting))
		},
		Tiny: func(t *testing.T, dir string) {
			write(t, dir, "go.mod", goMod, "main.go", "package main\n\nfunc main() {}\n")
		},
		Broken: func(t *testing.T, dir string) (string, int) {
			write(t, dir, "go.mod", goMod, "main.go", "package main\n\nfunc main() { sub() }\n", "sub.go", "package main\n\nfunc sub() {\n\tundefined()\n}\n")
			return "sub.go", 4
		},
	})
}

func TestInspect(t *testing.T) {
	const program = "package main\nfunc main() {}\n"
	const imports = "package function\nimport (\"context\"; \"net/http\")\nvar _ context.Context\nvar _ http.Handler\n"
	cases := map[string]struct {
		files []string
		want  *function
		err   error
		says  string
	}{
		"a program":                    {[]string{"main.go", program}, nil, nil, ""},
		"a program with a function":    {[]string{"main.go", program + "func Handle() {}"}, nil, nil, ""},
		"a function":                   {[]string{"f.go", imports + "func Handle(w http.ResponseWriter, r *http.Request) {}"}, &function{}, nil, ""},
		"a function with context":      {[]string{"f.go", imports + "func Handle(ctx context.Context, w http.ResponseWriter, r *http.Request) {}"}, &function{context: true}, nil, ""},
		"an instance":                  {[]string{"f.go", imports + "type F struct{}\nfunc New() *F { return nil }\nfunc (f *F) Handle(http.ResponseWriter, *http.Request) {}"}, &function{instanced: true}, nil, ""},
		"an instance in two files":     {[]string{"a.go", imports + "func New() *F { return nil }\n", "b.go", imports + "type F struct{}\nfunc (F) Handle(w http.ResponseWriter, r *http.Request) {}"}, &function{instanced: true}, nil, ""},
		"an instance by its interface": {[]string{"f.go", imports + "type F interface{ Handle(http.ResponseWriter, *http.Request) }\nfunc New() F { return nil }"}, &function{instanced: true}, nil, ""},
		"an instance of elsewhere":     {[]string{"f.go", imports + "func New() *http.ServeMux { return nil }"}, &function{instanced: true}, nil, ""},
		"tests do not count":           {[]string{"main.go", program, "x_test.go", "package other\n"}, nil, nil, ""},
		"other systems do not count":   {[]string{"main.go", program, "x_windows.go", "package other\n", "y.go", "//go:build ignore\n\npackage third\n"}, nil, nil, ""},

		"both":                       {[]string{"f.go", imports + "func New() int { return 0 }\nfunc Handle(w http.ResponseWriter, r *http.Request) {}"}, nil, build.ErrSource, "both Handle and New"},
		"none":                       {[]string{"f.go", imports}, nil, build.ErrSource, "no program and no function"},
		"main without main":          {[]string{"main.go", "package main\n"}, nil, build.ErrSource, "no func main"},
		"a method is no function":    {[]string{"f.go", imports + "type F struct{}\nfunc (F) Handle(w http.ResponseWriter, r *http.Request) {}"}, nil, build.ErrSource, "no program"},
		"another signature":          {[]string{"f.go", imports + "func Handle(r *http.Request) error { return nil }"}, nil, build.ErrSource, "must be func"},
		"an instance without Handle": {[]string{"f.go", imports + "type F struct{}\nfunc New() *F { return nil }"}, nil, build.ErrSource, "F, which has no method Handle"},
		"an instance that needs":     {[]string{"f.go", imports + "type F struct{}\nfunc New(a int) *F { return nil }"}, nil, build.ErrSource, "takes nothing"},
		"CloudEvents":                {[]string{"f.go", "package function\nimport \"github.com/cloudevents/sdk-go/v2/event\"\nfunc Handle(e event.Event) error { return nil }"}, nil, build.ErrSource, "CloudEvents"},
		"two packages":               {[]string{"a.go", program, "b.go", "package other\n"}, nil, build.ErrSource, "package other"},
		"a syntax error":             {[]string{"a.go", "package main\nfunc main( {}\n"}, nil, build.ErrSource, "a.go:2:"},
		"no Go":                      {[]string{"index.js", "x"}, nil, build.ErrNotMine, ""},
		"programs further down":      {[]string{"go.mod", goMod, "cmd/a/main.go", program, "b/main.go", program, "lib/lib.go", "package lib\n"}, nil, build.ErrSource, "b, cmd/a"},
		"a module without Go":        {[]string{"go.mod", goMod}, nil, build.ErrSource, "no Go files"},
	}
	for what, c := range cases {
		t.Run(what, func(t *testing.T) {
			src, err := inspect(write(t, t.TempDir(), c.files...))
			if !errors.Is(err, c.err) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want %v with %q", err, c.err, c.says)
			}
			if err != nil {
				return
			}
			if (src.function == nil) != (c.want == nil) || src.function != nil && *src.function != *c.want {
				t.Errorf("got %+v, want %+v", src.function, c.want)
			}
		})
	}
}

func TestFunctionsGetAServer(t *testing.T) {
	needGo(t)
	const static = `package fn

import (
	"net/http"

	"example.test/fn/internal/text"
)

func Handle(w http.ResponseWriter, r *http.Request) { w.Write([]byte(text.Hello + r.URL.Path)) }
`
	const contextual = `package function

import (
	"context"
	_ "embed"
	"net/http"
)

//go:embed hello.txt
var hello []byte

func Handle(_ context.Context, w http.ResponseWriter, r *http.Request) { w.Write(hello) }
`
	cases := map[string]struct {
		files []string
		want  string
	}{
		"static, with a package of its own": {[]string{"go.mod", goMod, "fn.go", static, "internal/text/text.go", "package text\n\nconst Hello = \"hello \"\n"}, "hello /path"},
		"with context, without go.mod":      {[]string{"fn.go", contextual, "hello.txt", "hello, file"}, "hello, file"},
		"with a vendored package": {[]string{
			"go.mod", goMod + "\nrequire example.test/dep v1.0.0\n", "vendor/modules.txt", "# example.test/dep v1.0.0\n## explicit; go 1.22\nexample.test/dep\n",
			"vendor/example.test/dep/dep.go", "package dep\n\nconst Hello = \"vendored\"\n",
			"fn.go", "package fn\n\nimport (\n\t\"net/http\"\n\n\t\"example.test/dep\"\n)\n\nfunc Handle(w http.ResponseWriter, r *http.Request) { w.Write([]byte(dep.Hello)) }\n",
		}, "vendored"},
	}
	for what, c := range cases {
		t.Run(what, func(t *testing.T) {
			dir := write(t, t.TempDir(), c.files...)
			p := buildtest.Start(t, buildtest.Build(t, &Builder{}, build.Request{Dir: dir, Name: "fn"}).Image)
			if got := p.Get(t, "/path"); got != c.want {
				t.Errorf("it answers %q, want %q", got, c.want)
			}
			for _, path := range []string{"/health/readiness", "/health/liveness"} {
				p.Get(t, path)
			}
			p.Stop(t)
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range entries {
				if !strings.Contains(strings.Join(c.files, "\n"), entry.Name()) {
					t.Errorf("the build left %s in the folder", entry.Name())
				}
			}
		})
	}
}

const instance = `package function

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"
)

type F struct {
	started string
	slow    chan struct{}
}

func New() *F { return &F{slow: make(chan struct{}, 1)} }

func (f *F) Start(_ context.Context, env map[string]string) error {
	f.started = env["GREETING"]
	return nil
}

func (f *F) Handle(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/slow":
		f.slow <- struct{}{}
		time.Sleep(300 * time.Millisecond)
	case "/until-slow":
		<-f.slow
	}
	fmt.Fprint(w, f.started)
}

func (f *F) Ready(context.Context) (bool, error) { return false, nil }
func (f *F) Alive(context.Context) (bool, error) { return true, nil }

func (f *F) Stop(context.Context) error {
	if os.Getenv("GREETING") == "fail" {
		return errors.New("stopping did not work")
	}
	return os.WriteFile(os.Getenv("MARK"), []byte("stopped"), 0o600)
}
`

func TestInstancesAreStartedAndStopped(t *testing.T) {
	needGo(t)
	mark := filepath.Join(t.TempDir(), "mark")
	dir := write(t, t.TempDir(), "go.mod", goMod, "fn.go", instance)
	p := buildtest.Start(t, buildtest.Build(t, &Builder{}, build.Request{Dir: dir}).Image, "GREETING=good day", "MARK="+mark)
	if got := p.Get(t, "/"); got != "good day" {
		t.Errorf("it answers %q", got)
	}
	if status, _ := p.Do(t, "/health/readiness"); status != http.StatusServiceUnavailable {
		t.Errorf("readiness %d while it says it is not ready", status)
	}
	p.Get(t, "/health/liveness")
	answer := make(chan string, 1)
	go func() { answer <- p.Get(t, "/slow") }()
	p.Get(t, "/until-slow") // the slow one is in the handler now
	p.Stop(t)
	if got := <-answer; got != "good day" {
		t.Errorf("a request in progress got %q", got)
	}
	if got, err := os.ReadFile(mark); err != nil || string(got) != "stopped" {
		t.Errorf("Stop was not called: %q, %v", got, err)
	}
}

func TestProblemsAreNamed(t *testing.T) {
	needGo(t)
	for what, c := range map[string]struct {
		files []string
		says  string
	}{
		"a module that is not there": {[]string{"go.mod", goMod, "main.go", "package main\n\nimport \"example.test/missing\"\n\nfunc main() { missing.Do() }\n"}, "main.go:3:8: no required module"},
		"a go.mod that is none":      {[]string{"go.mod", "modul x\n", "main.go", "package main\n\nfunc main() {}\n"}, "go.mod:1"},
		"a function's mistake": {[]string{
			"go.mod", goMod, "f.go", "package f\n\nimport \"net/http\"\n\nfunc Handle(w http.ResponseWriter, r *http.Request) {\n\treturn 1\n}\n",
		}, "f.go:6:9: too many return values"},
		"a handler that only looks like one": {[]string{
			"go.mod", goMod, "f.go", "package f\n\ntype http struct{ ResponseWriter, Request int }\n\nfunc New() *Thing { return nil }\n\ntype Thing struct{}\n\nfunc (Thing) Handle(w int) {}\n",
		}, "Thing.Handle must be func"},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := (&Builder{}).Build(t.Context(), build.Request{Dir: write(t, t.TempDir(), c.files...)})
			if !errors.Is(err, build.ErrSource) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
}

func TestToolchainThatIsMissing(t *testing.T) {
	dir := write(t, t.TempDir(), "go.mod", goMod, "main.go", "package main\n\nfunc main() {}\n")
	t.Setenv("PATH", t.TempDir())
	_, err := (&Builder{}).Build(t.Context(), build.Request{Dir: dir})
	if !errors.Is(err, build.ErrNoToolchain) || !strings.Contains(err.Error(), "go.dev/dl") {
		t.Errorf("got %v", err)
	}
}

func TestProgramNames(t *testing.T) {
	for dir, want := range map[string]string{
		"/x/hello-go": "hello-go", "/x/Hello World": "hello-world", "/x/../..": "app", "/x/ÄÖ": "app", "/x/a..": "a", "/x/.git": "git",
	} {
		if got := programName("", dir); got != want {
			t.Errorf("%s: %q, want %q", dir, got, want)
		}
	}
}
