package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"ebb.dev/ebb/internal/server"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of ebb and of the Kubernetes in it",
		Args:  cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) {
			_, _ = fmt.Fprintf(c.OutOrStdout(), "ebb %s, Kubernetes %s, %s %s/%s\n", server.Version, server.KubernetesVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}
