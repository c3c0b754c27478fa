package beanstalkd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	beanstalk "github.com/beanstalkd/go-beanstalk"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

type broker struct {
	*process.Process
	address string
}

func start(t testing.TB) *broker {
	t.Helper()
	s := servers.Beanstalkd(t)
	return &broker{s.Process, s.Address}
}

// with has a client of the broker do something.
func (b *broker) with(t testing.TB, do func(c *beanstalk.Conn) error) {
	t.Helper()
	c, err := beanstalk.Dial("tcp", b.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := do(c); err != nil {
		t.Fatal(err)
	}
}

// set has that many jobs be ready in a tube.
func (b *broker) set(t testing.TB, tube string, n int) {
	t.Helper()
	b.with(t, func(c *beanstalk.Conn) error {
		for _, peek := range []func() (uint64, []byte, error){beanstalk.NewTube(c, tube).PeekReady, beanstalk.NewTube(c, tube).PeekDelayed} {
			for {
				id, _, err := peek()
				if errors.Is(err, beanstalk.ErrNotFound) {
					break
				}
				if err != nil {
					return err
				}
				if err := c.Delete(id); err != nil {
					return err
				}
			}
		}
		for range n {
			if _, err := beanstalk.NewTube(c, tube).Put([]byte("job"), 1, 0, time.Minute); err != nil {
				return err
			}
		}
		return nil
	})
}

func config(env trigger.Environment, address string, over map[string]string) trigger.Config {
	c := trigger.Config{Environment: env}
	c.TriggerMetadata = map[string]string{"server": address, "tube": "jobs", "value": "5"}
	maps.Copy(c.TriggerMetadata, over)
	return c
}

func open(t testing.TB, env trigger.Environment, address string, over map[string]string) trigger.Source {
	t.Helper()
	made, err := New(config(env, address, over))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	return made
}

func TestBeanstalkd(t *testing.T) {
	b := start(t)
	triggertest.Run(t, triggertest.Subject{
		Type: "beanstalkd", Build: New,
		Metadata: map[string]string{"server": b.address, "tube": "my/jobs", "value": "5", "activationValue": "2"},
		Metric:   "beanstalkd-my-2Fjobs", Target: "5",
		Required: []string{"server", "tube", "value"},
		Wrong: map[string]string{
			"value": "lots", "activationValue": "AA", "timeout": "-1", "includeDelayed": "some", "tube": "jobs\r\ndelete 1",
		},
		Set:    func(t *testing.T, n int) { b.set(t, "my/jobs", n) },
		Down:   map[string]string{"server": "127.0.0.1:" + process.Port(t)},
		Break:  func(t *testing.T) { b.Stop(t) },
		Repair: func(t *testing.T) { b.Start(t) },
		Within: 500 * time.Millisecond,
		Untouched: func(t *testing.T, n int) {
			b.with(t, func(c *beanstalk.Conn) error {
				stats, err := beanstalk.NewTube(c, "my/jobs").Stats()
				if want := fmt.Sprint(n); stats["current-jobs-ready"] != want || stats["current-jobs-reserved"] != "0" {
					t.Errorf("%v is left; want %s ready", stats, want)
				}
				return err
			})
		},
	})
}

func read(t *testing.T, made trigger.Source) string {
	t.Helper()
	got, err := made.Read(t.Context())
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(got[0].Value.String(), " ", got[0].Active)
}

func TestWhatCounts(t *testing.T) {
	b := start(t)
	env := triggertest.Environment(t)
	b.with(t, func(c *beanstalk.Conn) error {
		tube := beanstalk.NewTube(c, "jobs")
		for _, delay := range []time.Duration{0, 0, 0, time.Hour, time.Hour} {
			if _, err := tube.Put([]byte("job"), 1, delay, time.Hour); err != nil {
				return err
			}
		}
		set := beanstalk.NewTubeSet(c, "jobs")
		id, _, err := set.Reserve(time.Second)
		if err != nil {
			return err
		}
		if err := c.Bury(id, 1); err != nil {
			return err
		}
		if _, _, err := set.Reserve(time.Second); err != nil {
			return err
		}
		plain, delayed := open(t, env, b.address, nil), open(t, env, b.address, map[string]string{"includeDelayed": "true", "activationValue": "4"})
		if got := read(t, plain); got != "2 true" {
			t.Errorf("one ready and one reserved read as %s", got)
		}
		if got := read(t, delayed); got != "4 false" {
			t.Errorf("with two delayed they read as %s", got)
		}
		if got := read(t, open(t, env, b.address, map[string]string{"tube": "none"})); got != "0 false" {
			t.Errorf("a tube that is not there reads as %s", got)
		}
		return nil
	})
}

func TestDelayedJobsWakeThoseWhoCountThem(t *testing.T) {
	b := start(t)
	env := triggertest.Environment(t)
	plain, delayed := make(chan struct{}, 100), make(chan struct{}, 100)
	for includes, woken := range map[string]chan struct{}{"false": plain, "true": delayed} {
		made := open(t, env, b.address, map[string]string{"includeDelayed": includes})
		defer made.(trigger.Pusher).Watch(trigger.Idle, func() { woken <- struct{}{} })()
		<-woken
	}
	b.with(t, func(c *beanstalk.Conn) error {
		_, err := beanstalk.NewTube(c, "jobs").Put([]byte("job"), 1, time.Hour, time.Hour)
		return err
	})
	select {
	case <-delayed:
	case <-time.After(5 * time.Second):
		t.Error("nobody told of a delayed job")
	}
	if len(plain) > 0 {
		t.Error("who does not count delayed jobs was told of one")
	}
}

func TestAThousandTriggersShareAConnection(t *testing.T) {
	b := start(t)
	b.set(t, "tube-7", 7)
	relay := process.NewRelay(t, b.address)
	env := triggertest.Environment(t)
	var all sync.WaitGroup
	for n := range 1000 {
		made := open(t, env, relay.Address, map[string]string{"tube": fmt.Sprintf("tube-%d", n)})
		want := "0 false"
		if n == 7 {
			want = "7 true"
		}
		defer made.(trigger.Pusher).Watch(trigger.Idle, func() {})()
		all.Go(func() {
			if got := read(t, made); got != want {
				t.Errorf("tube %d reads %s; want %s", n, got, want)
			}
		})
	}
	all.Wait()
	if n := relay.Accepted(); n != 1 {
		t.Errorf("there were %d connections; want one", n)
	}
}

// stub answers every command with the same.
func stub(t *testing.T, answer string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
			go func() {
				for lines := bufio.NewScanner(c); lines.Scan(); {
					_, _ = io.WriteString(c, answer)
				}
			}()
		}
	}()
	return l.Addr().String()
}

func TestAnswers(t *testing.T) {
	for answer, want := range map[string]string{
		"OK 46\r\n---\ncurrent-jobs-ready: 3\nname: x\nsomething: 1\n\r\n": "3 true",
		"OK 0\r\n\r\n": "0 false",
		"OK 25\r\n---\ncurrent-jobs-ready: x\r\n": "decoding stats from beanstalkd: current-jobs-ready is not a number",
		"NOT_FOUND\r\n":                "0 false",
		"BAD_FORMAT\r\n":               "it says BAD_FORMAT",
		"OUT_OF_MEMORY\r\n":            "it says OUT_OF_MEMORY",
		"HTTP/1.1 400 Bad Request\r\n": "which is no answer",
		"OK -5\r\n":                    "an answer of length",
		"OK 99999999\r\n":              "an answer of length",
		"OK many\r\n":                  "an answer of length",
		strings.Repeat("x", 10000):     "buffer full",
	} {
		t.Run(want, func(t *testing.T) {
			made := open(t, triggertest.Environment(t), stub(t, answer), nil)
			for range 2 {
				if got := read(t, made); !strings.Contains(got, want) {
					t.Errorf("%.40q reads %q; want %q", answer, got, want)
				}
			}
		})
	}
}

func TestSilenceEndsInTime(t *testing.T) {
	address := stub(t, "")
	env := triggertest.Environment(t)
	made := open(t, env, address, nil)
	begin := time.Now()
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if got, err := made.Read(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it reads %v, %v", got, err)
		}
		cancel()
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestNoTimeout(t *testing.T) {
	made := open(t, triggertest.Environment(t), start(t).address, map[string]string{"timeout": "0"})
	if got, err := made.Read(t.Context()); err != nil {
		t.Errorf("Read() = %+v, %v; want it not to end at once", got, err)
	}
}

func TestNames(t *testing.T) {
	for tube, ok := range map[string]bool{"a-b+c/d;e.f$g_(h)": true, "a b": false, "a\nb": false, "ä": false, "a\x7f": false} {
		made, err := New(config(triggertest.Environment(t), "127.0.0.1:1", map[string]string{"tube": tube}))
		if (err == nil) != ok {
			t.Errorf("%q: %v", tube, err)
		}
		if err == nil {
			_ = made.Close()
		}
	}
}

func BenchmarkWake(b *testing.B) {
	broker := start(b)
	var env trigger.Environment
	triggertest.Bench(b, &env)
	n := 0
	triggertest.Wakes(b, open(b, env, broker.address, nil), func() {
		n++
		broker.set(b, "jobs", n%2+1)
	})
}
