package differential

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	beanstalk "github.com/beanstalkd/go-beanstalk"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nsqio/nsq/nsqd"
	"github.com/rabbitmq/amqp091-go"

	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

func TestBeanstalkd(t *testing.T) {
	covers(t, "beanstalkd")
	s := servers.Beanstalkd(t)
	c, err := beanstalk.Dial("tcp", s.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	put := func(tube string, n int, delay time.Duration) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()
			for range n {
				if _, err := beanstalk.NewTube(c, tube).Put([]byte("job"), 1, delay, time.Minute); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	reserve := func(then func(id uint64) error) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()
			id, _, err := beanstalk.NewTubeSet(c, "my/jobs").Reserve(time.Second)
			if err == nil {
				err = then(id)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	delayed := map[string]string{"includeDelayed": "true"}
	compare(t, subject{
		Type: "beanstalkd", Metadata: map[string]string{"server": s.Address, "tube": "my/jobs", "value": "5.5", "activationValue": "2"},
		Where: []string{"server"},
		Refused: []string{
			"server", "tube", "value", "value=lots", "activationValue=AA", "includeDelayed=some", "timeout=soon",
		},
		Try: map[string][]string{"includeDelayed": {"false"}, "timeout": {"10s", "500"}, "tube": {"a b", strings.Repeat("x", 201), "with.dots:and%more"}},
	},
		state{name: "no tube", want: "0"},
		state{name: "one", set: put("my/jobs", 1, 0), want: "1"},
		state{name: "two", set: put("my/jobs", 1, 0), want: "2"},
		state{name: "three", set: put("my/jobs", 1, 0), want: "3"},
		state{name: "others", set: put("others", 9, 0), want: "3"},
		state{name: "later ones", set: put("my/jobs", 4, time.Hour), want: "3"},
		state{name: "later ones that count", over: delayed, want: "7"},
		state{name: "one that is worked on", set: reserve(func(uint64) error { return nil }), want: "3"},
		state{name: "one that is buried", set: reserve(func(id uint64) error { return c.Bury(id, 1) }), want: "2"},
		state{name: "one that is done", set: reserve(c.Delete), want: "1"},
		state{name: "all", over: delayed, want: "5"},
		state{name: "nobody there", over: map[string]string{"server": "127.0.0.1:" + process.Port(t)}, want: fails},
	)
}

func TestNATS(t *testing.T) {
	covers(t, "nats-jetstream")
	s := servers.NATS(t)
	conn, err := nats.Connect("nats://ebb:hunter2@" + s.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	publish := func(n int) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()
			for range n {
				if _, err := js.Publish(t.Context(), "jobs.a", []byte("work")); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	consumer := func(c jetstream.ConsumerConfig) {
		t.Helper()
		if _, err := js.CreateOrUpdateConsumer(t.Context(), "JOBS", c); err != nil {
			t.Fatal(err)
		}
	}
	take := func(n int, then func(jetstream.Msg) error) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()
			c, err := js.Consumer(t.Context(), "JOBS", "worker")
			if err != nil {
				t.Fatal(err)
			}
			batch, err := c.Fetch(n)
			if err != nil {
				t.Fatal(err)
			}
			for m := range batch.Messages() {
				if err := then(m); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	compare(t, subject{
		Type: "nats-jetstream",
		Metadata: map[string]string{
			"natsServerMonitoringEndpoint": s.Monitoring, "account": "$G", "stream": "JOBS", "consumer": "worker",
			"lagThreshold": "5", "activationLagThreshold": "2",
		},
		Where:   []string{"natsServerMonitoringEndpoint"},
		Refused: []string{"natsServerMonitoringEndpoint", "account", "stream", "consumer", "lagThreshold=many", "activationLagThreshold=x", "useHttps=perhaps"},
		Try: map[string][]string{
			"useHttps": {"false"}, "accountID": {"$G", "other"}, "auth account": {"$G", "other"}, "consumer": {"idle", "filtered"}, "stream": {"OTHER"},
		},
	},
		state{name: "no stream", want: fails},
		state{name: "empty", want: "0", set: func(t *testing.T) {
			if _, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "JOBS", Subjects: []string{"jobs.>"}}); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"worker", "idle"} {
				consumer(jetstream.ConsumerConfig{Durable: name, AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Hour})
			}
			consumer(jetstream.ConsumerConfig{Durable: "filtered", FilterSubject: "jobs.b", AckPolicy: jetstream.AckExplicitPolicy})
		}},
		state{name: "one", set: publish(1), want: "1"},
		state{name: "two", set: publish(1), want: "2"},
		state{name: "three", set: publish(1), want: "3"},
		state{name: "seventeen", set: publish(14), want: "17"},
		state{name: "some are worked on", set: take(5, func(jetstream.Msg) error { return nil }), want: "17"},
		state{name: "some are done", set: take(4, func(m jetstream.Msg) error { return m.DoubleAck(t.Context()) }), want: "13"},
		state{name: "no consumer", over: map[string]string{"consumer": "nobody"}, want: fails},
		state{name: "no account", over: map[string]string{"account": "nobody"}, want: fails},
		state{name: "by its id", over: map[string]string{"account": "", "accountID": "$G"}, want: "13"},
		state{name: "by TLS where there is none", over: map[string]string{"useHttps": "true"}, want: fails},
		state{name: "nobody there", over: map[string]string{"natsServerMonitoringEndpoint": "127.0.0.1:" + process.Port(t)}, want: fails},
	)
}

func TestNSQ(t *testing.T) {
	covers(t, "nsq")
	s := servers.StartNSQ(t)
	address, nodes := s.Lookup, s.Nodes
	publish := func(topic string, n int) func(*testing.T) {
		return func(t *testing.T) { s.Publish(t, topic, n) }
	}
	pause := func(nodes ...*nsqd.NSQD) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()
			for _, node := range nodes {
				if err := node.GetTopic("jobs").GetChannel("workers").Pause(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	begin := func(t *testing.T) {
		s.Topic(t, "jobs", "workers")
		s.Topic(t, "early")
	}
	compare(t, subject{
		Type: "nsq",
		Metadata: map[string]string{
			"nsqLookupdHTTPAddresses": address, "topic": "jobs", "channel": "workers", "depthThreshold": "5", "activationDepthThreshold": "2",
		},
		Where:   []string{"nsqLookupdHTTPAddresses"},
		Refused: []string{"nsqLookupdHTTPAddresses", "topic", "channel", "depthThreshold=0", "activationDepthThreshold=-1", "depthThreshold=x", "useHttps=perhaps", "unsafeSsl=x"},
		Try:     map[string][]string{"useHttps": {"false"}, "unsafeSsl": nil, "topic": {"early", "a.b", "a b&c"}, "channel": {"others"}, "depthThreshold": {"7"}},
	},
		state{name: "no topic", want: "0"},
		state{name: "empty", set: begin, want: "0"},
		state{name: "two", set: publish("jobs", 2), want: "2"},
		state{name: "three", set: publish("jobs", 1), want: "3"},
		state{name: "seventeen", set: publish("jobs", 14), want: "17"},
		state{name: "a topic without channels", set: publish("early", 9), over: map[string]string{"topic": "early"}, want: "9"},
		state{name: "no such channel", over: map[string]string{"channel": "others"}, want: "0"},
		state{name: "two that know of it", over: map[string]string{"nsqLookupdHTTPAddresses": address + ", " + address}, want: "17"},
		state{name: "one that is down", over: map[string]string{"nsqLookupdHTTPAddresses": address + ",127.0.0.1:" + process.Port(t)}, want: fails},
		state{name: "nobody there", over: map[string]string{"nsqLookupdHTTPAddresses": "127.0.0.1:" + process.Port(t)}, want: fails},
		state{name: "all paused", set: pause(nodes...), want: "0"},
		state{name: "one paused", set: func(t *testing.T) {
			if err := nodes[0].GetTopic("jobs").GetChannel("workers").UnPause(); err != nil {
				t.Fatal(err)
			}
		}, want: "9"},
	)
}

// page reads a page.
func page(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	said, err := io.ReadAll(response.Body)
	return string(said), err
}

// TestRabbitMQ is one test, as a server takes long to start.
func TestRabbitMQ(t *testing.T) {
	covers(t, "rabbitmq")
	s := servers.StartRabbitMQ(t)
	conn, err := amqp091.Dial("amqp://ebb:hunter2@" + s.AMQP)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	r := &rabbit{RabbitMQ: s}
	if r.channel, err = conn.Channel(); err == nil {
		err = r.channel.Confirm(false)
	}
	if err != nil {
		t.Fatal(err)
	}
	for queue, n := range map[string]int{"jobs": 0, "several.a": 1, "several.b": 4, "several.c": 8, "odd name/%": 3} {
		if _, err := r.channel.QueueDeclare(queue, false, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
		r.publish(queue, n)(t)
	}
	t.Run("by AMQP", r.testAMQP)
	t.Run("by the management API", r.testManagement)
}

type rabbit struct {
	servers.RabbitMQ
	channel *amqp091.Channel
}

func (r *rabbit) publish(queue string, n int) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		for range n {
			sent, err := r.channel.PublishWithDeferredConfirm("", queue, true, false, amqp091.Publishing{Body: []byte("work")})
			if err == nil && !sent.Wait() {
				err = errors.New("a message was refused")
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// set has n messages be in the queue "jobs".
func (r *rabbit) set(n int) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		if _, err := r.channel.QueuePurge("jobs", false); err != nil {
			t.Fatal(err)
		}
		r.publish("jobs", n)(t)
	}
}

// states are those of a queue, seen either way.
func (r *rabbit) states() []state {
	var all []state
	for _, n := range []int{0, 1, 2, 3, 17} {
		all = append(all, state{name: fmt.Sprint(n), set: r.set(n), want: fmt.Sprint(n)})
	}
	return append(all,
		state{name: "a queue that is not there", over: map[string]string{"queueName": "missing"}, want: fails},
		state{name: "an odd name", over: map[string]string{"queueName": "odd name/%"}, want: "3"},
		state{name: "another virtual host", over: map[string]string{"vhostName": "shop"}, want: "0"},
		state{name: "no such virtual host", over: map[string]string{"vhostName": "other"}, want: fails},
		state{name: "a user by authentication", over: map[string]string{"auth username": "ebb", "auth password": "hunter2"}, want: "17"},
		state{name: "half a user", over: map[string]string{"auth username": "ebb"}, want: refused},
		state{name: "a wrong password", over: map[string]string{"auth username": "ebb", "auth password": "wrong"}, want: fails},
		state{name: "a key without a certificate", over: map[string]string{"auth key": "x"}, want: refused},
		state{name: "queueLength and value", over: map[string]string{"queueLength": "5"}, want: refused},
		state{name: "queueLength of old", over: map[string]string{"queueLength": "5", "mode": "", "value": ""}, want: "17"},
		state{name: "neither", over: map[string]string{"mode": "", "value": ""}, want: "17"},
		state{name: "a value without a mode", over: map[string]string{"mode": ""}, want: refused},
		state{name: "a mode without a value", over: map[string]string{"value": ""}, want: refused},
	)
}

func (r *rabbit) subject(host string) subject {
	return subject{
		Type:     "rabbitmq",
		Metadata: map[string]string{"queueName": "jobs", "mode": "QueueLength", "value": "5.5", "activationValue": "2.5", "hostFromEnv": "HOST"},
		Env:      map[string]string{"HOST": host}, Where: []string{"hostFromEnv"},
		Refused: []string{
			"queueName", "hostFromEnv", "mode=Most", "value=many", "activationValue=x", "protocol=mqtt", "pageSize=0", "pageSize=x", "auth tls=yes",
			"useRegex=maybe", "excludeUnacknowledged=maybe", "unsafeSsl=maybe", "timeout=-1x",
		},
		Try: map[string][]string{
			"protocol": {"amqp", "http", "auto"}, "vhostName": {"/", "shop"}, "useRegex": {"false"}, "excludeUnacknowledged": {"false"},
			"pageSize": {"7"}, "operation": {"avg", "max", "least"}, "auth tls": {"disable"}, "unsafeSsl": nil, "timeout": {"1000", "2s"},
			"queueName": {"several.a"}, "auth workloadIdentityResource": nil,
		},
	}
}

func (r *rabbit) testAMQP(t *testing.T) {
	host := func(s string) map[string]string { return map[string]string{"env HOST": s} }
	compare(t, r.subject("amqp://ebb:hunter2@"+r.AMQP), append(r.states(),
		state{name: "a virtual host in the address", over: host("amqp://ebb:hunter2@" + r.AMQP + "/shop"), want: "0"},
		state{name: "the first, escaped", over: host("amqp://ebb:hunter2@" + r.AMQP + "/%2F"), want: "17"},
		state{name: "a wrong password in the address", over: host("amqp://ebb:wrong@" + r.AMQP), want: fails},
		state{name: "an authority", over: map[string]string{"env HOST": "amqps://ebb:hunter2@" + r.AMQPS, "auth tls": "enable", "auth ca": r.CA}, want: "17"},
		state{name: "nobody vouches", over: map[string]string{"env HOST": "amqps://ebb:hunter2@" + r.AMQPS, "auth tls": "enable"}, want: fails},
		state{name: "anybody will do", over: map[string]string{"env HOST": "amqps://ebb:hunter2@" + r.AMQPS, "auth tls": "enable", "unsafeSsl": "true"}, want: "17"},
		state{name: "a certificate is who I am", over: map[string]string{
			"env HOST": "amqps://" + r.AMQPS, "auth tls": "enable", "auth ca": r.CA, "auth cert": r.Cert, "auth key": r.Key,
		}, want: "17"},
		state{name: "a rate", over: map[string]string{"mode": "MessageRate"}, want: refused},
		state{name: "a pattern", over: map[string]string{"useRegex": "true"}, want: refused},
		state{name: "without those handed out", over: map[string]string{"excludeUnacknowledged": "true"}, want: refused},
		state{name: "a scheme nobody knows", over: host("mqtt://" + r.AMQP), want: refused},
		state{name: "no address", over: host("amqp://[::1"), want: refused},
		state{name: "nobody there", over: host("amqp://ebb:hunter2@127.0.0.1:" + process.Port(t)), want: fails},
		state{name: "a token", over: map[string]string{"auth oauthTokenURI": "http://127.0.0.1/", "auth clientID": "a", "auth clientSecret": "b"}, want: refused},
	)...)
}

func (r *rabbit) testManagement(t *testing.T) {
	host := func(s string) map[string]string { return map[string]string{"env HOST": s} }
	pattern := func(name, operation, more string) map[string]string {
		return map[string]string{"queueName": name, "useRegex": "true", "operation": operation, "pageSize": more}
	}
	states := append(r.states(),
		state{name: "a virtual host in the address", over: host("http://ebb:hunter2@" + r.API + "/shop"), want: "0"},
		state{name: "the first, escaped", over: host("http://ebb:hunter2@" + r.API + "/%2F"), want: "17"},
		state{name: "a wrong password in the address", over: host("http://ebb:wrong@" + r.API), want: fails},
		state{name: "a path before it", over: host("http://ebb:hunter2@" + r.API + "/a/b/"), want: fails},
		state{name: "several", over: pattern(`^several\.[abc]$`, "", ""), want: "13"},
		state{name: "their sum", over: pattern(`^several\.[abc]$`, "sum", ""), want: "13"},
		state{name: "their average", over: pattern(`^several\.[abc]$`, "avg", ""), want: "4"},
		state{name: "their most", over: pattern(`^several\.[abc]$`, "max", ""), want: "8"},
		state{name: "their least", over: pattern(`^several\.[abc]$`, "min", ""), want: fails},
		state{name: "none", over: pattern(`^none$`, "", ""), want: "0"},
		state{name: "none of their least", over: pattern(`^none$`, "min", ""), want: "0"},
		state{name: "more than a page", over: pattern(`^several\.[abc]$`, "", "2"), want: fails},
		state{name: "no pattern", over: pattern(`[`, "", ""), want: fails},
		state{name: "nobody there", over: host("http://ebb:hunter2@127.0.0.1:" + process.Port(t)), want: fails},
		state{name: "half a token", over: map[string]string{"auth oauthTokenURI": "http://127.0.0.1/", "auth clientID": "a"}, want: refused},
		state{name: "a token and a user", over: map[string]string{
			"auth oauthTokenURI": "http://127.0.0.1/", "auth clientID": "a", "auth clientSecret": "b", "auth username": "x", "auth password": "y",
		}, want: refused},
	)
	for _, mode := range []string{"MessageRate", "DeliverGetRate", "PublishedToDeliveredRatio", "ExpectedQueueConsumptionTime"} {
		states = append(states, state{name: mode, over: map[string]string{"mode": mode}})
	}
	states = append(states,
		state{name: "one handed out", set: func(t *testing.T) {
			if _, ok, err := r.channel.Get("jobs", false); err != nil || !ok {
				t.Fatalf("getting a message: %v, %v", ok, err)
			}
		}, over: map[string]string{"excludeUnacknowledged": "true"}, want: "16"},
		state{name: "one that counts", want: "17"})
	compare(t, r.subject("http://ebb:hunter2@"+r.API), states...)
}
