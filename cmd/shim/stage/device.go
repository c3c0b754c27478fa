package stage

import (
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// makeDevices fills /dev with nodes and links.
func (s *stager) makeDevices() error {
	for _, d := range s.plan.Devices {
		if err := s.makeDevice(d); err != nil {
			return fmt.Errorf("making device %s: %w", d.Path, err)
		}
	}
	for _, l := range s.plan.Links {
		if err := s.makeLink(l); err != nil {
			return fmt.Errorf("making link %s: %w", l.Path, err)
		}
	}
	return nil
}

func (s *stager) makeDevice(d wire.Device) error {
	parent, err := s.target(path.Dir(d.Path), true)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	base := path.Base(d.Path)
	if err := unix.Mknodat(parent, base, d.Mode, int(unix.Mkdev(d.Major, d.Minor))); err != nil && err != unix.EEXIST {
		return err
	}
	if d.UID == 0 && d.GID == 0 {
		return nil
	}
	return unix.Fchownat(parent, base, d.UID, d.GID, unix.AT_SYMLINK_NOFOLLOW)
}

func (s *stager) makeLink(l wire.Link) error {
	parent, err := s.target(path.Dir(l.Path), true)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if err := unix.Symlinkat(l.To, parent, path.Base(l.Path)); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

// openTerminal makes a terminal in the container's own devpts and hands its master to the guardian.
func (s *stager) openTerminal() error {
	if !s.plan.Process.Terminal {
		return nil
	}
	master, err := s.open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY)
	if err != nil {
		return fmt.Errorf("opening a terminal: %w", err)
	}
	defer unix.Close(master)
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlocking the terminal: %w", err)
	}
	// By descriptor: a path under /dev/pts is the image's to bend.
	fd, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if e != 0 {
		return fmt.Errorf("opening the terminal's other side: %w", e)
	}
	peer := int(fd)
	s.tty = peer
	size := s.plan.Process.Size
	if size.Width > 0 && size.Height > 0 {
		ws := unix.Winsize{Row: size.Height, Col: size.Width}
		if err := unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &ws); err != nil {
			return fmt.Errorf("sizing the terminal: %w", err)
		}
	}
	if err := unix.Fchown(peer, int(s.plan.Process.UID), -1); err != nil {
		return fmt.Errorf("giving the terminal to the user: %w", err)
	}
	if err := s.conn.Send(wire.Report{Master: true}, master); err != nil {
		return err
	}
	if s.plan.Enter {
		return nil
	}
	return s.mountConsole(peer)
}

// mountConsole shows the terminal as /dev/console.
func (s *stager) mountConsole(peer int) error {
	target, err := s.target("/dev/console", false)
	if err != nil {
		return fmt.Errorf("making /dev/console: %w", err)
	}
	defer unix.Close(target)
	tree, err := unix.OpenTree(peer, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("making /dev/console: %w", err)
	}
	defer unix.Close(tree)
	return attach(tree, target)
}

// wireStdio puts the terminal or the given files at 0, 1 and 2.
func (s *stager) wireStdio() error {
	if s.tty >= 0 {
		s.stdio = [3]int{s.tty, s.tty, s.tty}
	}
	for i, fd := range s.stdio {
		var st unix.Stat_t
		// The program's user must be able to open /dev/stdout, a link to the pipe.
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
			if err := unix.Fchown(fd, int(s.plan.Process.UID), int(s.plan.Process.GID)); err != nil {
				return fmt.Errorf("giving stream %d to the user: %w", i, err)
			}
		}
		if err := unix.Dup3(fd, i, 0); err != nil {
			return fmt.Errorf("connecting stream %d: %w", i, err)
		}
	}
	if s.tty < 0 {
		return nil
	}
	if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("taking the terminal: %w", err)
	}
	return nil
}
