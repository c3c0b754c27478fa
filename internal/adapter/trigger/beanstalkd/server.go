package beanstalkd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

const (
	// tick is how often watched tubes are asked for.
	tick = 150 * time.Millisecond
	// together is how many commands are sent before their answers are read.
	together = 64
	// largest is how long the answer to a command may be; it has some 400 bytes.
	largest = 64 << 10
)

// An interest is what a trigger counts.
type interest struct {
	tube    string
	delayed bool
}

// jobs returns how many jobs of a tube count.
func (i interest) jobs(t tube) int64 {
	jobs := t.ready + t.reserved
	if i.delayed {
		jobs += t.delayed
	}
	return jobs
}

// A tube is what the server says of one. One that it does not know has no jobs.
type tube struct {
	ready, reserved, delayed int64
	err                      error
}

// A server is a beanstalkd that triggers share, and the one connection with it.
type server struct {
	address string
	timeout time.Duration
	env     trigger.Environment
	tubes   *endpoint.Batch[string, tube]
	poller  *endpoint.Poller[interest, int64]

	turn chan *conn // holds the connection, or nil, while nobody uses it
}

type conn struct {
	net.Conn
	reader *bufio.Reader
}

func newServer(address string, timeout time.Duration, env trigger.Environment) *server {
	s := &server{address: address, timeout: timeout, env: env, turn: make(chan *conn, 1)}
	s.turn <- nil
	s.tubes = endpoint.NewBatch(s.ask)
	s.poller = endpoint.NewPoller(env.Shared, tick, s.count)
	return s
}

// close ends the connection once nobody uses it, which is soon: all who asked have left.
func (s *server) close() {
	go func() {
		if c := <-s.turn; c != nil {
			_ = c.Close()
		}
	}()
}

// count answers the poller.
func (s *server) count(ctx context.Context, of []interest) (map[interest]int64, error) {
	seen, names := map[string]bool{}, []string{}
	for _, i := range of {
		if !seen[i.tube] {
			seen[i.tube] = true
			names = append(names, i.tube)
		}
	}
	tubes, err := s.ask(ctx, names)
	if err != nil {
		return nil, err
	}
	counts := make(map[interest]int64, len(of))
	for _, i := range of {
		if t := tubes[i.tube]; t.err == nil {
			counts[i] = i.jobs(t)
		}
	}
	return counts, nil
}

// ask asks for tubes by the connection, or by a new one if that has been lost since it was used.
func (s *server) ask(ctx context.Context, names []string) (tubes map[string]tube, err error) {
	var c *conn
	select {
	case c = <-s.turn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { s.turn <- c }()
	for {
		used := c != nil
		if !used {
			if c, err = s.dial(ctx); err != nil {
				return nil, fmt.Errorf("connecting: %w", err)
			}
		}
		if tubes, err = c.ask(ctx, names); err == nil {
			return tubes, nil
		}
		_ = c.Close()
		c = nil
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !used {
			return nil, fmt.Errorf("retrieving stats from beanstalkd: %w", err)
		}
	}
}

func (s *server) dial(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	c, err := s.env.Dial(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, reader: bufio.NewReader(c)}, nil
}

// ask sends a command for each tube and reads the answers. After an error the connection is of no use.
func (c *conn) ask(ctx context.Context, names []string) (map[string]tube, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	tubes := make(map[string]tube, len(names))
	for len(names) > 0 {
		some := names[:min(together, len(names))]
		names = names[len(some):]
		var commands strings.Builder
		for _, name := range some {
			commands.WriteString("stats-tube " + name + "\r\n")
		}
		if _, err := io.WriteString(c, commands.String()); err != nil {
			return nil, err
		}
		for _, name := range some {
			t, err := c.read()
			if err != nil {
				return nil, err
			}
			tubes[name] = t
		}
	}
	if !stop() {
		return nil, ctx.Err()
	}
	return tubes, nil
}

// read reads the answer to one command.
func (c *conn) read() (tube, error) {
	said, err := c.reader.ReadSlice('\n')
	if err != nil {
		return tube{}, err
	}
	line := strings.TrimRight(string(said), "\r\n")
	length, ok := strings.CutPrefix(line, "OK ")
	switch {
	case ok:
	case line == "NOT_FOUND":
		return tube{}, nil
	case line == "BAD_FORMAT", line == "OUT_OF_MEMORY", line == "INTERNAL_ERROR", line == "DRAINING", line == "UNKNOWN_COMMAND":
		return tube{err: fmt.Errorf("retrieving stats from beanstalkd: it says %s", line)}, nil
	default:
		return tube{}, fmt.Errorf("it says %.40q, which is no answer", line)
	}
	n, err := strconv.Atoi(length)
	if err != nil || n < 0 || n > largest {
		return tube{}, fmt.Errorf("it announces an answer of length %.40q", length)
	}
	body := make([]byte, n+len("\r\n"))
	if _, err := io.ReadFull(c.reader, body); err != nil {
		return tube{}, err
	}
	return parse(string(body[:n])), nil
}

func parse(stats string) (t tube) {
	for line := range strings.Lines(stats) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		var into *int64
		switch name {
		case "current-jobs-ready":
			into = &t.ready
		case "current-jobs-reserved":
			into = &t.reserved
		case "current-jobs-delayed":
			into = &t.delayed
		default:
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			t.err = errors.Join(t.err, fmt.Errorf("decoding stats from beanstalkd: %s is not a number", name))
		}
		*into = n
	}
	return t
}
