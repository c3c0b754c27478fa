package volume

import (
	"bytes"
	"errors"
	"fmt"
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
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// The folder's mode is set apart from its making, since the umask would narrow it.
	if err := os.Chmod(dir, dirMode(group)); err != nil {
		return err
	}
	if err := ownDir(dir, group); err != nil {
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
	tmp := filepath.Join(dir, newDataLink)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(filepath.Base(fresh), tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, dataLink)); err != nil {
		return err
	}
	if err := link(dir, files); err != nil {
		return err
	}
	return sweep(dir, filepath.Base(fresh), files)
}

// fill writes the files into a folder nobody looks at yet.
func fill(dir string, files payload, group *int64) error {
	if err := os.Chmod(dir, dirMode(group)); err != nil {
		return err
	}
	if err := ownDir(dir, group); err != nil {
		return err
	}
	for name, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if !strings.HasPrefix(path, dir+string(filepath.Separator)) {
			return fmt.Errorf("path %q leaves the volume", name)
		}
		for parent := filepath.Dir(path); parent != dir; parent = filepath.Dir(parent) {
			if err := os.MkdirAll(parent, 0o755); err != nil {
				return err
			}
			if err := errors.Join(os.Chmod(parent, dirMode(group)), ownDir(parent, group)); err != nil {
				return err
			}
		}
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
		if err := os.Chmod(path, mode); err != nil {
			return err
		}
	}
	return nil
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
	found := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		want, ok := files[filepath.ToSlash(name)]
		if !ok {
			return os.ErrExist
		}
		have, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Equal(have, want.data) {
			return os.ErrExist
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
