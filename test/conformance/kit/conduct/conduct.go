// Package conduct runs tests of upstream's against an ebb, each in a process of its own, and keeps how
// they went.
package conduct

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"ebb.dev/ebb/test/conformance/kit/ledger"
	"ebb.dev/ebb/test/conformance/kit/outcome"
)

// A Test is what has one result: a test function, or all those of a package.
type Test struct {
	Name   string // in the ledger
	Group  string // to sum up by; may be empty
	Exempt string // why it need not pass
	// Program is the compiled suite, Function the test in it: all of them if empty.
	Program, Function string
	Dir               string
	Args, Env         []string
}

// A Result is how a test ended, over all its runs.
type Result struct {
	Test
	outcome.Outcome

	Runs []outcome.Result // one by one
	Log  string           // file with the output
}

// alike tells whether all runs ended the same.
func (r *Result) alike() bool { return len(slices.Compact(slices.Clone(r.Runs))) <= 1 }

// A Conduct is one under way.
type Conduct struct {
	Options

	Dir       string // for this run only
	converter outcome.Converter
	known     []string // names of all tests there are

	mu        sync.Mutex // over results, their report and the ledger
	results   []Result
	unwritten error // why the ledger could not be written
}

// Begin checks the options and makes the folders. The ledger will have an entry for each test that is
// known by name. End must follow.
func Begin(ctx context.Context, o Options, name string, known []string) (*Conduct, error) {
	var err error
	if o.Ebb, err = filepath.Abs(o.Ebb); err != nil {
		return nil, fmt.Errorf("finding ebb: %w", err)
	}
	if o.Report == nil {
		o.Report = func(*Result) {}
	}
	c := &Conduct{Options: o, known: known}
	if c.converter, err = outcome.FindConverter(ctx); err != nil {
		return nil, err
	}
	c.Output = cmp.Or(c.Output, filepath.Join(os.TempDir(), name+"-output"))
	if err := os.MkdirAll(c.Output, 0o750); err != nil {
		return nil, fmt.Errorf("making folders: %w", err)
	}
	if c.Dir, err = os.MkdirTemp("", name+"-"); err != nil {
		return nil, fmt.Errorf("making folders: %w", err)
	}
	return c, nil
}

// Programs is a folder for what is built: beside the binary, so that the next run need not link it again.
func (c *Conduct) Programs(name string) (string, error) {
	folder := filepath.Join(filepath.Dir(c.Ebb), name)
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return "", fmt.Errorf("making folders: %w", err)
	}
	return folder, nil
}

// End forgets what was needed for this run only.
func (c *Conduct) End() { _ = os.RemoveAll(c.Dir) }

// Test runs tests, so many at once, and keeps their results.
func (c *Conduct) Test(ctx context.Context, jobs int, tests ...Test) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for _, t := range tests {
		g.Go(func() error {
			r := c.repeat(gctx, t)
			c.Add(r)
			return gctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("running tests: %w", err)
	}
	return nil
}

// repeat runs a test as often as wanted, also after a failure: whether it fails each time is worth
// knowing. It passes if all its runs do; else the first run that did not tells why.
func (c *Conduct) repeat(ctx context.Context, t Test) Result {
	all := Result{Test: t, Log: filepath.Join(c.Output, strings.ReplaceAll(t.Name, "/", ".")+".log")}
	for n := range c.Count {
		o := c.once(ctx, &t)
		all.Runs = append(all.Runs, o.Result)
		o.Took += all.Took
		if n > 0 && all.Result != outcome.Pass { // it has told why
			all.Took = o.Took
		} else {
			if c.Count > 1 && o.Result == outcome.Fail {
				o.Reason = fmt.Sprintf("run %d of %d: %s", n+1, c.Count, o.Reason)
			}
			all.Outcome = o
		}
		if ctx.Err() != nil {
			break
		}
	}
	if err := os.WriteFile(all.Log, []byte(all.Output), 0o600); err != nil {
		all.Reason += " (" + err.Error() + ")"
	}
	return all
}

// once runs a test in a process of its own: one that hangs or panics takes no other along.
func (c *Conduct) once(ctx context.Context, t *Test) outcome.Outcome {
	limited, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	args := append([]string{"-test.timeout=" + (c.Patience + time.Minute).String()}, t.Args...) // should interrupting it not help
	cmd := c.converter.Command(limited, t.Program, t.Function, args...)
	cmd.Dir, cmd.Env = t.Dir, t.Env
	o := outcome.Run(cmd, t.Function)
	if limited.Err() != nil && o.Result == outcome.Fail {
		o.Reason = strings.TrimSuffix(fmt.Sprintf("did not end within %s: %s", c.Patience, o.Reason), ": ")
	}
	return o
}

// Add keeps a result, in the ledger, too, and reports it: a run that is killed loses only what was under
// way.
func (c *Conduct) Add(r Result) {
	if r.Exempt != "" && r.Result == outcome.Fail {
		r.Reason = r.Exempt + ": " + r.Reason
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.results = append(c.results, r)
	c.Report(&r)
	c.unwritten = c.write(ledger.Entry{Test: r.Name, Result: r.Result, Reason: r.Reason})
}

// write merges a result into the ledger.
func (c *Conduct) write(e ledger.Entry) error {
	if c.Ledger == "" {
		return nil
	}
	old, err := ledger.Read(c.Ledger)
	if err != nil {
		return err
	}
	return ledger.Write(c.Ledger, ledger.Merge(old, []ledger.Entry{e}, c.known))
}

// Results are those so far, and why the ledger does not have them if so.
func (c *Conduct) Results() ([]Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.results, c.unwritten
}

// Environment is this process's without proxies, which stand between nobody here, and with more.
func Environment(more ...string) []string {
	return append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		key, _, _ := strings.Cut(v, "=")
		return strings.HasSuffix(strings.ToLower(key), "_proxy")
	}), more...)
}
