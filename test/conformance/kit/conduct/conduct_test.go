package conduct

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ebb.dev/ebb/test/conformance/kit/ledger"
	"ebb.dev/ebb/test/conformance/kit/outcome"
)

// begin makes a conduct whose tests do what a script says, which finds the folder of the run in $PWD.
func begin(t *testing.T, o Options, script string) *Conduct {
	t.Helper()
	set := flag.NewFlagSet("", flag.ContinueOnError)
	defaults := Options{Jobs: 2, Patience: time.Minute}
	defaults.Flags(set)
	if err := set.Parse([]string{"-ledger=" + o.Ledger, "-output=" + t.TempDir(), fmt.Sprintf("-count=%d", max(o.Count, 1))}); err != nil {
		t.Fatal(err)
	}
	if o.Patience != 0 {
		defaults.Patience = o.Patience
	}
	c, err := Begin(t.Context(), defaults, "kit", []string{"v1/TestOld", "v1/TestX"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.End)
	program := filepath.Join(c.Dir, "converter")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	c.converter = outcome.Converter(program)
	return c
}

const pass = `echo '{"Action":"pass","Test":"TestX"}'`

func TestResults(t *testing.T) {
	cases := map[string]struct {
		script string
		count  int
		exempt string
		want   outcome.Outcome
		runs   []outcome.Result
	}{
		"a pass":                          {script: pass, want: outcome.Outcome{Result: outcome.Pass}, runs: []outcome.Result{"pass"}},
		"all runs must pass":              {script: pass, count: 3, want: outcome.Outcome{Result: outcome.Pass}, runs: []outcome.Result{"pass", "pass", "pass"}},
		"the first that does not is told": {script: `[ $(wc -c <runs) -ne 2 ] || exit 1;` + pass, count: 3, want: outcome.Outcome{Result: outcome.Fail, Reason: "run 2 of 3: the suite ended before the test did"}, runs: []outcome.Result{"pass", "fail", "pass"}},
		"why it need not pass is told":    {script: "exit 1", exempt: "not here", want: outcome.Outcome{Result: outcome.Fail, Reason: "not here: the suite ended before the test did"}, runs: []outcome.Result{"fail"}},
	}
	for name, x := range cases {
		t.Run(name, func(t *testing.T) {
			c := begin(t, Options{Count: x.count}, "printf x >>runs\n"+x.script)
			test := Test{Name: "v1/TestX", Function: "TestX", Dir: c.Dir, Exempt: x.exempt, Env: os.Environ()}
			if err := c.Test(t.Context(), 1, test); err != nil {
				t.Fatal(err)
			}
			results, err := c.Results()
			if err != nil || len(results) != 1 {
				t.Fatalf("%d results, %v", len(results), err)
			}
			got := results[0].Outcome
			got.Took, got.Output = 0, ""
			if diff := cmp.Diff(x.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(x.runs, results[0].Runs); diff != "" {
				t.Errorf("runs, -want +got:\n%s", diff)
			}
			if runs, err := os.ReadFile(filepath.Join(c.Dir, "runs")); err != nil || len(runs) != len(x.runs) {
				t.Errorf("ran %q, want %d: %v", runs, len(x.runs), err)
			}
			if _, err := os.Stat(results[0].Log); err != nil || filepath.Base(results[0].Log) != "v1.TestX.log" {
				t.Errorf("log %s: %v", results[0].Log, err)
			}
		})
	}
}

func TestPatience(t *testing.T) {
	c := begin(t, Options{Patience: 300 * time.Millisecond}, "while :; do sleep 0.02; done")
	if err := c.Test(t.Context(), 1, Test{Name: "v1/TestX", Function: "TestX", Dir: c.Dir}); err != nil {
		t.Fatal(err)
	}
	if got := c.results[0].Reason; !strings.HasPrefix(got, "did not end within 300ms: ") {
		t.Errorf("reason %q", got)
	}
}

func TestLedgerIsMerged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.json")
	if err := ledger.Write(path, []ledger.Entry{{Test: "v1/TestOld", Result: outcome.Pass}, {Test: "v1/TestGone", Result: outcome.Pass}}); err != nil {
		t.Fatal(err)
	}
	c := begin(t, Options{Ledger: path}, pass)
	test := Test{Name: "v1/TestX", Function: "TestX", Dir: c.Dir, Env: os.Environ()}
	if err := c.Test(t.Context(), 2, test); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Results(); err != nil {
		t.Fatal(err)
	}
	got, err := ledger.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]ledger.Entry{{Test: "v1/TestOld", Result: outcome.Pass}, {Test: "v1/TestX", Result: outcome.Pass}}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestInterruptedRunSaysSo(t *testing.T) {
	c := begin(t, Options{}, pass)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Test(ctx, 1, Test{Name: "v1/TestX", Function: "TestX", Dir: c.Dir}); err == nil {
		t.Error("no error")
	}
}

func TestFlags(t *testing.T) {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	o := Options{Jobs: 6, Patience: time.Hour}
	o.Flags(set)
	if err := set.Parse([]string{"-run", "^a", "-count", "2"}); err != nil {
		t.Fatal(err)
	}
	if o.Jobs != 6 || o.Patience != time.Hour || o.Count != 2 || !o.Run.MatchString("ab") || o.Run.MatchString("ba") {
		t.Errorf("got %+v", o)
	}
	if err := set.Parse([]string{"-run", "("}); err == nil {
		t.Error("an expression that is none is taken")
	}
}

func TestSummarize(t *testing.T) {
	result := func(name, group string, r outcome.Result, exempt string) Result {
		return Result{Test: Test{Name: name, Group: group, Exempt: exempt}, Outcome: outcome.Outcome{Result: r}, Log: name + ".log"}
	}
	ran := func(r Result, runs ...outcome.Result) Result {
		r.Runs = runs
		return r
	}
	cases := map[string]struct {
		results []Result
		want    string
		err     string
	}{
		"one group is not named": {
			results: []Result{result("a", "", outcome.Pass, ""), result("b", "", outcome.Skip, "")},
			want:    "\n2 tests in 1s: 1 passed, 0 failed, 1 skipped\n",
		},
		"several are": {
			results: []Result{result("a", "B", outcome.Pass, ""), result("b", "A", outcome.Fail, "not here")},
			want:    "\n2 tests in 1s: 1 passed, 1 failed, 0 skipped\ngroup A: 0 passed, 1 failed, 0 skipped\ngroup B: 1 passed, 0 failed, 0 skipped\n",
		},
		"what did not end the same each time is named": {
			results: []Result{
				ran(result("a", "", outcome.Pass, ""), outcome.Pass, outcome.Pass),
				ran(result("b", "", outcome.Fail, "not here"), outcome.Fail, outcome.Fail),
				ran(result("c", "", outcome.Fail, "not here"), outcome.Fail, outcome.Pass),
			},
			want: "\n3 tests in 1s: 1 passed, 2 failed, 0 skipped\nalike in 2 runs: 2 of 3\n  c [fail pass]\n",
		},
		"what must pass and did not is an error": {
			results: []Result{result("a", "", outcome.Fail, "")},
			want:    "\n1 tests in 1s: 0 passed, 1 failed, 0 skipped\n",
			err:     "1 tests failed that must pass; what they printed:\n  a (a.log)",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			err := Summarize(&out, c.results, time.Second)
			if (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if diff := cmp.Diff(c.want, out.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestEnvironmentHasNoProxies(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://x")
	t.Setenv("no_proxy", "y")
	env := Environment("A=b")
	if slices.ContainsFunc(env, func(v string) bool { return strings.Contains(strings.ToLower(v), "_proxy=") }) || env[len(env)-1] != "A=b" {
		t.Errorf("got %q", env)
	}
}
