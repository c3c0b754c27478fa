package scaler_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger/etcd"
	"ebb.dev/ebb/internal/adapter/trigger/nats"
	"ebb.dev/ebb/internal/adapter/trigger/postgresql"
	"ebb.dev/ebb/internal/adapter/trigger/rabbitmq"
	"ebb.dev/ebb/internal/adapter/trigger/redis"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

var quiet = slog.New(slog.DiscardHandler)

// backends start servers.
var backends = map[string]func(t *testing.T) *backend{
	"redis": startRedis, "rabbitmq": startRabbitMQ, "postgresql": startPostgreSQL, "nats": startNATS, "etcd": startEtcd,
}

// say sends lines to a server that answers each with one, and fails at one that begins with a word.
func say(t *testing.T, address, failure string, lines ...string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	for _, line := range lines {
		if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
			t.Fatal(err)
		}
		if answer, err := answers.ReadString('\n'); err != nil || strings.HasPrefix(answer, failure) {
			t.Fatalf("%s: %s, %v", line, answer, err)
		}
	}
}

// post sends a request, expects that it succeeds, and returns the answer.
func post(t *testing.T, method, to, body string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, to, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	said, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode >= http.StatusBadRequest {
		t.Fatalf("%s %s: %s %s, %v", method, to, response.Status, said, err)
	}
	return string(said)
}

func startRedis(t *testing.T) *backend {
	s := servers.Redis(t, "--requirepass", servers.RedisPassword, "--appendonly", "yes")
	return &backend{
		Process: s.Process, kind: "redis", build: redis.New,
		metadata: map[string]string{"address": s.Address, "listName": "jobs"},
		auth:     map[string]string{"password": servers.RedisPassword},
		set: func(t *testing.T, n int) {
			lines := []string{"AUTH " + servers.RedisPassword, "MULTI", "DEL jobs"}
			if n > 0 {
				lines = append(lines, "RPUSH jobs"+strings.Repeat(" x", n))
			}
			say(t, s.Address, "-", append(lines, "EXEC")...)
		},
	}
}

func startRabbitMQ(t *testing.T) *backend {
	s := servers.StartRabbitMQ(t)
	api := "http://ebb:hunter2@" + s.API + "/api/"
	post(t, http.MethodPut, api+"queues/%2F/jobs", `{"durable":true}`)
	return &backend{
		Process: s.Process, kind: "rabbitmq", build: rabbitmq.New,
		metadata: map[string]string{"host": "amqp://" + s.AMQP + "/%2F", "queueName": "jobs", "value": "5", "mode": "QueueLength"},
		auth:     map[string]string{"username": "ebb", "password": "hunter2"},
		set: func(t *testing.T, n int) {
			post(t, http.MethodDelete, api+"queues/%2F/jobs/contents", "")
			for range n {
				post(t, http.MethodPost, api+"exchanges/%2F/amq.default/publish",
					`{"properties":{"delivery_mode":2},"routing_key":"jobs","payload":"work","payload_encoding":"string"}`)
			}
		},
	}
}

func startPostgreSQL(t *testing.T) *backend {
	program, port := servers.PostgreSQL(t)
	client := process.Find(t, "psql", "/usr/lib/postgresql/*/bin/psql")
	at := "postgres://postgres:" + url.QueryEscape(servers.PostgreSQLPassword) + "@127.0.0.1:" + port + "/postgres?sslmode=disable"
	at = strings.Replace(at, "+", "%20", 1)
	program.Ready = func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+port)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		// It says that it is starting up, if so, to whoever greets it.
		if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		if _, err := io.WriteString(conn, "\x00\x00\x00\x17\x00\x03\x00\x00user\x00postgres\x00\x00"); err != nil {
			return err
		}
		var kind [1]byte
		if _, err := io.ReadFull(conn, kind[:]); err != nil || kind[0] != 'R' {
			return fmt.Errorf("it answers %q, %w", kind, err)
		}
		return nil
	}
	b := &backend{
		Process: process.Start(t, program), kind: "postgresql", build: postgresql.New,
		metadata: map[string]string{
			"query": "SELECT count(*) FROM jobs", "targetQueryValue": "5", "notifyChannel": "jobs", "host": "127.0.0.1", "port": port,
			"userName": "postgres", "dbName": "postgres", "sslmode": "disable",
		},
		auth: map[string]string{"password": servers.PostgreSQLPassword},
	}
	run := func(t *testing.T, statement string) {
		t.Helper()
		process.Run(t, process.Program{Path: client, Args: []string{"-q", "-v", "ON_ERROR_STOP=1", "-c", statement, at}})
	}
	run(t, "CREATE TABLE jobs (id int)")
	b.set = func(t *testing.T, n int) {
		run(t, fmt.Sprintf("BEGIN; TRUNCATE jobs; INSERT INTO jobs SELECT generate_series(1, %d); NOTIFY jobs; COMMIT", n))
	}
	return b
}

func startNATS(t *testing.T) *backend {
	s := servers.NATS(t)
	ask := func(t *testing.T, subjects ...string) {
		t.Helper()
		// The server greets before it is spoken to, and answers PING once all before is done.
		lines := []string{`CONNECT {"verbose":true,"user":"ebb","pass":"hunter2"}`}
		for _, one := range subjects {
			subject, body, _ := strings.Cut(one, " ")
			lines = append(lines, fmt.Sprintf("PUB %s %d\r\n%s", subject, len(body), body))
		}
		say(t, s.Address, "-ERR", append(lines, "PING")...)
	}
	until := func(t *testing.T, says string) { // what the API is asked for comes about beside
		t.Helper()
		for !strings.Contains(post(t, http.MethodGet, "http://"+s.Monitoring+"/jsz", ""), says) {
			<-time.After(time.Millisecond)
		}
	}
	ask(t, `$JS.API.STREAM.CREATE.JOBS {"name":"JOBS","subjects":["jobs.>"],"storage":"file","retention":"limits"}`)
	until(t, `"streams": 1`)
	ask(t, `$JS.API.CONSUMER.DURABLE.CREATE.JOBS.worker {"stream_name":"JOBS","config":{"durable_name":"worker","ack_policy":"explicit"}}`)
	until(t, `"consumers": 1`)
	return &backend{
		Process: s.Process, kind: "nats-jetstream", build: nats.New,
		metadata: map[string]string{
			"natsServerMonitoringEndpoint": s.Monitoring, "account": "$G", "stream": "JOBS", "consumer": "worker", "lagThreshold": "5",
			"natsServerURL": "nats://" + s.Address, "natsUser": "ebb",
		},
		auth: map[string]string{"natsPassword": "hunter2"},
		set: func(t *testing.T, n int) {
			ask(t, "$JS.API.STREAM.PURGE.JOBS")
			until(t, `"messages": 0`)
			subjects := make([]string, n)
			for i := range subjects {
				subjects[i] = "jobs.new work"
			}
			ask(t, subjects...)
		},
	}
}

func startEtcd(t *testing.T) *backend {
	program, address := servers.Etcd(t, "http")
	program.Ready = func(ctx context.Context) error { return servers.Get(ctx, "http://"+address+"/health") }
	encode := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	return &backend{
		Process: process.Start(t, program), kind: "etcd", build: etcd.New,
		metadata: map[string]string{"endpoints": address, "watchKey": "waiting", "value": "5"},
		set: func(t *testing.T, n int) {
			post(t, http.MethodPost, "http://"+address+"/v3/kv/put", fmt.Sprintf(`{"key":%q,"value":%q}`, encode("waiting"), encode(fmt.Sprint(n))))
		},
	}
}
