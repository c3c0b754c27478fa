package image

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Platform is what this machine runs: Linux on the architecture this program was built for.
func Platform() v1.Platform {
	p := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if p.Architecture == "arm" {
		p.Variant = "v7"
	}
	return p
}

// choose picks the image for a platform from what a reference stands for.
func choose(desc *remote.Descriptor, want v1.Platform) (v1.Image, error) {
	switch {
	case desc.MediaType.IsIndex():
		index, err := desc.ImageIndex()
		if err != nil {
			return nil, err
		}
		return ChooseFrom(index, want)
	case desc.MediaType.IsImage():
		img, err := desc.Image()
		if err != nil {
			return nil, err
		}
		return img, nil
	}
	return nil, fmt.Errorf("media type %s is not a container image", desc.MediaType)
}

// ChooseFrom picks the image for a platform from an index, looking into nested indexes too. Among
// several ARM variants the newest that the platform runs wins.
func ChooseFrom(index v1.ImageIndex, want v1.Platform) (v1.Image, error) {
	var offered []string
	img, err := search(index, want, &offered, 0)
	if err != nil {
		return nil, err
	}
	if img == nil {
		slices.Sort(offered)
		return nil, fmt.Errorf("%w: wanted %s, there is %s", ErrPlatform, want.String(), strings.Join(slices.Compact(offered), ", "))
	}
	return img, nil
}

// maxNesting is how deep indexes in indexes are followed.
const maxNesting = 3

func search(index v1.ImageIndex, want v1.Platform, offered *[]string, depth int) (v1.Image, error) {
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	best, rank := v1.Descriptor{}, 0
	for _, child := range manifest.Manifests {
		if child.MediaType.IsIndex() && depth < maxNesting {
			img, err := descend(index, child, want, offered, depth)
			if img != nil || err != nil {
				return img, err
			}
			continue
		}
		if !isImage(child.MediaType) {
			continue
		}
		if child.Platform != nil && child.Platform.OS != "unknown" {
			*offered = append(*offered, child.Platform.String())
		}
		if r := match(child.Platform, want); r > rank {
			best, rank = child, r
		}
	}
	if rank == 0 {
		return nil, nil //nolint:nilnil // no match here is not an error yet: another index may have it
	}
	return index.Image(best.Digest)
}

func descend(index v1.ImageIndex, child v1.Descriptor, want v1.Platform, offered *[]string, depth int) (v1.Image, error) {
	nested, err := index.ImageIndex(child.Digest)
	if err != nil {
		return nil, err
	}
	return search(nested, want, offered, depth+1)
}

func isImage(t types.MediaType) bool { return t.IsImage() || t == "" }

// match ranks how well an entry's platform fits: 0 not at all. An entry without a platform fits
// anybody, worse than one that says so.
func match(have *v1.Platform, want v1.Platform) int {
	if have == nil {
		return 1
	}
	if have.OS != want.OS || have.Architecture != want.Architecture {
		return 0
	}
	switch want.Architecture {
	case "arm":
		return 2 + variant(have.Variant, "v7", want.Variant)
	case "amd64":
		// v2 and above need CPU features that nobody promised.
		if have.Variant != "" && have.Variant != "v1" && have.Variant != want.Variant {
			return 0
		}
	}
	return 2
}

// variant ranks an ARM variant not newer than the machine's: v7 before v6 before v5.
func variant(have, standard, limit string) int {
	if have == "" {
		have = standard
	}
	if have > limit {
		return -2
	}
	order := []string{"v5", "v6", "v7", "v8"}
	return slices.Index(order, have) + 1
}
