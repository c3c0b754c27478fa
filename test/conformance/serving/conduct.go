package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"ebb.dev/ebb/test/conformance/serving/cluster"
	"ebb.dev/ebb/test/conformance/serving/image"
	"ebb.dev/ebb/test/conformance/serving/ledger"
	"ebb.dev/ebb/test/conformance/serving/outcome"
	"ebb.dev/ebb/test/conformance/serving/suite"
)

// options say what to run against which ebb.
type options struct {
	ebb, running, http, api string
	suites                  string
	run                     *regexp.Regexp // matches suite/TestName
	images                  []string       // to build; all if empty
	ledger, output          string         // no ledger is written without a path
	count, jobs             int
	patience                time.Duration // for one test
	report                  func(result)
}

// result is how a test function ended, over all its runs.
type result struct {
	name string // suite/TestName
	outcome.Outcome
	log string // file with the output
}

// patience for clean-up, which goes on when everything else was interrupted.
const cleaning = 3 * time.Minute

// settle is how long changed settings may take to reach everybody; upstream waits ten times as long.
const settle = 3 * time.Second

// conduct runs the selected tests from the first build to the last clean-up.
func conduct(ctx context.Context, o options) (_ []result, err error) {
	if o.ebb, err = filepath.Abs(o.ebb); err != nil {
		return nil, err
	}
	suites, err := suite.Select(o.suites)
	if err != nil {
		return nil, err
	}
	tests, err := suite.Tests(ctx, suite.All()...)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "ebb-conformance-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if o.output == "" {
		o.output = filepath.Join(os.TempDir(), "ebb-conformance-output")
	}
	if err := os.MkdirAll(o.output, 0o750); err != nil {
		return nil, err
	}
	r := &runner{options: o, tests: tests, dir: dir}
	if r.converter, err = outcome.FindConverter(ctx); err != nil {
		return nil, err
	}
	built, err := r.build(ctx, suites)
	if err != nil {
		return nil, err
	}
	stop, err := r.start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	for i := range built {
		if err := r.suite(ctx, &built[i]); err != nil {
			return r.results, errors.Join(err, r.write())
		}
	}
	return r.results, r.write()
}

// runner is one conduct under way.
type runner struct {
	options
	tests     map[string][]string // test functions of each suite
	dir       string
	cluster   *cluster.Cluster
	converter outcome.Converter
	flags     []string // that every suite gets
	env       []string

	mu      sync.Mutex // over results and their report
	results []result
}

func (r *runner) build(ctx context.Context, suites []suite.Suite) ([]suite.Built, error) {
	suites = slices.DeleteFunc(slices.Clone(suites), func(s suite.Suite) bool { return len(r.selected(&s)) == 0 })
	if len(suites) == 0 {
		return nil, errors.New("no test matches -suite and -run")
	}
	return suite.Build(ctx, r.programs(), suites...)
}

// programs is where what is built stays, beside the binary: the next run need not link it again.
func (r *runner) programs() string { return filepath.Join(filepath.Dir(r.ebb), "conformance") }

// selected are the test functions of a suite that shall run.
func (r *runner) selected(s *suite.Suite) []string {
	return slices.DeleteFunc(slices.Clone(r.tests[s.Name]), func(test string) bool {
		return !r.run.MatchString(s.Name + "/" + test)
	})
}

// start brings up an ebb with all that the suites expect, unless one runs already.
func (r *runner) start(ctx context.Context) (stop func() error, err error) {
	r.cluster = &cluster.Cluster{Binary: r.ebb, Data: r.running, HTTP: free(ctx, r.http), API: free(ctx, r.api)}
	if r.running == "" {
		r.cluster.Data = filepath.Join(r.dir, "data")
		if err := r.cluster.Up(ctx); err != nil {
			return nil, err
		}
	}
	stop = func() error {
		if r.running != "" {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleaning)
		defer cancel()
		return r.cluster.Remove(ctx)
	}
	if err := r.furnish(ctx); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// free chooses a free port where none is named.
func free(ctx context.Context, address string) string {
	if !strings.HasSuffix(address, ":0") {
		return address
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return address
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// furnish pushes the images, applies objects and settings, and makes the flags that tell the suites.
func (r *runner) furnish(ctx context.Context) error {
	registry, err := r.cluster.Registry()
	if err != nil {
		return err
	}
	repository := registry + "/knative"
	images := r.images
	if len(images) == 0 {
		images = image.All()
	}
	if err := image.Push(ctx, r.programs(), repository, images...); err != nil {
		return err
	}
	if err := r.cluster.Prepare(ctx); err != nil {
		return err
	}
	if _, err := r.cluster.Set(ctx, suite.Baseline()); err != nil {
		return err
	}
	r.flags = []string{
		"-kubeconfig=" + r.cluster.Kubeconfig(), "-dockerrepo=" + repository, "-enable-alpha", "-enable-beta",
		"-disable-logstream", "-ingress-class=ebb.ingress.networking.knative.dev", "-test.parallel=1",
		"-test.timeout=" + (r.patience + time.Minute).String(), // should interrupting it not help
	}
	r.env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		key, _, _ := strings.Cut(v, "=")
		return strings.HasSuffix(strings.ToLower(key), "_proxy")
	}), "SYSTEM_NAMESPACE="+cluster.SystemNamespace, "GATEWAY_OVERRIDE="+cluster.Gateway, "GATEWAY_NAMESPACE_OVERRIDE="+cluster.GatewayNamespace)
	return nil
}

// suite runs the selected tests of a suite with its settings, which are put back.
func (r *runner) suite(ctx context.Context, b *suite.Built) (err error) {
	selected := r.selected(&b.Suite)
	if b.Err != nil {
		for _, test := range selected {
			r.add(result{name: b.Name + "/" + test, Outcome: outcome.Outcome{Result: outcome.Fail, Reason: b.Err.Error()}})
		}
		return nil
	}
	restore, err := r.cluster.Set(ctx, b.Settings)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleaning)
		defer cancel()
		err = errors.Join(err, restore(ctx))
	}()
	if len(b.Settings) > 0 || len(r.results) == 0 {
		time.Sleep(settle)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.jobs)
	for _, test := range selected {
		g.Go(func() error {
			r.add(r.test(gctx, b, test))
			return gctx.Err()
		})
	}
	return g.Wait()
}

// test runs a test function as often as wanted. It passes if all its runs do; else the first run that
// did not tells why.
func (r *runner) test(ctx context.Context, b *suite.Built, test string) result {
	all := result{name: b.Name + "/" + test}
	all.log = filepath.Join(r.output, b.Name+"."+test+".log")
	for n := range r.count {
		o := r.once(ctx, b, test)
		if err := write(all.log, o.Output); err != nil {
			o.Reason += " (" + err.Error() + ")"
		}
		if r.count > 1 && o.Result == outcome.Fail {
			o.Reason = fmt.Sprintf("run %d of %d: %s", n+1, r.count, o.Reason)
		}
		o.Took += all.Took
		all.Outcome = o
		if o.Result != outcome.Pass || ctx.Err() != nil {
			break
		}
	}
	return all
}

// once runs a test function in a process of its own: one that hangs or panics takes no other along.
func (r *runner) once(ctx context.Context, b *suite.Built, test string) outcome.Outcome {
	limited, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	cmd := r.converter.Command(limited, b.Program, test, r.flags...)
	cmd.Dir, cmd.Env = b.Dir, append(slices.Clone(r.env), b.Env...)
	o := outcome.Run(cmd, test)
	if limited.Err() != nil && o.Result == outcome.Fail {
		o.Reason = strings.TrimSuffix(fmt.Sprintf("did not end within %s: %s", r.patience, o.Reason), ": ")
	}
	return o
}

func (r *runner) add(got result) {
	if why := exempt[got.name]; why != "" && got.Result == outcome.Fail {
		got.Reason = why + ": " + got.Reason
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results = append(r.results, got)
	r.report(got)
}

// write merges the results into the ledger.
func (r *runner) write() error {
	if r.ledger == "" {
		return nil
	}
	old, err := ledger.Read(r.ledger)
	if err != nil {
		return err
	}
	var fresh []ledger.Entry
	for i := range r.results {
		got := &r.results[i]
		fresh = append(fresh, ledger.Entry{Test: got.name, Result: got.Result, Reason: got.Reason})
	}
	var known []string
	for _, s := range suite.All() {
		for _, test := range r.tests[s.Name] {
			known = append(known, s.Name+"/"+test)
		}
	}
	return ledger.Write(r.ledger, ledger.Merge(old, fresh, known))
}

func write(path, text string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}
