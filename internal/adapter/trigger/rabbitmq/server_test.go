package rabbitmq

import (
	"context"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/youmark/pkcs8"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

// TestRabbitMQ is one test, as a server takes long to start.
func TestRabbitMQ(t *testing.T) {
	s := start(t)
	t.Run("by AMQP", func(t *testing.T) {
		relay := process.NewRelay(t, s.amqp)
		subject := s.subject("amqp", relay.Address)
		subject.Untouched = s.untouched
		subject.Break = func(*testing.T) { relay.Cut() }
		subject.Repair = func(*testing.T) { relay.Heal() }
		triggertest.Run(t, subject)
	})
	t.Run("by the management API", func(t *testing.T) {
		relay := process.NewRelay(t, s.api)
		subject := s.subject("http", relay.Address)
		subject.Break = func(*testing.T) { relay.Cut() }
		subject.Repair = func(*testing.T) { relay.Heal() }
		triggertest.Run(t, subject)
	})
	for name, test := range map[string]func(t *testing.T, s *server){
		"a queue that is not there harms no other": testMissing,
		"many queues share a connection":           testMany,
		"a queue that comes is told of":            testComing,
		"messages that are handed out":             testHandedOut,
		"several queues":                           testSeveral,
		"virtual hosts and odd names":              testNames,
		"TLS":                                      testTLS,
		"errors keep secrets":                      testSecrets,
		"slow answers end in time":                 testSlow,
	} {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
}

func testMissing(t *testing.T, s *server) {
	s.set(t, 3)
	relay := process.NewRelay(t, s.amqp)
	env, host := triggertest.Environment(t), "amqp://ebb:hunter2@"+relay.Address
	missing := build(t, env, host, map[string]string{"queueName": "missing"}, nil)
	jobs := build(t, env, host, nil, nil)
	defer missing.(trigger.Pusher).Watch(trigger.Idle, func() {})()
	for range 20 {
		if _, err := missing.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "NOT_FOUND") {
			t.Fatalf("Read() of a missing queue fails with %v; want NOT_FOUND", err)
		}
		if got, err := jobs.Read(t.Context()); err != nil || got[0].Value.Value() != 3 {
			t.Fatalf("Read() = %+v, %v; want 3", got, err)
		}
	}
	woken := make(chan struct{}, 100)
	defer jobs.(trigger.Pusher).Watch(trigger.Idle, func() { woken <- struct{}{} })()
	<-woken
	s.publish(t, "jobs", 1)
	select {
	case <-woken:
	case <-time.After(2 * time.Second):
		t.Error("nobody told of work beside a missing queue")
	}
	if n := relay.Accepted(); n != 1 {
		t.Errorf("there were %d connections; want 1", n)
	}
}

func testComing(t *testing.T, s *server) {
	made := build(t, triggertest.Environment(t), "amqp://ebb:hunter2@"+s.amqp, map[string]string{"queueName": "coming"}, nil)
	woken := make(chan struct{}, 100)
	defer made.(trigger.Pusher).Watch(trigger.Idle, func() { woken <- struct{}{} })()
	select {
	case <-woken:
		t.Error("woken though there is no queue")
	case <-time.After(time.Second):
	}
	s.declare(t, "coming")
	s.publish(t, "coming", 1)
	select {
	case <-woken:
	case <-time.After(late + 3*time.Second):
		t.Error("nobody told of a queue that came")
	}
	count(t, made, 1)
}

func testMany(t *testing.T, s *server) {
	const many = 300 // more than are asked for at a time
	relay := process.NewRelay(t, s.amqp)
	env, host := triggertest.Environment(t), "amqp://ebb:hunter2@"+relay.Address
	woken := make(chan int, 100*many)
	for n := range many {
		queue := fmt.Sprintf("many-%d", n)
		s.declare(t, queue)
		made := build(t, env, host, map[string]string{"queueName": queue}, nil)
		defer made.(trigger.Pusher).Watch(trigger.Idle, func() { woken <- n })()
	}
	first := map[int]bool{}
	for deadline := time.After(20 * time.Second); len(first) < many; {
		select {
		case n := <-woken:
			first[n] = true
		case <-deadline:
			t.Fatalf("%d of %d watchers were woken at first", len(first), many)
		}
	}
	for _, n := range []int{0, many / 2, many - 1} {
		s.publish(t, fmt.Sprintf("many-%d", n), 1)
		select {
		case got := <-woken:
			if got != n {
				t.Errorf("queue %d was told of; want %d", got, n)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("nobody told of work in queue %d", n)
		}
	}
	if n := relay.Accepted(); n != 1 {
		t.Errorf("there were %d connections; want 1", n)
	}
}

// testHandedOut: by AMQP messages that were handed out and not acknowledged do not count.
func testHandedOut(t *testing.T, s *server) {
	s.set(t, 5)
	env, api := triggertest.Environment(t), "http://ebb:hunter2@"+s.api
	message, ok, err := s.channel.Get("jobs", false)
	if err != nil || !ok {
		t.Fatalf("getting a message: %v, %v", ok, err)
	}
	count(t, build(t, env, "amqp://ebb:hunter2@"+s.amqp, nil, nil), 4)
	count(t, build(t, env, api, map[string]string{"excludeUnacknowledged": "true"}, nil), 4)
	count(t, build(t, env, api, nil, nil), 5)
	if err := message.Nack(false, true); err != nil {
		t.Fatal(err)
	}
}

func testSeveral(t *testing.T, s *server) {
	env, api := triggertest.Environment(t), "http://ebb:hunter2@"+s.api
	for queue, n := range map[string]int{"several.a": 1, "several.b": 4, "several.c": 8} {
		s.declare(t, queue)
		s.publish(t, queue, n)
	}
	over := map[string]string{"queueName": `^several\.[abc]$`, "useRegex": "true"}
	count(t, build(t, env, api, over, nil), 13)
	for operation, want := range map[string]int64{"sum": 13, "avg": 4, "max": 8} {
		over["operation"] = operation
		count(t, build(t, env, api, over, nil), want)
	}
	count(t, build(t, env, api, map[string]string{"queueName": "^none", "useRegex": "true"}, nil), 0)
	over["pageSize"] = "2"
	if _, err := build(t, env, api, over, nil).Read(t.Context()); err == nil || !strings.Contains(err.Error(), "more queues than can be recovered at once") {
		t.Errorf("three queues on pages of two: %v; want an error", err)
	}
}

func testNames(t *testing.T, s *server) {
	s.set(t, 2)
	env := triggertest.Environment(t)
	login := map[string]string{"username": "ebb", "password": "hunter2"}
	for _, queue := range []string{"with space", "a/b", "a+b%c", "grüße"} {
		s.declare(t, queue)
		s.publish(t, queue, 3)
		over := map[string]string{"queueName": queue}
		count(t, build(t, env, "amqp://ebb:hunter2@"+s.amqp+"/%2F", over, nil), 3)
		count(t, build(t, env, "http://ebb:hunter2@"+s.api+"/%2F", over, nil), 3)
	}
	for _, scheme := range []string{"amqp://", "http://"} {
		at := s.amqp
		if scheme == "http://" {
			at = s.api
		}
		count(t, build(t, env, scheme+"ebb:hunter2@"+at+"/shop", nil, nil), 0)
		count(t, build(t, env, scheme+"ebb:hunter2@"+at, map[string]string{"vhostName": "shop"}, nil), 0)
		count(t, build(t, env, scheme+"ebb:hunter2@"+at+"/shop", map[string]string{"vhostName": "/"}, nil), 2)
		count(t, build(t, env, scheme+"nobody:nothing@"+at, nil, login), 2)
	}
}

func testTLS(t *testing.T, s *server) {
	s.set(t, 2)
	env, host := triggertest.Environment(t), "amqps://ebb:hunter2@"+s.amqps
	block, _ := pem.Decode([]byte(s.key))
	key, err := pkcs8.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := pkcs8.MarshalPrivateKey(key, []byte("sesame"), nil)
	if err != nil {
		t.Fatal(err)
	}
	secret := string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: locked}))
	for name, test := range map[string]struct {
		host       string
		over, auth map[string]string
		good       bool
	}{
		"an authority":                {host, nil, map[string]string{"tls": "enable", "ca": s.authority}, true},
		"nobody vouches":              {host, nil, map[string]string{"tls": "enable"}, false},
		"anybody will do":             {host, map[string]string{"unsafeSsl": "true"}, map[string]string{"tls": "enable"}, true},
		"TLS by the address alone":    {host, nil, nil, false},
		"the certificate is who I am": {"amqps://" + s.amqps, nil, map[string]string{"tls": "enable", "ca": s.authority, "cert": s.cert, "key": s.key}, true},
		"and its key has a password":  {"amqps://" + s.amqps, nil, map[string]string{"tls": "enable", "ca": s.authority, "cert": s.cert, "key": secret, "keyPassword": "sesame"}, true},
		"a password goes before it":   {"amqps://ebb:hunter3@" + s.amqps, nil, map[string]string{"tls": "enable", "ca": s.authority, "cert": s.cert, "key": s.key}, false},
		"TLS where there is none":     {"amqps://ebb:hunter2@" + s.amqp, nil, map[string]string{"tls": "enable", "ca": s.authority}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := build(t, env, test.host, test.over, test.auth).Read(t.Context())
			if test.good && (err != nil || got[0].Value.Value() != 2) || !test.good && err == nil {
				t.Errorf("Read() = %+v, %v; want it to work: %v", got, err, test.good)
			}
		})
	}
}

func testSecrets(t *testing.T, s *server) {
	env := triggertest.Environment(t)
	for name, host := range map[string]string{
		"a wrong password by AMQP":    "amqp://ebb:hunter3@" + s.amqp,
		"a wrong password by HTTP":    "http://ebb:hunter3@" + s.api,
		"nobody there by AMQP":        "amqp://ebb:hunter3@127.0.0.1:1",
		"nobody there by HTTP":        "http://ebb:hunter3@127.0.0.1:1",
		"no address of AMQP":          "amqp://ebb:hunter3#@127.0.0.1:1",
		"no address of HTTP":          "http://ebb:hunter3#@127.0.0.1:1",
		"an address with a space":     "amqp://ebb:hunter3@127.0.0.1:1/a b",
		"a virtual host not there":    "amqp://ebb:hunter2@" + s.amqp + "/other",
		"another, by HTTP":            "http://ebb:hunter2@" + s.api + "/other",
		"no server of the protocol":   "amqp://ebb:hunter3@" + s.api,
		"no server of HTTP where one": "http://ebb:hunter3@" + s.amqp,
	} {
		t.Run(name, func(t *testing.T) {
			made, err := New(config(env, host, nil, nil))
			if err == nil {
				_, err = made.Read(t.Context())
				_ = made.Close()
			}
			if err == nil || strings.Contains(err.Error(), "hunter") {
				t.Errorf("it fails with %v; want an error that does not tell the password", err)
			}
			if name == "a wrong password by AMQP" && (err == nil || !strings.Contains(err.Error(), "username or password not allowed")) {
				t.Errorf("it fails with %v; want to be told that the password is wrong", err)
			}
		})
	}
}

func testSlow(t *testing.T, s *server) {
	s.set(t, 2)
	for scheme, at := range map[string]string{"amqp": s.amqp, "http": s.api} {
		relay := process.NewRelay(t, at)
		made := build(t, triggertest.Environment(t), scheme+"://ebb:hunter2@"+relay.Address, nil, nil)
		count(t, made, 2)
		relay.Delay(6 * time.Second)
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if _, err := made.Read(ctx); err == nil {
			t.Errorf("%s: it read what takes six seconds", scheme)
		}
		cancel()
		if _, err := made.Read(t.Context()); err == nil {
			t.Errorf("%s: it waited longer than a trigger may", scheme)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("%s: it took %s", scheme, took)
		}
		relay.Delay(0)
		count(t, made, 2)
	}
}

func BenchmarkWake(b *testing.B) {
	s := start(b)
	env := trigger.Environment{}
	triggertest.Bench(b, &env)
	triggertest.Wakes(b, build(b, env, "amqp://ebb:hunter2@"+s.amqp, nil, nil), func() { s.publish(b, "jobs", 1) })
}
