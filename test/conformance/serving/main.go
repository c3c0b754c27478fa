// Command serving runs Knative Serving's own suites against an ebb of their own, prints how each test
// went, and writes the last result of each into the ledger.
//
// It is a module of its own, so that what the suites link stays out of the product. It needs root, as
// pods do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := command(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context) error {
	o := options{report: show}
	var run string
	flag.StringVar(&o.ebb, "ebb", "bin/ebb", "binary to test")
	flag.StringVar(&o.running, "running", "", "data folder of an ebb that runs already and goes on running")
	flag.StringVar(&o.http, "http", "127.0.0.1:0", "address of the gateway on this machine; port 0 is a free one")
	flag.StringVar(&o.api, "api", "127.0.0.1:0", "address of the Kubernetes API on this machine")
	flag.StringVar(&o.suites, "suite", "", "suites to run, parted by commas; conformance and toggled are groups of them")
	flag.StringVar(&run, "run", "", "only tests that match this expression, as suite/TestName")
	flag.StringVar(&o.ledger, "ledger", "ledger.json", "file with the last result of every test")
	flag.StringVar(&o.output, "output", "", "folder for what tests print; a temporary one if empty")
	flag.IntVar(&o.count, "count", 1, "how often each test runs; all must pass")
	flag.IntVar(&o.jobs, "jobs", 1, "how many tests run at once")
	flag.DurationVar(&o.patience, "timeout", 15*time.Minute, "time for one test")
	flag.Parse()
	var err error
	if o.run, err = regexp.Compile(run); err != nil {
		return fmt.Errorf("reading -run: %w", err)
	}
	if os.Geteuid() != 0 {
		return errors.New("pods need root")
	}
	began := time.Now()
	results, err := conduct(ctx, o)
	if err != nil {
		return err
	}
	return summarize(results, time.Since(began))
}
