package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"ebb.dev/ebb/test/conformance/kit/conduct"
	"ebb.dev/ebb/test/conformance/kit/outcome"
	"ebb.dev/ebb/test/conformance/serving/cluster"
	"ebb.dev/ebb/test/conformance/serving/image"
	"ebb.dev/ebb/test/conformance/serving/suite"
)

// options say what to run against which ebb.
type options struct {
	conduct.Options

	suites string
	images []string // to build; all if empty
}

// settle is how long changed settings may take to reach everybody; upstream waits ten times as long.
const settle = 3 * time.Second

// run runs the selected tests from the first build to the last clean-up.
func run(ctx context.Context, o options) (_ []conduct.Result, err error) {
	suites, err := suite.Select(o.suites)
	if err != nil {
		return nil, err
	}
	tests, err := suite.Tests(ctx, suite.All()...)
	if err != nil {
		return nil, err
	}
	c, err := conduct.Begin(ctx, o.Options, "ebb-conformance", known(tests))
	if err != nil {
		return nil, err
	}
	defer c.End()
	r := &runner{Conduct: c, tests: tests}
	if r.programs, err = c.Programs("conformance"); err != nil {
		return nil, err
	}
	built, err := r.build(ctx, suites)
	if err != nil {
		return nil, err
	}
	started, stop, err := c.Cluster(ctx, c.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	r.cluster = &cluster.Cluster{Cluster: *started}
	if err := r.furnish(ctx, o.images); err != nil {
		return nil, err
	}
	for i := range built {
		if err = r.suite(ctx, i == 0, &built[i]); err != nil {
			break
		}
	}
	results, unwritten := c.Results()
	return results, errors.Join(err, unwritten)
}

// runner is one conduct under way.
type runner struct {
	*conduct.Conduct

	tests    map[string][]string // test functions of each suite
	programs string              // folder of what is built
	cluster  *cluster.Cluster
	flags    []string // that every suite gets
	env      []string
}

func (r *runner) build(ctx context.Context, suites []suite.Suite) ([]suite.Built, error) {
	suites = slices.DeleteFunc(slices.Clone(suites), func(s suite.Suite) bool { return len(r.selected(&s)) == 0 })
	if len(suites) == 0 {
		return nil, errors.New("no test matches -suite and -run")
	}
	return suite.Build(ctx, r.programs, suites...)
}

// selected are the test functions of a suite that shall run.
func (r *runner) selected(s *suite.Suite) []string {
	return slices.DeleteFunc(slices.Clone(r.tests[s.Name]), func(test string) bool {
		return !r.Run.MatchString(s.Name + "/" + test)
	})
}

// furnish pushes the images, applies objects and settings, and makes the flags that tell the suites.
func (r *runner) furnish(ctx context.Context, images []string) error {
	registry, err := r.cluster.Registry()
	if err != nil {
		return err
	}
	repository := registry + "/knative"
	if len(images) == 0 {
		images = image.All()
	}
	if err := image.Push(ctx, r.programs, repository, images...); err != nil {
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
	}
	r.env = conduct.Environment("SYSTEM_NAMESPACE="+cluster.SystemNamespace,
		"GATEWAY_OVERRIDE="+cluster.Gateway, "GATEWAY_NAMESPACE_OVERRIDE="+cluster.GatewayNamespace)
	return nil
}

// suite runs the selected tests of a suite with its settings, which are put back.
func (r *runner) suite(ctx context.Context, first bool, b *suite.Built) (err error) {
	var tests []conduct.Test
	for _, function := range r.selected(&b.Suite) {
		name := b.Name + "/" + function
		tests = append(tests, conduct.Test{
			Name: name, Exempt: exempt[name], Program: b.Program, Function: function, Dir: b.Dir,
			Args: r.flags, Env: slices.Concat(r.env, b.Env),
		})
	}
	if b.Err != nil {
		for _, t := range tests {
			r.Add(conduct.Result{Test: t, Outcome: outcome.Outcome{Result: outcome.Fail, Reason: b.Err.Error()}})
		}
		return nil
	}
	restore, err := r.cluster.Set(ctx, b.Settings)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), conduct.Cleaning)
		defer cancel()
		err = errors.Join(err, restore(ctx))
	}()
	if len(b.Settings) > 0 || first {
		time.Sleep(settle)
	}
	return r.Test(ctx, r.Jobs, tests...)
}

// known are the names of all tests there are.
func known(tests map[string][]string) []string {
	var names []string
	for _, s := range suite.All() {
		for _, test := range tests[s.Name] {
			names = append(names, s.Name+"/"+test)
		}
	}
	return names
}
