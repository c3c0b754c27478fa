package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"ebb.dev/ebb/internal/server"
)

func imageCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "image", Short: "Bring images into ebb's own registry and list them"}
	c.AddCommand(imageLoadCommand(o), imageListCommand(o))
	return c
}

func imageLoadCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "load file.tar|- [reference]",
		Short: "Load an image from `docker save` or an OCI layout tar; it is served under its reference",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			in := c.InOrStdin()
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("opening image: %w", err)
				}
				defer func() { _ = file.Close() }()
				in = file
			}
			reference := ""
			if len(args) == 2 {
				reference = args[1]
			}
			loaded, err := server.LoadImage(c.Context(), o.folder(), in, reference)
			if err != nil {
				return err
			}
			for _, image := range loaded {
				_, _ = fmt.Fprintln(c.OutOrStdout(), image)
			}
			return nil
		},
	}
}

func imageListCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the images in ebb's own registry",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			images, err := server.ListImages(c.Context(), o.folder())
			if err != nil {
				return err
			}
			for _, image := range images {
				_, _ = fmt.Fprintln(c.OutOrStdout(), image)
			}
			return nil
		},
	}
}
