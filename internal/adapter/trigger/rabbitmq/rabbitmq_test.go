package rabbitmq

import (
	"maps"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

// server is a RabbitMQ with a channel to it.
type server struct {
	amqp, amqps, api string // host and port
	channel          *amqp091.Channel
	authority        string // PEM, as the next two
	cert, key        string // of the server, and of a client named "ebb"
}

func start(t testing.TB) *server {
	t.Helper()
	run := servers.StartRabbitMQ(t)
	s := &server{amqp: run.AMQP, amqps: run.AMQPS, api: run.API, authority: run.CA, cert: run.Cert, key: run.Key}
	conn, err := amqp091.Dial("amqp://ebb:hunter2@" + s.amqp)
	if err == nil {
		t.Cleanup(func() { _ = conn.Close() })
		s.channel, err = conn.Channel()
	}
	if err == nil {
		err = s.channel.Confirm(false)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.declare(t, "jobs")
	return s
}

func (s *server) declare(t testing.TB, queue string) {
	t.Helper()
	if _, err := s.channel.QueueDeclare(queue, false, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
}

func (s *server) publish(t testing.TB, queue string, n int) {
	t.Helper()
	for range n {
		sent, err := s.channel.PublishWithDeferredConfirm("", queue, true, false, amqp091.Publishing{Body: []byte("work")})
		if err != nil {
			t.Fatal(err)
		}
		if !sent.Wait() {
			t.Fatal("a message was refused")
		}
	}
}

func (s *server) set(t *testing.T, n int) {
	t.Helper()
	if _, err := s.channel.QueuePurge("jobs", false); err != nil {
		t.Fatal(err)
	}
	s.publish(t, "jobs", n)
}

// untouched takes all messages, none of which was handed out before.
func (s *server) untouched(t *testing.T, n int) {
	t.Helper()
	for range n {
		message, ok, err := s.channel.Get("jobs", true)
		if err != nil || !ok || message.Redelivered {
			t.Errorf("got a message: %v, %v; redelivered: %v", ok, err, message.Redelivered)
		}
	}
}

func (s *server) subject(scheme, address string) triggertest.Subject {
	return triggertest.Subject{
		Type: "rabbitmq", Build: New,
		Metadata: map[string]string{
			"queueName": "jobs", "mode": "QueueLength", "value": "5", "activationValue": "2", "hostFromEnv": "HOST",
		},
		Env:    map[string]string{"HOST": scheme + "://ebb:hunter2@" + address},
		Metric: "rabbitmq-jobs", Target: "5",
		Required: []string{"queueName", "hostFromEnv", "mode", "value"},
		Wrong: map[string]string{
			"value": "many", "activationValue": "x", "mode": "Feelings", "protocol": "gopher", "queueLength": "4",
			"useRegex": "perhaps", "timeout": "-10", "pageSize": "0", "unsafeSsl": "random",
		},
		Set:    s.set,
		Down:   map[string]string{"hostFromEnv": "", "host": scheme + "://ebb:hunter2@127.0.0.1:1"},
		Within: 500 * time.Millisecond,
	}
}

// build makes a trigger for the queue "jobs"; of parameters put over its own, those in auth are secret.
func build(t testing.TB, env trigger.Environment, host string, over, auth map[string]string) trigger.Source {
	t.Helper()
	made, err := New(config(env, host, over, auth))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	return made
}

func config(env trigger.Environment, host string, over, auth map[string]string) trigger.Config {
	c := trigger.Config{Environment: env}
	c.TriggerMetadata = map[string]string{"queueName": "jobs", "host": host}
	maps.Copy(c.TriggerMetadata, over)
	c.AuthParams = auth
	return c
}

// count reads the trigger until it has counted n.
func count(t testing.TB, made trigger.Source, n int64) {
	t.Helper()
	var got []trigger.Reading
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		got, err = made.Read(t.Context())
		if err == nil && got[0].Value.Value() == n {
			return
		}
	}
	t.Fatalf("Read() = %+v, %v; want %d", got, err, n)
}
