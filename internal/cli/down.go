package cli

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"ebb.dev/ebb/internal/server"
)

func downCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Drain and stop everything, keeping state; also cleans up after a killed ebb",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			was, err := server.Down(c.Context(), o.folder())
			if err != nil {
				return err
			}
			if was {
				_, _ = fmt.Fprintf(c.OutOrStdout(), "stopped; state is kept in %s, `ebb up` continues\n", o.folder())
			} else {
				_, _ = fmt.Fprintf(c.OutOrStdout(), "nothing was running on %s; leftovers, if any, are gone\n", o.folder())
			}
			return nil
		},
	}
}

func resetCommand(o *options) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "reset",
		Short: "Stop everything and delete the data folder: cluster, images, volumes, logs",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			folder := o.folder()
			if !yes {
				_, _ = fmt.Fprintf(c.OutOrStdout(), "This deletes %s with every service, image and volume in it. Type yes to go on: ", folder)
				line, _ := bufio.NewReader(c.InOrStdin()).ReadString('\n')
				if strings.TrimSpace(line) != "yes" {
					return fmt.Errorf("%w: not confirmed, nothing was changed (--yes skips the question)", errUsage)
				}
			}
			if err := server.Reset(c.Context(), folder); err != nil {
				return err
			}
			_, _ = fmt.Fprintf(c.OutOrStdout(), "%s is gone\n", folder)
			return nil
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}
