// Command keda runs KEDA's own end-to-end tests against an ebb started for them, prints how each
// package went, and writes the last result of each into the ledger.
//
// It is a module of its own, so that what the tests link stays out of the product. It needs root, as
// pods do.
package main

import (
	"context"
	"flag"
	"time"

	"ebb.dev/ebb/test/conformance/kit/conduct"
)

func main() {
	groups := flag.String("group", "", "groups of packages to run, parted by commas: A, B, C, more")
	const waiting = 6 // most of their time packages wait
	conduct.Main(conduct.Options{Jobs: waiting, Patience: 20 * time.Minute}, func(ctx context.Context, o conduct.Options) ([]conduct.Result, error) {
		return run(ctx, o, *groups)
	})
}
