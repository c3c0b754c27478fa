package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"ebb.dev/ebb/internal/platform/config"
	"ebb.dev/ebb/internal/server"
)

// detachPoll is how often a detaching `up` looks at the status file; the file has no way to call us.
const detachPoll = 50 * time.Millisecond

func upCommand(o *options) *cobra.Command {
	s := server.Options{}
	var detach bool
	c := &cobra.Command{
		Use:   "up",
		Short: "Start a Kubernetes cluster with ebb in it, or continue the one in the data folder",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			folder, err := o.folder().Make()
			if err != nil {
				return err
			}
			s.Folder, s.Out = folder, c.OutOrStdout()
			if s.Keda, err = config.ReadKeda(os.LookupEnv); err != nil {
				return fmt.Errorf("reading the environment as KEDA does: %w", err)
			}
			for _, path := range []*string{&s.AuthFiles, &s.CADir} {
				if *path == "" {
					continue
				}
				if *path, err = filepath.Abs(*path); err != nil {
					return fmt.Errorf("finding %s: %w", *path, err)
				}
			}
			if detach {
				return detached(c.Context(), c.OutOrStdout(), s)
			}
			return attached(c.Context(), s)
		},
	}
	c.Flags().StringVar(&s.HTTP, "http", "127.0.0.1:8080", "address of the gateway on this machine")
	c.Flags().StringVar(&s.HTTPS, "https", "", "address of the gateway for TLS on this machine (default 127.0.0.1:8443; with another --http, its port and 363)")
	c.Flags().StringVar(&s.API, "api", "127.0.0.1:6443", "address of the Kubernetes API on this machine")
	c.Flags().StringVar(&s.AuthFiles, "filepath-auth-root-path", "", "folder that filePath of TriggerAuthentications is relative to; without one it is refused")
	c.Flags().StringVar(&s.CADir, "ca-dir", "", "folder of certificates to trust in triggers' servers, besides the system's")
	c.Flags().StringVar(&s.TokenMode, "service-account-token-mode", server.TokensEnforced, "which tokens of service accounts triggers may sign in with: "+server.TokensEnforced+" or "+server.TokensLegacy)
	c.Flags().BoolVar(&s.HighCardinality, "enable-high-cardinality-metrics-labels", false, "have KEDA's histograms of requests to triggers' servers tell objects apart")
	c.Flags().BoolVar(&s.Verbose, "verbose", false, "log more")
	c.Flags().BoolVarP(&detach, "detach", "d", false, "return once ready and go on in the background")
	return c
}

// attached runs in the foreground until a signal or an end of its own.
func attached(ctx context.Context, s server.Options) error {
	running, err := server.Up(ctx, s)
	if err != nil {
		return err
	}
	welcome(s.Out, running.Status())
	return running.Wait(ctx)
}

// detached starts this program again in a session of its own, logging to the data folder, and
// shows its progress until it is ready or has failed.
func detached(ctx context.Context, out io.Writer, s server.Options) error {
	if err := server.Preflight(s); err != nil {
		return err
	}
	logFile, err := os.OpenFile(s.Folder.Log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("opening log: %w", err)
	}
	defer func() { _ = logFile.Close() }()
	start, err := logFile.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("opening log: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	args := []string{"up", "--data", string(s.Folder), "--http", s.HTTP, "--api", s.API}
	for _, given := range [][2]string{{"--https", s.HTTPS}, {"--filepath-auth-root-path", s.AuthFiles}, {"--ca-dir", s.CADir}, {"--service-account-token-mode", s.TokenMode}} {
		if given[1] != "" {
			args = append(args, given[0], given[1])
		}
	}
	if s.HighCardinality {
		args = append(args, "--enable-high-cardinality-metrics-labels")
	}
	if s.Verbose {
		args = append(args, "--verbose")
	}
	child := exec.Command(self, args...) //nolint:noctx // it outlives us on purpose
	child.Stdout, child.Stderr = logFile, logFile
	child.Dir = "/"
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return fmt.Errorf("starting in the background: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	status, err := awaitReady(ctx, out, s.Folder, child.Process.Pid, ended)
	if err != nil {
		return errors.Join(err, tail(s.Folder.Log(), start))
	}
	welcome(out, status)
	return nil
}

// awaitReady prints each new step the background process reports.
func awaitReady(ctx context.Context, out io.Writer, folder config.Folder, pid int, ended <-chan error) (server.Status, error) {
	ticker := time.NewTicker(detachPoll)
	defer ticker.Stop()
	shown := ""
	for {
		select {
		case <-ctx.Done():
			return server.Status{}, fmt.Errorf("waiting for ebb (it goes on in the background as process %d): %w", pid, ctx.Err())
		case err := <-ended:
			return server.Status{}, fmt.Errorf("starting ebb: the background process ended (%w); its last words", err)
		case <-ticker.C:
		}
		status, err := server.ReadStatus(folder)
		if err != nil || status.PID != pid {
			continue
		}
		if status.State == server.StateReady {
			return status, nil
		}
		if status.Step != shown {
			shown = status.Step
			_, _ = fmt.Fprintf(out, "  %s …\n", shown)
		}
	}
}

// tail gives what was logged after an offset, at most 20 lines, as an error to show.
func tail(path string, offset int64) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if int64(len(data)) > offset {
		data = data[offset:]
	}
	lines := strings.Split(string(bytes.TrimSpace(data)), "\n")
	if len(lines) > 20 {
		lines = lines[len(lines)-20:]
	}
	return errors.New(strings.Join(lines, "\n"))
}

// welcome tells what there is now and what to try next.
func welcome(out io.Writer, s server.Status) {
	_, _ = fmt.Fprintf(out, "ebb is ready (%.1f s)\n\n", s.Took.Seconds())
	printAddresses(out, s)
	data := ""
	if s.Data != string((&options{}).folder()) {
		data = " --data " + quoted(s.Data)
	}
	_, _ = fmt.Fprintf(out, `
Names under *.localhost reach the gateway: browsers and curl know that by themselves. Programs that
ask the C library may not (getaddrinfo needs an /etc/hosts entry or systemd-resolved); for those,
hosts under *.127.0.0.1.sslip.io work wherever DNS does.

Try next
  ebb deploy examples/hello-go%[1]s
  ebb get services%[1]s
  ebb kubectl get pods -A%[1]s
  ebb down%[1]s
`, data)
}

// quoted is a word as a shell takes it.
func quoted(word string) string {
	if !strings.ContainsAny(word, " \t\n'\"\\$`&|;<>()*?[]#~!{}") {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
