package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The names Kubernetes uses: dataLink points to the folder with the current contents, and every
// visible name is a link through it, so that one rename switches all files at once.
const (
	dataLink    = "..data"
	newDataLink = "..data_tmp"
)

// write brings dir to hold exactly files. Readers see all of the old contents or all of the new.
func write(dir string, files payload, group *int64) error {
	if err := makeDir(dir, group); err != nil {
		return err
	}
	previous, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if previous != "" && same(filepath.Join(dir, previous), files) {
		return link(dir, files)
	}
	fresh, err := os.MkdirTemp(dir, "..v")
	if err != nil {
		return err
	}
	if err := fill(fresh, files, group); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	if err := point(dir, filepath.Base(fresh)); err != nil {
		return err
	}
	if err := link(dir, files); err != nil {
		return err
	}
	return sweep(dir, filepath.Base(fresh), files)
}

// point switches the link to the current contents in one step.
func point(dir, to string) error {
	tmp := filepath.Join(dir, newDataLink)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(to, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, dataLink))
}

// fill writes the files into a folder nobody looks at yet.
func fill(dir string, files payload, group *int64) error {
	if err := makeDir(dir, group); err != nil {
		return err
	}
	for name, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if !strings.HasPrefix(path, dir+string(filepath.Separator)) {
			return fmt.Errorf("path %q leaves the volume", name)
		}
		for parent := filepath.Dir(path); parent != dir; parent = filepath.Dir(parent) {
			if err := makeDir(parent, group); err != nil {
				return err
			}
		}
		if err := f.write(path, group); err != nil {
			return err
		}
	}
	return nil
}

func (f file) write(path string, group *int64) error {
	if err := os.WriteFile(path, f.data, 0o600); err != nil {
		return err
	}
	mode := os.FileMode(f.mode) & os.ModePerm
	if group != nil {
		mode |= 0o440
	}
	if f.uid != nil || group != nil {
		if err := os.Chown(path, idOr(f.uid, -1), idOr(group, -1)); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

// makeDir makes a folder every user of the pod can read. Its mode is set apart from its making,
// since the umask would narrow it.
func makeDir(dir string, group *int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // any user of the container reads here
		return err
	}
	return errors.Join(os.Chmod(dir, dirMode(group)), ownDir(dir, group))
}

func dirMode(group *int64) os.FileMode {
	if group != nil {
		return 0o775 | os.ModeSetgid
	}
	return 0o755
}

func ownDir(dir string, group *int64) error {
	if group == nil {
		return nil
	}
	return os.Chown(dir, -1, int(*group))
}

func idOr(id *int64, fallback int) int {
	if id == nil {
		return fallback
	}
	return int(*id)
}

// same says whether a folder already holds exactly these files.
func same(dir string, files payload) bool {
	tree, err := os.OpenRoot(dir)
	if err != nil {
		return false
	}
	defer tree.Close()
	found := 0
	err = fs.WalkDir(tree.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		want, ok := files[name]
		if !ok {
			return fs.ErrExist
		}
		have, err := tree.ReadFile(name)
		if err != nil {
			return err
		}
		if !bytes.Equal(have, want.data) {
			return fs.ErrExist
		}
		found++
		return nil
	})
	return err == nil && found == len(files)
}

// link makes the visible names that are missing: one for each first path element.
func link(dir string, files payload) error {
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		path := filepath.Join(dir, top)
		if _, err := os.Readlink(path); err == nil {
			continue
		}
		if err := os.Symlink(filepath.Join(dataLink, top), path); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// sweep removes former contents and visible names that lead nowhere now.
func sweep(dir, current string, files payload) error {
	tops := map[string]bool{}
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		tops[top] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		hidden := strings.HasPrefix(name, "..")
		if name == dataLink || name == current || (!hidden && tops[name]) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
