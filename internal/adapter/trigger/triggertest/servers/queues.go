package servers

import (
	"context"
	"testing"

	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

// Beanstalkd runs one.
func Beanstalkd(t testing.TB) Server {
	t.Helper()
	program, port := process.Find(t, "beanstalkd"), process.Port(t)
	address := "127.0.0.1:" + port
	return Server{process.Start(t, process.Program{
		Path: program, Dir: t.TempDir(), Args: []string{"-l", "127.0.0.1", "-p", port},
		Ready: func(ctx context.Context) error { return dial(ctx, address) },
	}), address}
}

// A NATSServer has JetStream, and its user "ebb" the password "hunter2".
type NATSServer struct {
	Server
	// Monitoring is the host and port that tell of it by HTTP.
	Monitoring string
}

// NATS runs one.
func NATS(t testing.TB) NATSServer {
	t.Helper()
	port, monitoring := process.Port(t), process.Port(t)
	path, dir := process.Find(t, "nats-server"), process.Dir(t, "")
	s := NATSServer{Server{Address: "127.0.0.1:" + port}, "127.0.0.1:" + monitoring}
	s.Process = process.Start(t, process.Program{
		Path: path, Dir: dir,
		Args:  []string{"-a", "127.0.0.1", "-p", port, "--user", "ebb", "--pass", "hunter2", "-m", monitoring, "-js", "-sd", dir},
		Ready: func(ctx context.Context) error { return Get(ctx, "http://"+s.Monitoring+"/healthz") },
	})
	return s
}
