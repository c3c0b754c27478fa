package server

import (
	"context"
	"fmt"
	"io"
	"strings"

	"ebb.dev/ebb/internal/platform/config"
	"ebb.dev/ebb/internal/platform/image"
)

// mirror is the registry of the ebb that runs on a data folder.
func mirror(folder config.Folder) (image.Mirror, error) {
	status, err := ReadStatus(folder)
	if err != nil {
		return image.Mirror{}, err
	}
	if status.Registry == "" {
		return image.Mirror{}, fmt.Errorf("ebb is %s on %s, so there is no registry: start it with `ebb up`", status.State, folder)
	}
	return image.Mirror{Address: status.Registry}, nil
}

// LoadImage reads an image archive into the registry of a running ebb and tells what is in it now.
func LoadImage(ctx context.Context, folder config.Folder, from io.Reader, reference string) ([]string, error) {
	m, err := mirror(folder)
	if err != nil {
		return nil, err
	}
	loaded, err := m.Load(ctx, from, reference)
	if err != nil {
		return nil, fmt.Errorf("loading image: %w", err)
	}
	out := make([]string, len(loaded))
	for i, l := range loaded {
		out[i] = l.Reference + "  " + l.Digest
	}
	return out, nil
}

// ListImages tells what the registry of a running ebb holds.
func ListImages(ctx context.Context, folder config.Folder) ([]string, error) {
	m, err := mirror(folder)
	if err != nil {
		return nil, err
	}
	listed, err := m.List(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(listed))
	for i, l := range listed {
		out[i] = fmt.Sprintf("%s  %s  %s  %.1f MB", l.Reference, l.Digest, strings.Join(l.Platforms, ","), float64(l.SizeBytes)/1e6)
	}
	return out, nil
}
