package registry

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// writeFile puts content at a path so that after a crash it is there whole or not at all.
func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // gone already when all went well
	if _, err := temp.Write(content); err != nil {
		return errors.Join(err, temp.Close())
	}
	return moveFile(temp, path)
}

// moveFile syncs an open file, closes it and gives it its final name.
func moveFile(f *os.File, path string) error {
	if err := f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("syncing %s: %w", f.Name(), err), f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// removeFile deletes a file for good; one that is not there is no error.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil {
		if absent(err) {
			return nil
		}
		return err
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return dir.Sync()
}
