// Package cli is ebb's command line: one file a verb.
//
// Every verb talks to a running ebb through its data folder: the kubeconfig in it, the status file
// and the control socket. Only `up` starts anything.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"ebb.dev/ebb/internal/cli/kubectl"
	"ebb.dev/ebb/internal/platform/config"
)

// Exit codes: 0 done, 1 failed, 2 used wrongly.
const (
	exitFailed = 1
	exitUsage  = 2
)

// errUsage marks errors in how a command was called.
var errUsage = errors.New("usage")

// exitError carries a code for a verb that has already said what there is to say.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// Main runs the command line and returns the process's exit code.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	defer stop()
	context.AfterFunc(ctx, stop) // so that the second signal ends the process at once
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "ebb:", err)
		return exitUsage
	default:
		fmt.Fprintln(os.Stderr, "ebb:", err)
		return exitFailed
	}
}

// endings are the signals that ask for an orderly end; a lost terminal is one unless the caller chose
// to ignore it, as nohup does.
func endings() []os.Signal {
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// options are the flags every verb shares.
type options struct {
	data      string
	namespace string
}

// folder is the data folder the flags name, resolved where that is possible: what fails to resolve
// fails to open too, and says so there.
func (o *options) folder() config.Folder {
	folder := config.DefaultFolder()
	if o.data != "" {
		folder = config.Folder(o.data)
	}
	if resolved, err := folder.Resolve(); err == nil {
		return resolved
	}
	return folder
}

func newRoot() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:           "ebb",
		Short:         "Serverless for Kubernetes in one binary",
		SilenceUsage:  true,
		SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{
			HiddenDefaultCmd: true,
		},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w: %w; see `%s --help`", errUsage, err, c.CommandPath())
	})
	root.PersistentFlags().StringVar(&o.data, "data", "", "data folder (default "+string(config.DefaultFolder())+", or $EBB_DATA)")
	root.AddCommand(
		upCommand(o), downCommand(o), statusCommand(o), resetCommand(o),
		deployCommand(o), getCommand(o), logsCommand(o), describeCommand(o), explainCommand(o), scaleCommand(o), deleteCommand(o),
		imageCommand(o), kubectl.Command(o.folder), versionCommand(),
	)
	refuseWrongUse(root)
	// The Kubernetes inside leaves a flag of its own on every command line; `ebb version` tells more.
	root.LocalFlags() // brings it in
	_ = root.PersistentFlags().MarkHidden("version")
	return root
}

// refuseWrongUse makes unknown verbs and wrong numbers of arguments usage errors, which say where to
// read more.
func refuseWrongUse(c *cobra.Command) {
	if c.HasSubCommands() {
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return fmt.Errorf("%w: unknown command %q; see `%s --help`", errUsage, args[0], c.CommandPath())
		}
	} else if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return fmt.Errorf("%w: %w; see `%s --help`", errUsage, err, c.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		refuseWrongUse(sub)
	}
}

// withNamespace adds the -n flag.
func (o *options) withNamespace(c *cobra.Command) *cobra.Command {
	c.Flags().StringVarP(&o.namespace, "namespace", "n", "default", "namespace")
	return c
}
