package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"ebb.dev/ebb/internal/server"
)

func statusCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Say whether ebb is ready; exits 0 only when it is",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			status, err := server.ReadStatus(o.folder())
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			_, _ = fmt.Fprintf(out, "data    %s\nstate   %s\n", status.Data, status.State)
			if status.State == server.StateStopped {
				_, _ = fmt.Fprintln(out, "next    ebb up")
				return exitError(exitFailed)
			}
			printAddresses(out, status)
			if status.State != server.StateReady {
				return exitError(exitFailed)
			}
			return nil
		},
	}
}

// printAddresses writes what a running ebb can be reached by, and what this machine cannot give it.
func printAddresses(out interface{ Write([]byte) (int, error) }, s server.Status) {
	var b strings.Builder
	fmt.Fprintf(&b, "pid     %d\n", s.PID)
	fmt.Fprintf(&b, "http    %s\n", strings.Join(s.HTTP, "  "))
	fmt.Fprintf(&b, "https   %s\n", strings.Join(s.HTTPS, "  "))
	if s.Trust != "" {
		fmt.Fprintf(&b, "trust   %s (for clients of https)\n", s.Trust)
	}
	fmt.Fprintf(&b, "api     %s\n", s.API)
	fmt.Fprintf(&b, "images  %s (push here with any client)\n", s.Registry)
	fmt.Fprintf(&b, "config  %s\n", s.Kubeconfig)
	for _, limit := range s.Limits {
		fmt.Fprintf(&b, "note    %s\n", limit)
	}
	_, _ = out.Write([]byte(b.String()))
}
