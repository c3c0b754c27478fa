// Command helm stands in for Helm where KEDA's tests call it: it knows the few charts that they install,
// renders as much of them as the tests use, and lets kubectl do the rest.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], kubectl)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// run does a command line of Helm's.
func run(ctx context.Context, args []string, do doer) error {
	c, err := parse(args)
	if err != nil {
		return err
	}
	r := release{command: c, do: do}
	switch c.verb {
	case "repo", "version": // charts are here
		return nil
	case "install", "upgrade":
		return r.install(ctx)
	case "uninstall", "delete":
		return r.remove(ctx)
	default:
		return fmt.Errorf("unknown command %q", c.verb)
	}
}
