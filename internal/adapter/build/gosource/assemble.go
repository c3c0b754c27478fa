package gosource

import (
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// port is where programs listen when nobody tells them otherwise.
const port = 8080

type platformImage struct {
	v1.Image

	platform v1.Platform
}

// assemble stacks the layers and writes the config.
func assemble(base []v1.Layer, program, name string, platform v1.Platform) (v1.Image, error) {
	top, err := programLayer(program, name)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{
		OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant, Created: v1.Time{Time: epoch},
		RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Entrypoint: []string{"/app/" + name},
			// Where the platform says PORT, it wins; elsewhere the program listens where the image says.
			Env: []string{
				"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/app",
				"PORT=" + strconv.Itoa(port),
			},
			ExposedPorts: map[string]struct{}{strconv.Itoa(port) + "/tcp": {}},
			User:         strconv.Itoa(userID) + ":" + strconv.Itoa(userID),
			WorkingDir:   "/home/nonroot",
			Labels:       map[string]string{"org.opencontainers.image.title": name},
		},
	})
	if err != nil {
		return nil, err
	}
	comments := []string{"users", "certificates of the building machine"}
	addenda := make([]mutate.Addendum, 0, len(base)+1)
	for i, l := range base {
		addenda = append(addenda, addendum(l, comments[i]))
	}
	return mutate.Append(img, append(addenda, addendum(top, "program"))...)
}

func addendum(l v1.Layer, what string) mutate.Addendum {
	return mutate.Addendum{
		Layer: l, MediaType: types.OCILayer,
		History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "ebb", Comment: what},
	}
}

// joinImages makes the index of images for several platforms.
func joinImages(images []platformImage) v1.ImageIndex {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, img := range images {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: img.Image, Descriptor: v1.Descriptor{MediaType: types.OCIManifestSchema1, Platform: &img.platform},
		})
	}
	return index
}
