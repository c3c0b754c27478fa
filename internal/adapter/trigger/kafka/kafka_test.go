package kafka

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

// server is a cluster that keeps to Kafka's protocol, with topics of three partitions.
type server struct {
	cluster *kfake.Cluster
	ports   []int
	topics  []string
	client  *kgo.Client
	admin   *kadm.Client
	fetches <-chan struct{} // gets one when a fetch comes
}

func start(t testing.TB, topics ...string) *server {
	t.Helper()
	s := &server{topics: topics}
	for range 2 {
		port, _ := strconv.Atoi(process.Port(t))
		s.ports = append(s.ports, port)
	}
	s.begin(t)
	t.Cleanup(s.end)
	return s
}

func (s *server) begin(t testing.TB) {
	t.Helper()
	var err error
	s.cluster, err = kfake.NewCluster(kfake.NumBrokers(2), kfake.Ports(s.ports...), kfake.SeedTopics(3, s.topics...))
	if err == nil {
		s.client, err = kgo.NewClient(kgo.SeedBrokers(s.cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()),
			kgo.MetadataMinAge(50*time.Millisecond), kgo.ProducerLinger(0))
	}
	if err != nil {
		t.Fatal(err)
	}
	s.admin = kadm.NewClient(s.client)
	s.fetches = heard(s.cluster, kmsg.Fetch, func(kmsg.Request) bool { return true })
}

func (s *server) end() {
	s.client.Close()
	s.cluster.Close()
}

func (s *server) brokers() string { return strings.Join(s.cluster.ListenAddrs(), ",") }

// commit has the group have read all there is.
func (s *server) commit(t testing.TB, group, topic string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ends, err := s.admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = s.admin.CommitAllOffsets(ctx, group, ends.Offsets())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *server) produce(t testing.TB, topic string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range n {
		if err := s.client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("work")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *server) set(group, topic string) func(*testing.T, int) {
	return func(t *testing.T, n int) {
		t.Helper()
		s.commit(t, group, topic)
		s.produce(t, topic, n)
	}
}

func (s *server) subject(kind string, build trigger.Build) triggertest.Subject {
	return triggertest.Subject{
		Type: kind, Build: build,
		Metadata: map[string]string{
			"bootstrapServers": s.brokers(), "consumerGroup": "workers", "topic": "jobs",
			"lagThreshold": "5", "activationLagThreshold": "2", "version": "3.6.0",
		},
		Metric: "kafka-jobs", Target: "5",
		Required: []string{"bootstrapServers", "consumerGroup"},
		Wrong: map[string]string{
			"lagThreshold": "0", "activationLagThreshold": "-1", "offsetResetPolicy": "middle",
			"partitionLimitation": "1-x", "sasl": "gssapi", "tls": "perhaps",
		},
		Set: s.set("workers", "jobs"), Within: 300 * time.Millisecond,
		Break: func(*testing.T) { s.end() }, Repair: func(t *testing.T) { s.begin(t) },
	}
}

func TestKafka(t *testing.T) {
	for kind, build := range map[string]trigger.Build{"kafka": New, "apache-kafka": NewApache} {
		t.Run(kind, func(t *testing.T) {
			s := start(t, "jobs", "other")
			subject := s.subject(kind, build)
			subject.Variant = kind != "kafka"
			subject.Down = map[string]string{"bootstrapServers": "127.0.0.1:" + process.Port(t)}
			if kind == "kafka" {
				subject.Wrong["fullMetadata"] = "perhaps"
				subject.Wrong["version"] = "new"
				subject.Wrong["topic"] = "jobs,other"
			}
			triggertest.Run(t, subject)
		})
	}
}

func config(env trigger.Environment, s *server, over map[string]string) trigger.Config {
	c := trigger.Config{Environment: env}
	c.TriggerMetadata = map[string]string{"bootstrapServers": s.brokers(), "consumerGroup": "workers", "topic": "jobs", "lagThreshold": "5"}
	for name, value := range over {
		if value == "" {
			delete(c.TriggerMetadata, name)
		} else {
			c.TriggerMetadata[name] = value
		}
	}
	return c
}

func open(t testing.TB, c trigger.Config, build trigger.Build) trigger.Source {
	t.Helper()
	made, err := build(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	return made
}

func read(t testing.TB, made trigger.Source) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	got, err := made.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return got[0].Value.Value()
}

func TestTopicsOfAGroup(t *testing.T) {
	s := start(t, "jobs", "other", "idle")
	made := open(t, config(triggertest.Environment(t), s, map[string]string{"topic": ""}), New)
	if got := read(t, made); got != 9 {
		t.Errorf("a group that has committed nothing is behind by %d; want 1 for each of 9 partitions", got)
	}
	s.commit(t, "workers", "jobs")
	s.commit(t, "workers", "other")
	s.produce(t, "jobs", 3)
	s.produce(t, "other", 4)
	s.produce(t, "idle", 5)
	if got := read(t, made); got != 7 {
		t.Errorf("the group is behind by %d; want 7 on the topics it has committed to", got)
	}
	specs, err := made.Specs(t.Context())
	if err != nil || specs[0].External.Metric.Name != "s0-kafka-workers-topics" {
		t.Errorf("Specs() = %+v, %v; want the metric s0-kafka-workers-topics", specs, err)
	}
	for _, partitions := range []string{"", "2-1"} { // which are all
		over := map[string]string{"topic": "jobs,other", "partitionLimitation": partitions}
		apache := open(t, config(triggertest.Environment(t), s, over), NewApache)
		if got := read(t, apache); got != 7 {
			t.Errorf("apache-kafka finds %d in partitions %q; want 7", got, partitions)
		}
	}
}

func TestManyGroupsAreAskedForTogether(t *testing.T) {
	s := start(t, "jobs")
	env := triggertest.Environment(t)
	var requests int
	var sources []trigger.Source
	for n := range 100 {
		group := "workers-" + strconv.Itoa(n)
		s.commit(t, group, "jobs")
		sources = append(sources, open(t, config(env, s, map[string]string{"consumerGroup": group}), New))
	}
	s.produce(t, "jobs", 4)
	count := s.cluster
	for _, key := range []int16{2, 3, 9} { // ListOffsets, Metadata, OffsetFetch
		count.ControlKey(key, kfakeCount(count, &requests))
	}
	results := make(chan int64, len(sources))
	for _, made := range sources {
		go func() {
			got, err := made.Read(t.Context())
			if err != nil {
				t.Error(err)
				results <- 0
				return
			}
			results <- got[0].Value.Value()
		}()
	}
	for range sources {
		if got := <-results; got != 4 {
			t.Errorf("a group is behind by %d; want 4", got)
		}
	}
	if requests > 40 {
		t.Errorf("100 groups took %d requests; want few", requests)
	}
}

// waker watches a source and hands on its wakes.
func waker(t testing.TB, made trigger.Source) <-chan struct{} {
	t.Helper()
	woken := make(chan struct{}, 1)
	t.Cleanup(made.(trigger.Pusher).Watch(trigger.Idle, func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	}))
	return woken
}

func await(t testing.TB, woken <-chan struct{}, within time.Duration) {
	t.Helper()
	select {
	case <-woken:
	case <-time.After(within):
		t.Errorf("nothing came within %s", within)
	}
}

func TestATopicThatIsWatchedLaterIsToldOfAsSoon(t *testing.T) {
	s := start(t, "jobs", "other")
	env := triggertest.Environment(t)
	first := waker(t, open(t, config(env, s, nil), New))
	await(t, first, 5*time.Second)
	await(t, s.fetches, 5*time.Second)
	second := waker(t, open(t, config(env, s, map[string]string{"topic": "other"}), New))
	await(t, second, time.Second)
	await(t, s.fetches, 5*time.Second)
	s.produce(t, "other", 1)
	await(t, second, time.Second)
	s.produce(t, "jobs", 1)
	await(t, first, time.Second)
}

func TestATopicThatComesLaterIsFound(t *testing.T) {
	s := start(t, "jobs")
	missed := heard(s.cluster, kmsg.Metadata, func(r kmsg.Request) bool {
		return slices.ContainsFunc(r.(*kmsg.MetadataRequest).Topics, func(topic kmsg.MetadataRequestTopic) bool {
			return topic.Topic != nil && *topic.Topic == "late"
		})
	})
	woken := waker(t, open(t, config(triggertest.Environment(t), s, map[string]string{"topic": "late"}), New))
	await(t, missed, 5*time.Second)
	if _, err := s.admin.CreateTopic(t.Context(), 3, 1, nil, "late"); err != nil {
		t.Fatal(err)
	}
	await(t, woken, retry+3*time.Second)
}

func TestNoWakeIsLostInARestart(t *testing.T) {
	s := start(t, "jobs")
	woken := waker(t, open(t, config(triggertest.Environment(t), s, nil), New))
	await(t, woken, 5*time.Second)
	s.end()
	s.begin(t)
	await(t, woken, 10*time.Second)
	await(t, s.fetches, 5*time.Second)
	s.produce(t, "jobs", 1)
	await(t, woken, time.Second)
}

func TestThereIsAMetricOnceABrokerAnswered(t *testing.T) {
	s := start(t, "jobs")
	made := open(t, config(triggertest.Environment(t), s, nil), New)
	specs := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := made.Specs(ctx)
		return err
	}
	s.end()
	if err := specs(); err == nil || !strings.HasPrefix(err.Error(), "error creating kafka client: ") {
		t.Errorf("without a broker Specs() fails with %v", err)
	}
	s.begin(t)
	if err := specs(); err != nil {
		t.Errorf("with brokers Specs() fails with %v", err)
	}
	s.end()
	if err := specs(); err != nil {
		t.Errorf("brokers that are gone again change what is asked for: %v", err)
	}
	s.begin(t)
}

func TestSASL(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.SeedTopics(3, "jobs"), kfake.EnableACLs(),
		kfake.Superuser("SCRAM-SHA-256", "ebb", "hunter2"), kfake.Superuser("SCRAM-SHA-512", "ebb5", "hunter2"), kfake.Superuser("PLAIN", "ebb1", "hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	s := &server{cluster: cluster}
	for user, kind := range map[string]string{"ebb": scram256, "ebb5": scram512, "ebb1": plaintext} {
		for build := range 2 {
			c := config(triggertest.Environment(t), s, map[string]string{"sasl": kind})
			c.AuthParams = map[string]string{"username": user, "password": "hunter2"}
			made := open(t, c, []trigger.Build{New, NewApache}[build])
			if got := read(t, made); got != 3 {
				t.Errorf("%s reads %d; want 1 for each of 3 partitions", kind, got)
			}
			c = config(triggertest.Environment(t), s, map[string]string{"sasl": kind})
			c.AuthParams = map[string]string{"username": user, "password": "hunter3"}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			if _, err := open(t, c, New).Read(ctx); err == nil || strings.Contains(err.Error(), "hunter") {
				t.Errorf("with a wrong password Read() fails with %v; want an error that does not tell it", err)
			}
			cancel()
		}
	}
}

func TestATopicThatMayNotBeReadIsPolled(t *testing.T) {
	allow := func(kind kmsg.ACLResourceType, name string, operation kmsg.ACLOperation) kfake.ACL {
		return kfake.ACL{Resource: kind, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: operation, Allow: true}
	}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.SeedTopics(3, "jobs"), kfake.EnableACLs(),
		kfake.Superuser("PLAIN", "boss", "hunter2"), kfake.User("PLAIN", "ebb", "hunter2",
			allow(kmsg.ACLResourceTypeTopic, "jobs", kmsg.ACLOperationDescribe),
			allow(kmsg.ACLResourceTypeGroup, "workers", kmsg.ACLOperationDescribe)))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	boss := &server{cluster: cluster}
	boss.client, err = kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.SASL(plain.Auth{User: "boss", Pass: "hunter2"}.AsMechanism()))
	if err != nil {
		t.Fatal(err)
	}
	defer boss.client.Close()
	fetches := heard(cluster, kmsg.Fetch, func(kmsg.Request) bool { return true })
	said := make(lines, 10)
	env := triggertest.Environment(t)
	env.Log = slog.New(slog.NewTextHandler(said, nil))
	for range 2 {
		c := config(env, &server{cluster: cluster}, map[string]string{"sasl": plaintext})
		c.AuthParams = map[string]string{"username": "ebb", "password": "hunter2"}
		made, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, made); got != 3 {
			t.Errorf("it reads %d; want 1 for each of 3 partitions", got)
		}
		watch := made.(trigger.Pusher).Watch
		stop := watch(trigger.Idle, func() {})
		await(t, fetches, 5*time.Second)
		boss.produce(t, "jobs", 1) // a broker says no when it answers
		if line := said.next(5 * time.Second); !strings.Contains(line, "may not be read") {
			t.Errorf("the log says %q; want that the topic may not be read", line)
		}
		stop()
		stop = watch(trigger.Idle, func() {})
		boss.produce(t, "jobs", 1)
		if line := said.next(300 * time.Millisecond); line != "" {
			t.Errorf("the log says more: %q", line)
		}
		stop()
		if err := made.Close(); err != nil {
			t.Error(err)
		}
	}
}

// lines hands on what a log writes.
type lines chan string

// Write implements io.Writer.
func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// next returns the next line, or none if there is none within that time.
func (l lines) next(within time.Duration) string {
	select {
	case line := <-l:
		return line
	case <-time.After(within):
		return ""
	}
}

func TestRules(t *testing.T) {
	three := func(committed, start, end int64) []partition {
		return []partition{
			{"jobs", 0, committed, start, end, true}, {"jobs", 1, end, start, end, true}, {"jobs", 2, end, start, end, true},
		}
	}
	for name, test := range map[string]struct {
		rules        rules
		partitions   []partition
		value, whole int64
	}{
		"lag is what is not committed":               {rules{threshold: 10}, three(5, 0, 9), 4, 4},
		"more than a consumer each is not asked for": {rules{threshold: 1}, three(0, 0, 90), 3, 90},
		"idle consumers are allowed if asked for":    {rules{threshold: 1, allowIdle: true}, three(0, 0, 90), 90, 90},
		"only partitions with lag count for the limit": {
			rules{threshold: 1, limitToLagging: true}, three(0, 0, 90), 1, 90,
		},
		"consumers share partitions evenly":        {rules{threshold: 10, even: true}, three(70, 0, 90), 30, 20},
		"an even share of nothing is one consumer": {rules{threshold: 10, even: true}, three(90, 0, 90), 10, 0},
		"who has not committed counts as one":      {rules{threshold: 10}, three(none, 0, 90), 1, 1},
		"or as nothing":                            {rules{threshold: 10, zeroOnInvalid: true}, three(none, 0, 90), 0, 0},
		"or as all that is retained":               {rules{threshold: 100, earliest: true}, three(none, 80, 90), 10, 10},
		"or as all there was":                      {rules{threshold: 100, earliest: true}, three(none, none, 90), 90, 90},
		"a partition without an end counts as nothing": {
			rules{threshold: 10}, []partition{{"jobs", 0, 4, none, 0, false}}, 0, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if value, whole := test.rules.lag(test.partitions, &memory{}); value != test.value || whole != test.whole {
				t.Errorf("lag() = %d, %d; want %d, %d", value, whole, test.value, test.whole)
			}
		})
	}
}

func TestOptionsThatDoNotGoTogether(t *testing.T) {
	s := start(t)
	for name, over := range map[string]map[string]string{
		"idle and lagging":  {"allowIdleConsumers": "true", "limitToPartitionsWithLag": "true"},
		"lagging and even":  {"limitToPartitionsWithLag": "true", "ensureEvenDistributionOfPartitions": "true"},
		"lagging, no topic": {"topic": "", "limitToPartitionsWithLag": "true"},
		"even, no topic":    {"topic": "", "ensureEvenDistributionOfPartitions": "true"},
		"no topic at all":   {"topic": "", "fullMetadata": "false"},
	} {
		if made, err := New(config(triggertest.Environment(t), s, over)); err == nil {
			_ = made.Close()
			t.Errorf("%s: it was made", name)
		}
	}
}

func BenchmarkWake(b *testing.B) {
	s := start(b, "jobs")
	env := trigger.Environment{Log: slog.New(slog.DiscardHandler)}
	triggertest.Bench(b, &env)
	made := open(b, config(env, s, nil), New)
	triggertest.Wakes(b, made, func() { s.produce(b, "jobs", 1) })
}
