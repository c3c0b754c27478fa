package registry

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
)

// folder is the registry's own; no name leads out of it.
type folder struct{ *os.Root }

func openFolder(dir string) (folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return folder{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return folder{}, err
	}
	f := folder{root}
	for _, name := range []string{"blobs", "repositories", "uploads"} {
		if err := f.MkdirAll(name, 0o700); err != nil {
			return folder{}, errors.Join(err, root.Close())
		}
	}
	return f, nil
}

// write puts content at a name so that after a crash it is there whole or not at all.
func (f folder) write(name string, content []byte) error {
	if err := f.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	temp := path.Join(path.Dir(name), ".new-"+rand.Text())
	file, err := f.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := file.Write(content); err != nil {
		return errors.Join(err, file.Close(), f.Remove(temp))
	}
	if err := f.move(file, temp, name); err != nil {
		_ = f.Remove(temp) // else it goes at the next start
		return err
	}
	return nil
}

// move syncs an open file, closes it and gives it its final name.
func (f folder) move(file *os.File, from, to string) error {
	if err := file.Sync(); err != nil {
		return errors.Join(fmt.Errorf("syncing %s: %w", from, err), file.Close())
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := f.Rename(from, to); err != nil {
		return err
	}
	return f.sync(path.Dir(to))
}

// remove deletes a file for good; one that is not there is no error.
func (f folder) remove(name string) error {
	if err := f.Remove(name); err != nil {
		if absent(err) {
			return nil
		}
		return err
	}
	return f.sync(path.Dir(name))
}

func (f folder) sync(name string) error {
	dir, err := f.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
