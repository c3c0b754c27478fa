package image

import (
	"context"
	"fmt"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Push sends an image or an index to the registry that the reference names, layers it has already
// left out, and returns the reference by digest. kc may be nil, as for Source.Digest.
func (s *Source) Push(ctx context.Context, reference string, content remote.Taggable, kc authn.Keychain) (name.Digest, error) {
	ref, err := Parse(reference)
	if err != nil {
		return name.Digest{}, err
	}
	auth := authn.Anonymous
	if s.mirror.Address == "" || !s.mirror.own(ref) {
		if auth, _, err = s.credentials(ctx, ref, kc); err != nil {
			return name.Digest{}, fmt.Errorf("pushing %s: %w", reference, err)
		}
	}
	hash, err := s.push(ctx, ref, content, auth)
	if err != nil {
		return name.Digest{}, fmt.Errorf("pushing %s: %w", reference, err)
	}
	return ref.Context().Digest(hash.String()), nil
}

func (s *Source) push(ctx context.Context, ref name.Reference, content remote.Taggable, auth authn.Authenticator) (v1.Hash, error) {
	var hash v1.Hash
	var err error
	options := s.options(ctx, auth)
	switch content := content.(type) {
	case v1.ImageIndex:
		if hash, err = content.Digest(); err == nil {
			err = remote.WriteIndex(ref, content, options...)
		}
	case v1.Image:
		if hash, err = content.Digest(); err == nil {
			err = remote.Write(ref, content, options...)
		}
	default:
		err = fmt.Errorf("%T is neither an image nor an index", content)
	}
	if err != nil {
		return v1.Hash{}, classify(err)
	}
	return hash, nil
}
