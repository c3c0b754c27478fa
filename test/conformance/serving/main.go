// Command serving runs Knative Serving's own suites against an ebb of their own, prints how each test
// went, and writes the last result of each into the ledger.
//
// It is a module of its own, so that what the suites link stays out of the product. It needs root, as
// pods do.
package main

import (
	"context"
	"flag"
	"time"

	"ebb.dev/ebb/test/conformance/kit/conduct"
)

func main() {
	suites := flag.String("suite", "", "suites to run, parted by commas; conformance and toggled are groups of them")
	conduct.Main(conduct.Options{Jobs: 1, Patience: 15 * time.Minute}, func(ctx context.Context, o conduct.Options) ([]conduct.Result, error) {
		return run(ctx, options{Options: o, suites: *suites})
	})
}
