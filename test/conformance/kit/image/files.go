package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Files are the content of an image.
type Files struct {
	headers []tar.Header
	content map[string][]byte
}

// Folder adds a folder with its permissions and owner.
func (f *Files) Folder(at string, mode int64, owner int) {
	f.headers = append(f.headers, tar.Header{
		Name: strings.TrimPrefix(at, "/") + "/", Typeflag: tar.TypeDir, Mode: mode, Uid: owner, Gid: owner,
	})
}

// Add adds a file; the first of a name stays.
func (f *Files) Add(at string, mode int64, content []byte) {
	at = strings.TrimPrefix(at, "/")
	if f.content == nil {
		f.content = map[string][]byte{}
	}
	if _, there := f.content[at]; there {
		return
	}
	f.content[at] = content
	f.headers = append(f.headers, tar.Header{Name: at, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(content))})
}

// Link adds a symbolic link.
func (f *Files) Link(at, to string) {
	f.headers = append(f.headers, tar.Header{Name: strings.TrimPrefix(at, "/"), Typeflag: tar.TypeSymlink, Linkname: to, Mode: 0o777})
}

// Program adds a program of this machine at a path in the image, with the libraries it is linked to.
func (f *Files) Program(ctx context.Context, from, at string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("adding program: %w", err)
	}
	f.Add(at, executable, content)
	return f.libraries(ctx, from)
}

const executable = 0o755

// libraries adds what programs and libraries of this machine are linked to.
func (f *Files) libraries(ctx context.Context, linked ...string) error {
	for few := range slices.Chunk(linked, 200) {
		out, err := exec.CommandContext(ctx, "ldd", few...).CombinedOutput()
		if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) { // it fails if one is static
			return fmt.Errorf("finding libraries: %w", err)
		}
		for field := range strings.FieldsSeq(string(out)) {
			if !strings.HasPrefix(field, "/") || strings.HasSuffix(field, ":") {
				continue
			}
			library, err := os.ReadFile(field)
			if err != nil {
				return fmt.Errorf("adding library: %w", err)
			}
			f.Add(field, executable, library)
		}
	}
	return nil
}

// Tree adds a file or folder of this machine, links as links, and the libraries that programs in it are
// linked to. What is not there is left out.
func (f *Files) Tree(ctx context.Context, root string) error {
	parent, err := os.OpenRoot(filepath.Dir(root))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("adding folder: %w", err)
	}
	defer func() { _ = parent.Close() }()
	if to, err := parent.Readlink(filepath.Base(root)); err == nil { // walking would follow it
		f.Link(root, to)
		return nil
	}
	var linked []string
	err = fs.WalkDir(parent.FS(), filepath.Base(root), func(name string, d fs.DirEntry, err error) error {
		at := filepath.Join(filepath.Dir(root), name)
		switch {
		case err != nil:
			return err
		case d.Type()&fs.ModeSymlink != 0:
			to, err := parent.Readlink(name)
			if err != nil {
				return err
			}
			f.Link(at, to)
		case d.Type().IsRegular():
			info, err := d.Info()
			if err != nil {
				return err
			}
			content, err := parent.ReadFile(name)
			if err != nil {
				return err
			}
			f.Add(at, int64(info.Mode().Perm()), content)
			if bytes.HasPrefix(content, []byte("\x7fELF")) {
				linked = append(linked, at)
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("adding folder: %w", err)
	}
	return f.libraries(ctx, linked...)
}

// Layer makes a layer of the files, which several images may share.
func (f *Files) Layer() (v1.Layer, error) {
	data, err := f.tar()
	if err != nil {
		return nil, fmt.Errorf("making layer: %w", err)
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	layer, err := tarball.LayerFromOpener(open, tarball.WithCompressedCaching, tarball.WithCompressionLevel(gzip.BestSpeed))
	if err != nil {
		return nil, fmt.Errorf("making layer: %w", err)
	}
	return layer, nil
}

// tar writes the layer, folders before what is in them.
func (f *Files) tar() ([]byte, error) {
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	made := map[string]bool{}
	folders := func(at string) error {
		var missing []string
		for dir := path.Dir(at); dir != "." && !made[dir]; dir = path.Dir(dir) {
			made[dir] = true
			missing = append(missing, dir)
		}
		for _, dir := range slices.Backward(missing) {
			if err := w.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
				return err
			}
		}
		return nil
	}
	for _, h := range f.headers {
		at := strings.TrimSuffix(h.Name, "/")
		if made[at] {
			continue
		}
		if err := folders(at); err != nil {
			return nil, err
		}
		made[at] = true
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content[h.Name]); err != nil {
			return nil, err
		}
	}
	return data.Bytes(), w.Close()
}
