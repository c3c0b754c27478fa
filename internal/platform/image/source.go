// Package image finds container images: in ebb's own registry first, then where they come from.
//
// The local registry is a mirror of every registry. An image loaded as gcr.io/team/app:v1 is kept in
// the mirror's repository "gcr.io/team/app", and whoever asks a Source for gcr.io/team/app:v1 (the
// node that runs it, the controller that resolves its digest) gets that one, whatever the pull
// policy says. A reference that names the mirror's own address is read there and nowhere else.
package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/singleflight"
)

// Errors a Source answers with; callers use errors.Is.
var (
	// ErrReference means the text is not an image reference.
	ErrReference = errors.New("invalid image reference")
	// ErrNotFound means the registry answered and has no such image.
	ErrNotFound = errors.New("image not found")
	// ErrUnauthorized means the registry wants credentials, or others.
	ErrUnauthorized = errors.New("not authorized")
	// ErrPlatform means the image exists, but not for this machine.
	ErrPlatform = errors.New("no image for this platform")
)

const (
	// resolveTimeout bounds one digest resolution, retries included.
	resolveTimeout = 20 * time.Second
	// userAgent is what registries see.
	userAgent = "ebb"
)

// Source reads images from the mirror and from registries. It is safe for concurrent use.
type Source struct {
	mirror    Mirror
	transport http.RoundTripper
	platform  v1.Platform
	log       *slog.Logger
	flights   singleflight.Group // one resolution at a time per reference and credentials
	refused   refusals
}

// Open returns a Source that asks the registry at address mirror ("127.0.0.1:5000") before any
// other; with an empty address there is no mirror.
func Open(mirror string, log *slog.Logger) *Source {
	return &Source{
		mirror:    Mirror{Address: mirror},
		transport: newTransport(),
		platform:  Platform(),
		log:       log,
	}
}

// Digest resolves a reference to the digest of its manifest (of the index, where it has one). A
// reference that already is a digest comes back without asking anybody.
//
// kc holds the pod's pull secrets and may be nil; the machine's Docker configuration comes after it.
func (s *Source) Digest(ctx context.Context, reference string, kc authn.Keychain) (name.Digest, error) {
	ref, err := Parse(reference)
	if err != nil {
		return name.Digest{}, err
	}
	if digest, ok := ref.(name.Digest); ok {
		return digest, nil
	}
	if hash, ok := s.mirrored(ctx, ref); ok {
		return ref.Context().Digest(hash), nil
	}
	auth, key, err := s.credentials(ctx, ref, kc)
	if err != nil {
		return name.Digest{}, fmt.Errorf("resolving %s: %w", reference, err)
	}
	hash, err := s.resolve(ctx, ref, auth, key)
	if err != nil {
		return name.Digest{}, fmt.Errorf("resolving %s: %w", reference, err)
	}
	return ref.Context().Digest(hash), nil
}

// Image finds a reference's image for this machine's platform, and the digest the reference stands
// for. Layers are fetched only when they are read, within ctx.
func (s *Source) Image(ctx context.Context, reference string, kc authn.Keychain) (v1.Image, name.Digest, error) {
	ref, err := Parse(reference)
	if err != nil {
		return nil, name.Digest{}, err
	}
	var desc *remote.Descriptor
	if hash, ok := s.mirrored(ctx, ref); ok {
		desc, err = s.get(ctx, s.mirror.digest(ref, hash), authn.Anonymous)
	} else {
		desc, err = s.fetch(ctx, ref, kc)
	}
	if err != nil {
		return nil, name.Digest{}, fmt.Errorf("finding %s: %w", reference, err)
	}
	img, err := choose(desc, s.platform)
	if err != nil {
		return nil, name.Digest{}, fmt.Errorf("finding %s: %w", reference, err)
	}
	return img, ref.Context().Digest(desc.Digest.String()), nil
}

// mirrored tells whether the mirror has the reference, and under which digest. A mirror that does
// not answer counts as one that has nothing, so a broken one never stops a pull.
func (s *Source) mirrored(ctx context.Context, ref name.Reference) (string, bool) {
	if s.mirror.Address == "" {
		return "", false
	}
	hash, err := s.mirror.head(ctx, ref)
	if err != nil {
		if !errors.Is(err, ErrNotFound) {
			s.log.Warn("asking the local registry", "image", ref.Name(), "error", err)
		}
		return "", false
	}
	return hash, true
}

// fetch gets the manifest from the registry the reference names.
func (s *Source) fetch(ctx context.Context, ref name.Reference, kc authn.Keychain) (*remote.Descriptor, error) {
	auth, key, err := s.credentials(ctx, ref, kc)
	if err != nil {
		return nil, err
	}
	if err := s.refused.check(key, time.Now()); err != nil {
		return nil, err
	}
	desc, err := s.get(ctx, ref, auth)
	if err != nil {
		s.refused.note(key, err, time.Now())
	}
	return desc, err
}

// resolve asks the registry for a tag's digest, once for all who ask at the same time.
func (s *Source) resolve(ctx context.Context, ref name.Reference, auth authn.Authenticator, key string) (string, error) {
	if err := s.refused.check(key, time.Now()); err != nil {
		return "", err
	}
	flight := s.flights.DoChan(key, func() (any, error) {
		// The answer is for everybody who waits, so the first one's end must not take it from them.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resolveTimeout)
		defer cancel()
		hash, err := s.head(ctx, ref, auth)
		if err != nil {
			s.refused.note(key, err, time.Now())
		}
		return hash, err
	})
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case answer := <-flight:
		if answer.Err != nil {
			return "", answer.Err
		}
		hash, _ := answer.Val.(string)
		return hash, nil
	}
}

// head asks by HEAD and, where that fails, by GET: some registries know no HEAD, and only GET's
// answer carries the reason.
func (s *Source) head(ctx context.Context, ref name.Reference, auth authn.Authenticator) (string, error) {
	desc, err := remote.Head(ref, s.options(ctx, auth)...)
	if err == nil {
		return desc.Digest.String(), nil
	}
	if answer, ok := errors.AsType[*transport.Error](err); !ok || answer.StatusCode >= http.StatusInternalServerError {
		return "", classify(err)
	}
	full, err := s.get(ctx, ref, auth)
	if err != nil {
		return "", err
	}
	return full.Digest.String(), nil
}

func (s *Source) get(ctx context.Context, ref name.Reference, auth authn.Authenticator) (*remote.Descriptor, error) {
	desc, err := remote.Get(ref, s.options(ctx, auth)...)
	if err != nil {
		return nil, classify(err)
	}
	return desc, nil
}

func (s *Source) options(ctx context.Context, auth authn.Authenticator) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithAuth(auth),
		remote.WithTransport(s.transport),
		remote.WithUserAgent(userAgent),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Jitter: 0.1, Steps: 3}),
	}
}

// classify puts a sentinel of this package before a registry's answer.
func classify(err error) error {
	if nowhere, ok := errors.AsType[*net.DNSError](err); ok && nowhere.IsNotFound {
		return fmt.Errorf("ebb's own registry does not have it, and there is no other of that name: %w", err)
	}
	answer, ok := errors.AsType[*transport.Error](err)
	if !ok {
		return err
	}
	switch answer.StatusCode {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: %w", ErrUnauthorized, err)
	}
	return err
}
