// Package image makes the images that KEDA's tests name, of programs we stand in with and of what the
// distribution has, and pushes them as what those names stand for.
package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"golang.org/x/sync/errgroup"

	"ebb.dev/ebb/test/conformance/kit/image"
)

// An Image is what names of upstream's stand for.
type Image struct {
	image.Image

	Names []string // with registry and tag
	For   string   // packages of tests that need it, by what their paths match
	// Fill adds what it holds besides the stand-ins.
	Fill func(context.Context, *image.Files) error
	// Links are paths that lead to stand-ins.
	Links map[string]string
}

// Push builds the stand-ins into a folder, and makes and pushes the images that packages of tests need.
// Each has the stand-ins and a shell in a layer that all share.
func Push(ctx context.Context, folder, registry string, packages []string) error {
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return fmt.Errorf("building stand-ins: %w", err)
	}
	program := filepath.Join(folder, "stand")
	if err := image.Build(ctx, program, "./stand"); err != nil {
		return err
	}
	var shared image.Files
	if err := base(ctx, &shared, program); err != nil {
		return err
	}
	layer, err := shared.Layer()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	const together = 2
	g.SetLimit(together)
	for _, i := range slices.Concat(standIns(), servers()) {
		if !slices.ContainsFunc(packages, regexp.MustCompile(i.For).MatchString) {
			continue
		}
		g.Go(func() error {
			i.Base = layer
			for at, to := range i.Links {
				i.Files.Link(at, "/stand/"+to)
			}
			if i.Fill != nil {
				if err := i.Fill(ctx, &i.Files); err != nil {
					return fmt.Errorf("making image %s: %w", i.Names[0], err)
				}
			}
			for _, name := range i.Names {
				if err := i.Push(ctx, registry+"/"+name); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("giving images: %w", err)
	}
	return nil
}
