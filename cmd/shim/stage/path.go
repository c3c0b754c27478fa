package stage

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks bounds how many dangling links are followed, as the kernel bounds its own.
const maxLinks = 40

// inRoot opens path so that links and ".." stay below the root.
func (s *stager) inRoot(name string, flags int, resolve uint64) (int, error) {
	relative := strings.TrimLeft(name, "/")
	if relative == "" {
		relative = "."
	}
	for {
		fd, err := unix.Openat2(s.root, relative, &unix.OpenHow{
			Flags:   uint64(flags | unix.O_CLOEXEC),
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolve,
		})
		if err == unix.EAGAIN || err == unix.EINTR { // a rename raced with us
			continue
		}
		if err != nil {
			return -1, err
		}
		return fd, nil
	}
}

func (s *stager) open(name string, flags int) (int, error) { return s.inRoot(name, flags, 0) }

// target opens the place of a mount, making it and the folders above where they are missing.
func (s *stager) target(name string, dir bool) (int, error) {
	for range maxLinks {
		fd, err := s.open(name, unix.O_PATH)
		if !errors.Is(err, unix.ENOENT) {
			return fd, err
		}
		next, err := s.create(name, dir)
		if err != nil {
			return -1, fmt.Errorf("making the mount point: %w", err)
		}
		name = next
	}
	return -1, unix.ELOOP
}

// create makes name or, if its last part is a link to nowhere, returns where that points.
func (s *stager) create(name string, dir bool) (string, error) {
	name = path.Clean("/" + name)
	above, base := path.Split(name)
	parent, err := s.target(above, true)
	if err != nil {
		return "", err
	}
	defer unix.Close(parent)
	if dir {
		err = unix.Mkdirat(parent, base, 0o755)
	} else {
		var fd int
		fd, err = unix.Openat(parent, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
		if err == nil {
			unix.Close(fd)
		}
	}
	if !errors.Is(err, unix.EEXIST) {
		return name, err
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(parent, base, buf)
	if err != nil {
		return name, nil // made by somebody else meanwhile
	}
	to := string(buf[:n])
	if !path.IsAbs(to) {
		to = path.Join(above, to)
	}
	return to, nil
}

// plainFolder makes sure that name is a folder reached without links.
func (s *stager) plainFolder(name string) error {
	fd, err := s.inRoot(name, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	if errors.Is(err, unix.ENOENT) {
		fd, err = s.target(name, true)
	}
	if err != nil {
		return fmt.Errorf("the image has no plain folder there: %w", err)
	}
	return unix.Close(fd)
}

// makeFolders makes the working folder if the image lacks it; our root is the container's already.
func makeFolders(cwd string) error {
	if cwd == "" || cwd == "/" {
		return nil
	}
	if _, err := os.Stat(cwd); err == nil {
		return nil
	}
	if err := os.MkdirAll(cwd, 0o755); err != nil { //nolint:gosec // a folder of the container's, as every OCI runtime makes it
		return fmt.Errorf("making working folder %s: %w", cwd, err)
	}
	return nil
}

// changeFolder enters the working folder and makes sure that it lies inside the root.
func changeFolder(cwd string) error {
	if cwd == "" {
		cwd = "/"
	}
	if err := unix.Chdir(cwd); err != nil {
		return fmt.Errorf("entering working folder %s: %w: %w", cwd, errBadCommand, err)
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil || n == 0 || buf[0] != '/' {
		return fmt.Errorf("working folder %s lies outside the root", cwd)
	}
	return nil
}

// lookPath finds the program as a shell would, inside the container.
func lookPath(args, env []string) (string, error) {
	if len(args) == 0 || args[0] == "" {
		return "", fmt.Errorf("no command: %w", errBadCommand)
	}
	name := args[0]
	if strings.Contains(name, "/") {
		return name, nil
	}
	dirs := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			dirs = value
		}
	}
	for dir := range strings.SplitSeq(dirs, ":") {
		if dir == "" {
			dir = "."
		}
		full := dir + "/" + name
		var st unix.Stat_t
		if unix.Stat(full, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && unix.Access(full, unix.X_OK) == nil {
			return full, nil
		}
	}
	return "", fmt.Errorf("%s: executable file not found in $PATH: %w", name, errBadCommand)
}
