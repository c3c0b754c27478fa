// Package kubectl is the verb `ebb kubectl …`: kubectl itself, linked in, talking to ebb's cluster.
package kubectl

import (
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/plugin"
	"k8s.io/kubectl/pkg/cmd/util"

	"ebb.dev/ebb/internal/platform/config"
	"ebb.dev/ebb/internal/platform/release"
)

// Discovery is done in bursts; a loopback API needs no protection from it.
const (
	discoveryBurst = 300
	discoveryQPS   = 50
)

// Command is the verb. Everything behind it is kubectl's own command line, except that --data chooses
// ebb's data folder, fallback where it is not given. The folder's kubeconfig is used unless
// --kubeconfig names another; $KUBECONFIG is not read, since the verb says which cluster is meant.
func Command(fallback func() config.Folder) *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl [kubectl's arguments]",
		Short:              "Run kubectl against this cluster",
		DisableFlagParsing: true, // all flags are kubectl's
		SilenceUsage:       true,
		RunE: func(_ *cobra.Command, args []string) error {
			data, rest := takeData(args)
			folder := config.Folder(data)
			if data == "" {
				folder = fallback()
			}
			run(folder.Kubeconfig(), rest)
			return nil
		},
	}
}

// run executes kubectl, which ends the process itself where something failed.
func run(kubeconfig string, args []string) {
	// kubectl expects to be ended by these, or catches them itself where it waits.
	signal.Reset(syscall.SIGINT, syscall.SIGTERM)
	command := build(kubeconfig, args, genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr})
	if err := cli.RunNoErrOutput(command); err != nil {
		util.CheckErr(err)
	}
}

// build is kubectl's command with our default for --kubeconfig.
func build(kubeconfig string, args []string, streams genericiooptions.IOStreams) *cobra.Command {
	release.Stamp()
	flags := genericclioptions.NewConfigFlags(true).
		WithDeprecatedPasswordFlag().
		WithDiscoveryBurst(discoveryBurst).
		WithDiscoveryQPS(discoveryQPS).
		WithWarningPrinter(streams)
	*flags.KubeConfig = kubeconfig
	command := cmd.NewDefaultKubectlCommandWithArgs(cmd.KubectlOptions{
		PluginHandler: cmd.NewDefaultPluginHandler(plugin.ValidPluginFilenamePrefixes),
		Arguments:     append([]string{"kubectl"}, args...),
		ConfigFlags:   flags,
		IOStreams:     streams,
	})
	command.SetArgs(args)
	return command
}

// takeData takes ebb's own --data out of the arguments, wherever it stands before a lone "--".
func takeData(args []string) (data string, rest []string) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return data, append(rest, args[i:]...)
		}
		if value, ok := strings.CutPrefix(arg, "--data="); ok {
			data = value
			continue
		}
		if arg == "--data" && i+1 < len(args) {
			i++
			data = args[i]
			continue
		}
		rest = append(rest, arg)
	}
	return data, rest
}
