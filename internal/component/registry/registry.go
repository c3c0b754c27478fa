// Package registry is an OCI distribution registry in the process, its content on disk.
//
// Ordinary clients push to it and pull from it. Besides the images that ebb builds it keeps images
// loaded under other registries' names, in repositories that begin with the other registry's host
// (see platform/image), which is what makes it a mirror.
//
// Content is addressed by digest and verified before it is kept; every file is written aside,
// synced and renamed, so what is there after a crash is whole. A blob is visible in all repositories
// and stored once. The folder:
//
//	blobs/<ab>/<digest>                           layers and configs
//	repositories/<name>/_manifests/<digest>       manifests, as they were pushed
//	repositories/<name>/_tags/<tag>               the digest a tag stands for
//	uploads/<session>                             uploads not finished yet
package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	defaultMaxBlob     = 32 << 30
	defaultMaxManifest = 4 << 20
	defaultMaxUploads  = 128
)

// Config says where a registry keeps its content and how much it takes.
type Config struct {
	Dir string
	Log *slog.Logger
	// Tagged is told after a tag got a new digest, "" when it was deleted. It must not block.
	Tagged func(repository, tag, digest string)
	// MaxBlobBytes bounds one layer, MaxManifestBytes one manifest, MaxUploads the uploads open at
	// the same time; 0 means 32 GiB, 4 MiB and 128.
	MaxBlobBytes, MaxManifestBytes int64
	MaxUploads                     int
}

// Registry serves one folder, which nobody else may write to meanwhile. It is safe for concurrent use.
type Registry struct {
	config  Config
	folder  folder
	log     *slog.Logger
	blobs   blobs
	uploads uploads
	// change is held while files of manifests and tags change, and during a collection, so that
	// what is on disk and in the index goes through the same steps in the same order.
	change sync.Mutex
	index  index
}

// New opens the registry in a folder, making it when it is not there.
func New(c Config) (*Registry, error) {
	c.MaxBlobBytes = orDefault(c.MaxBlobBytes, defaultMaxBlob)
	c.MaxManifestBytes = orDefault(c.MaxManifestBytes, defaultMaxManifest)
	c.MaxUploads = orDefault(c.MaxUploads, defaultMaxUploads)
	if c.Tagged == nil {
		c.Tagged = func(string, string, string) {}
	}
	r := &Registry{config: c, log: c.Log}
	var err error
	if r.folder, err = openFolder(c.Dir); err != nil {
		return nil, fmt.Errorf("opening registry: %w", err)
	}
	r.blobs = blobs{r.folder}
	if err := r.uploads.open(r.folder, c.MaxUploads); err != nil {
		return nil, fmt.Errorf("opening registry: %w", err)
	}
	if err := r.index.open(r.folder); err != nil {
		return nil, fmt.Errorf("opening registry: %w", err)
	}
	return r, nil
}

// Serve answers on a listener until ctx ends, then lets requests in progress finish for a moment.
func (r *Registry) Serve(ctx context.Context, ln net.Listener) error {
	server := &http.Server{
		Handler:           r.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(r.log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		err := server.Shutdown(grace)
		if err != nil {
			err = errors.Join(err, server.Close())
		}
		stopped <- err
	})
	defer stop()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving registry: %w", err)
	}
	if err := <-stopped; err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stopping registry: %w", err)
	}
	return nil
}

func orDefault[T int | int64](value, standard T) T {
	if value == 0 {
		return standard
	}
	return value
}
