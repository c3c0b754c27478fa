package conduct

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"ebb.dev/ebb/test/conformance/kit/cluster"
)

// Options say what to run against which ebb.
type Options struct {
	Ebb, Running, HTTP, API string
	Run                     *regexp.Regexp // matches a test's name
	Ledger, Output          string         // no ledger is written without a path
	Count, Jobs             int
	Patience                time.Duration // for one test
	Report                  func(*Result)
}

// Flags makes flags of the options, whose present values are the defaults.
func (o *Options) Flags(set *flag.FlagSet) {
	set.StringVar(&o.Ebb, "ebb", "bin/ebb", "binary to test")
	set.StringVar(&o.Running, "running", "", "data folder of an ebb that runs already and goes on running")
	set.StringVar(&o.HTTP, "http", "127.0.0.1:0", "address of the gateway on this machine; port 0 is a free one")
	set.StringVar(&o.API, "api", "127.0.0.1:0", "address of the Kubernetes API on this machine")
	o.Run = regexp.MustCompile("")
	set.Func("run", "only tests whose name in the ledger matches this expression", func(text string) (err error) {
		o.Run, err = regexp.Compile(text)
		return err
	})
	set.StringVar(&o.Ledger, "ledger", "ledger.json", "file with the last result of every test")
	set.StringVar(&o.Output, "output", "", "folder for what tests print; a temporary one if empty")
	set.IntVar(&o.Count, "count", 1, "how often each test runs; it passes if all its runs do")
	set.IntVar(&o.Jobs, "jobs", o.Jobs, "how many tests run at once")
	set.DurationVar(&o.Patience, "timeout", o.Patience, "time for one test")
}

// Cluster is the ebb that the options name, started here if none runs already; stop removes one that
// was, whatever else was interrupted. The flags are further ones for ebb up.
func (o *Options) Cluster(ctx context.Context, dir string, flags ...string) (c *cluster.Cluster, stop func() error, err error) {
	c = &cluster.Cluster{Binary: o.Ebb, Data: o.Running, HTTP: cluster.Free(ctx, o.HTTP), API: cluster.Free(ctx, o.API), Flags: flags}
	if c.Data != "" {
		return c, func() error { return nil }, nil
	}
	c.Data = filepath.Join(dir, "data")
	if err := c.Up(ctx); err != nil {
		return nil, nil, err
	}
	return c, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Cleaning)
		defer cancel()
		return c.Remove(ctx)
	}, nil
}

// Cleaning is patience for clean-up, which goes on when everything else was interrupted.
const Cleaning = 3 * time.Minute

// Main is a command: it reads flags, runs, prints the sums and ends the process. Flags of its own the
// caller has declared before.
func Main(o Options, run func(context.Context, Options) ([]Result, error)) {
	o.Flags(flag.CommandLine)
	flag.Parse()
	o.Report = Show
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := command(ctx, o, run)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, o Options, run func(context.Context, Options) ([]Result, error)) error {
	if os.Geteuid() != 0 {
		return errors.New("pods need root")
	}
	began := time.Now()
	results, err := run(ctx, o)
	if err != nil {
		return err
	}
	return Summarize(os.Stdout, results, time.Since(began))
}
