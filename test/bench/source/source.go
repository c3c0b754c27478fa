// Package source runs the servers that work waits in: the distribution's programs on loopback ports, in
// a folder of their own, and Kafka's protocol in Go.
package source

import (
	"context"
	"errors"
	"os"
	"slices"
)

// A Source is where work waits, and what a ScaledObject says of it.
type Source struct {
	Name string
	// Port is its server's; "" when there is none.
	Port string
	// Kind and Metadata are the trigger.
	Kind     string
	Metadata map[string]string
	// Fast asks for the annotation ebb.dev/fast-poll.
	Fast bool
	// Put adds pieces of work.
	Put func(ctx context.Context, n int) error
	// Drain takes all work away.
	Drain func(ctx context.Context) error
}

// Servers are those that were started.
type Servers struct {
	dir   string
	after []func()
}

// New makes a folder for servers.
func New() (*Servers, error) {
	dir, err := os.MkdirTemp("", "ebb-bench-source-")
	if err != nil {
		return nil, err
	}
	s := &Servers{dir: dir}
	s.later(func() { _ = os.RemoveAll(dir) })
	return s, os.Chmod(dir, 0o755)
}

// later has something be done by Close; what came last is done first.
func (s *Servers) later(do func()) { s.after = append(s.after, do) }

// Close ends the servers and removes their files.
func (s *Servers) Close() {
	for _, do := range slices.Backward(s.after) {
		do()
	}
}

// All starts a server of each type and gives a source in each.
func (s *Servers) All(ctx context.Context) ([]*Source, error) {
	redis, err1 := s.Redis(ctx)
	nats, err2 := s.NATS(ctx)
	database, err3 := s.PostgreSQL(ctx)
	etcd, err4 := s.Etcd(ctx)
	beans, err5 := s.Beanstalkd(ctx)
	kafka, err6 := s.Kafka(ctx)
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return nil, err
	}
	stream, err := redis.Stream(ctx, "events")
	if err != nil {
		return nil, err
	}
	return []*Source{redis.List("jobs"), stream, nats, kafka, database.Queue("told", true), etcd, beans, database.Queue("asked", false)}, nil
}
