package image

import (
	"fmt"
	"regexp"

	"github.com/google/go-containerregistry/pkg/name"
)

// The grammar of references is distribution's, which is stricter than the parser's in use here.
var (
	hostPattern       = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(:[0-9]+)?$`)
	repositoryPattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
)

// Parse reads an image reference the way container tools do: no registry means Docker Hub, no tag
// means latest.
func Parse(reference string) (name.Reference, error) {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf("%w %q: %w", ErrReference, reference, err)
	}
	if host := ref.Context().RegistryStr(); !hostPattern.MatchString(host) {
		return nil, fmt.Errorf("%w %q: %q is no registry", ErrReference, reference, host)
	}
	if repository := ref.Context().RepositoryStr(); !repositoryPattern.MatchString(repository) {
		return nil, fmt.Errorf("%w %q: a repository is lower-case letters, digits and . _ - between slashes", ErrReference, reference)
	}
	return ref, nil
}
