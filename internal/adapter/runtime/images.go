package runtime

import (
	"context"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Images brings images onto the node and unpacks them.
type Images interface {
	// Pull makes the image ready to run: resolved, fetched where layers are missing, unpacked once.
	// Policy follows Kubernetes: Always asks the registry for the digest even when the image is here.
	Pull(ctx context.Context, r PullRequest) (Image, error)
	// Present tells an image that is already unpacked, or ErrNotFound.
	Present(ctx context.Context, reference string) (Image, error)
	// List tells all unpacked images.
	List(ctx context.Context) ([]Image, error)
	// Remove forgets an image; layers go when nothing uses them.
	Remove(ctx context.Context, digest string) error
}

// PullRequest asks for one image.
type PullRequest struct {
	Reference string // as the pod says it
	Keychain  authn.Keychain
}

// Image is an unpacked image.
type Image struct {
	Reference string   // as asked
	Digest    string   // repository@sha256:…, what status.imageID shows
	ConfigID  string   // sha256:… of the config
	RootFS    []string // unpacked layer folders, lowest first
	SizeBytes int64
	// What the image says about how to run it.
	Entrypoint, Cmd, Env []string
	WorkingDir, User     string
	StopSignal           string
	Volumes              []string
}
