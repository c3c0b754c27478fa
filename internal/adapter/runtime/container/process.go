package container

import (
	"bytes"
	"context"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process is a process that cannot be mistaken for another with the same number.
type process struct {
	PID   int
	Ticks uint64 // when it started, in clock ticks since boot
}

func identify(pid int) (process, error) {
	ticks, _, _, err := stat(pid)
	if err != nil {
		return process{}, err
	}
	return process{pid, ticks}, nil
}

// stat reads when a process started, its parent and its state letter.
func stat(pid int) (ticks uint64, parent int, state string, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, "", err
	}
	i := bytes.LastIndexByte(data, ')') // the name before it may hold anything
	fields := strings.Fields(string(data[i+1:]))
	if i < 0 || len(fields) < 20 {
		return 0, 0, "", fmt.Errorf("reading the state of process %d: unreadable", pid)
	}
	ticks, err = strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, 0, "", err
	}
	parent, err = strconv.Atoi(fields[1])
	return ticks, parent, fields[0], err
}

func (p process) alive() bool {
	ticks, _, state, err := stat(p.PID)
	return err == nil && ticks == p.Ticks && state != "Z" && state != "X"
}

// ns is the path of one of its namespaces.
func (p process) ns(kind string) string { return "/proc/" + strconv.Itoa(p.PID) + "/ns/" + kind }

// end waits until the process has ended, and kills it when ctx ends first.
func (p process) end(ctx context.Context) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return // gone
	}
	defer unix.Close(fd)
	if !p.alive() { // the number may have been taken over before we opened it
		return
	}
	for {
		timeout := 100
		if ctx.Err() != nil {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			timeout = 1000
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, timeout)
		if n > 0 || err != nil && err != unix.EINTR || n == 0 && timeout == 1000 {
			return
		}
	}
}

// reap takes our own child's end; one that a former process started has init for that.
func reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// bootID tells this boot from others.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// inNetns runs f on a thread in a network namespace. The thread ends if it cannot come back.
func inNetns(path string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			goruntime.UnlockOSThread()
			done <- err
			return
		}
		defer own.Close()
		done <- func() error {
			target, err := os.Open(path)
			if err != nil {
				goruntime.UnlockOSThread()
				return fmt.Errorf("opening a network namespace: %w", err)
			}
			defer target.Close()
			if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
				goruntime.UnlockOSThread()
				return fmt.Errorf("entering a network namespace: %w", err)
			}
			err = f()
			if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back == nil {
				goruntime.UnlockOSThread()
			}
			return err
		}()
	}()
	return <-done
}

// loopbackUp brings up lo in the thread's namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("reading the loopback interface: %w", err)
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bringing up the loopback interface: %w", err)
	}
	return nil
}
