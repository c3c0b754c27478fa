package nats

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

// server is a NATS server, or one of a cluster.
type server struct {
	*process.Process
	url, monitoring string
}

const (
	scheme = "nats://ebb:hunter2@"
	front  = scheme + "127.0.0.1:"
)

func start(t testing.TB) *server {
	t.Helper()
	s := servers.NATS(t)
	return &server{s.Process, scheme + s.Address, s.Monitoring}
}

// jobs is the stream JOBS on the subjects jobs.> with the durable consumer "worker".
type jobs struct{ js jetstream.JetStream }

func stream(t testing.TB, url string, config jetstream.StreamConfig) jobs {
	t.Helper()
	conn, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.RetryOnFailedConnect(true))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	config.Name, config.Subjects = "JOBS", []string{"jobs.>", "work"}
	deadline, tick := time.After(20*time.Second), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err = js.CreateOrUpdateStream(ctx, config)
		if err == nil {
			_, err = js.CreateOrUpdateConsumer(ctx, "JOBS", jetstream.ConsumerConfig{Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy})
		}
		cancel()
		if err == nil {
			return jobs{js}
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(err)
		}
	}
}

func (j jobs) publish(t testing.TB, n int) {
	t.Helper()
	for i := range n {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := j.js.Publish(ctx, fmt.Sprintf("jobs.%d", i), []byte("work"), jetstream.WithRetryAttempts(20))
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (j jobs) set(t *testing.T, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := j.js.Stream(ctx, "JOBS")
	if err == nil {
		err = s.Purge(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	j.publish(t, n)
}

func (j jobs) untouched(t *testing.T, n int) {
	t.Helper()
	c, err := j.js.Consumer(t.Context(), "JOBS", "worker")
	if err != nil {
		t.Fatal(err)
	}
	if info := c.CachedInfo(); info.NumPending != uint64(n) || info.NumRedelivered != 0 {
		t.Errorf("%d of %d messages wait, %d were delivered before", info.NumPending, n, info.NumRedelivered)
	}
}

func (s *server) subject(j jobs) triggertest.Subject {
	return triggertest.Subject{
		Type: "nats-jetstream", Build: New,
		Metadata: map[string]string{
			"natsServerMonitoringEndpoint": s.monitoring, "account": "$G", "stream": "JOBS", "consumer": "worker",
			"lagThreshold": "5", "activationLagThreshold": "2",
		},
		Metric: "nats-jetstream-JOBS", Target: "5",
		Required: []string{"natsServerMonitoringEndpoint", "account", "stream", "consumer"},
		Wrong:    map[string]string{"lagThreshold": "many", "activationLagThreshold": "x", "useHttps": "perhaps"},
		Set:      j.set, Untouched: j.untouched,
	}
}

func TestNATSByMonitoring(t *testing.T) {
	s := start(t)
	j := stream(t, s.url, jetstream.StreamConfig{})
	subject := s.subject(j)
	subject.Down = map[string]string{"natsServerMonitoringEndpoint": "127.0.0.1:" + process.Port(t)}
	subject.Break = func(t *testing.T) { s.Stop(t) }
	subject.Repair, subject.Keeps = func(t *testing.T) { s.Start(t) }, true
	triggertest.Run(t, subject)
}

func TestNATSBySubscription(t *testing.T) {
	for name, config := range map[string]jetstream.StreamConfig{
		"limits":     {},
		"work queue": {Retention: jetstream.WorkQueuePolicy},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			subject := s.subject(stream(t, s.url, config))
			subject.Metadata["natsServerURL"] = strings.Replace(s.url, "ebb:hunter2@", "", 1)
			subject.Metadata["natsUser"] = "ebb"
			subject.Env = map[string]string{"P": "hunter2"}
			subject.Metadata["natsPasswordFromEnv"] = "P"
			subject.Within, subject.Variant = 300*time.Millisecond, name != "limits"
			triggertest.Run(t, subject)
		})
	}
}

func build(t testing.TB, env trigger.Environment, s *server, over map[string]string) trigger.Source {
	t.Helper()
	c := trigger.Config{Environment: env}
	c.TriggerMetadata = map[string]string{
		"natsServerMonitoringEndpoint": s.monitoring, "account": "$G", "stream": "JOBS", "consumer": "worker", "lagThreshold": "5",
	}
	maps.Copy(c.TriggerMetadata, over)
	made, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	return made
}

func TestEveryMessageIsToldOf(t *testing.T) {
	s := start(t)
	j := stream(t, s.url, jetstream.StreamConfig{})
	made := build(t, triggertest.Environment(t), s, map[string]string{"natsServerURL": s.url})
	woken := make(chan struct{}, 1)
	defer made.(trigger.Pusher).Watch(trigger.Idle, func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	})()
	// However they fall among the pauses, the last wake comes after the last message.
	for n := 1; n <= 60; n++ {
		j.publish(t, 1)
		for deadline := time.After(3 * time.Second); ; {
			select {
			case <-woken:
			case <-deadline:
				t.Fatalf("message %d was not told of", n)
			}
			got, err := made.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got[0].Value.Value() == int64(n) {
				break
			}
		}
		<-time.After(time.Duration(n%7) * 20 * time.Millisecond)
	}
}

func TestErrorsKeepSecrets(t *testing.T) {
	made := build(t, triggertest.Environment(t), &server{monitoring: "ebb:hunter2@127.0.0.1:" + process.Port(t)}, nil)
	if _, err := made.Read(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Read() fails with %v; want an error without the password", err)
	}
}

func TestLeaderOfACluster(t *testing.T) {
	port := process.Port(t)
	hosts := []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}
	monitoring := process.Port(t)
	var routes []string
	for _, host := range hosts {
		routes = append(routes, "nats://"+net.JoinHostPort(host, port))
	}
	servers := map[string]*server{}
	client := process.Port(t)
	for i, host := range hosts {
		dir := process.Dir(t, "")
		config := filepath.Join(dir, "nats.conf")
		text := fmt.Sprintf("server_name: n%d\nlisten: %s:%s\nhttp: %s:%s\ncluster { name: c, listen: %s:%s, routes: [%s] }\n",
			i, host, client, host, monitoring, host, port, strings.Join(routes, ","))
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		servers[host] = nil
		path, storage := process.Find(t, "nats-server"), process.Dir(t, "")
		process.Start(t, process.Program{
			Path: path, Dir: storage, Args: []string{"-c", config, "-js", "-sd", storage},
			Ready: func(ctx context.Context) error {
				conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, monitoring))
				if err == nil {
					err = conn.Close()
				}
				return err
			},
		})
	}
	j := stream(t, "nats://"+net.JoinHostPort(hosts[0], client), jetstream.StreamConfig{Replicas: 3})
	j.publish(t, 9)
	env := triggertest.Environment(t)
	for _, host := range hosts { // whichever is asked, it leads to the leader
		made := build(t, env, &server{monitoring: net.JoinHostPort(host, monitoring)}, nil)
		for range 2 {
			got, err := made.Read(t.Context())
			if err != nil || got[0].Value.Value() != 9 {
				t.Errorf("by %s Read() = %v, %v; want 9", host, got, err)
			}
		}
	}
}

func BenchmarkWake(b *testing.B) {
	for _, by := range []string{"subscription", "monitoring"} {
		b.Run(by, func(b *testing.B) {
			s := start(b)
			j := stream(b, s.url, jetstream.StreamConfig{})
			env := trigger.Environment{}
			triggertest.Bench(b, &env)
			over := map[string]string{}
			if by == "subscription" {
				over["natsServerURL"] = s.url
			}
			triggertest.Wakes(b, build(b, env, s, over), func() { j.publish(b, 1) })
		})
	}
}
