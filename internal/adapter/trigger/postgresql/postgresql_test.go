package postgresql

import (
	"context"
	"fmt"
	"maps"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

const secret = servers.PostgreSQLPassword

// server is a PostgreSQL with a table of jobs whose changes are notified on channel "jobs".
type server struct {
	*process.Process
	port string
	conn *pgx.Conn
}

func (s *server) url(port string) string {
	return "postgres://postgres:s3cr%20et%27@127.0.0.1:" + port + "/postgres?sslmode=disable"
}

func start(t testing.TB) *server {
	t.Helper()
	program, port := servers.PostgreSQL(t)
	s := &server{port: port}
	program.Ready = func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, s.url(port))
		s.conn = conn
		return err
	}
	s.Process = process.Start(t, program)
	s.exec(t, `CREATE TABLE jobs (id int)`)
	s.exec(t, `CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('jobs', ''); RETURN NULL; END $$`)
	s.exec(t, `CREATE TRIGGER tell AFTER INSERT ON jobs FOR EACH STATEMENT EXECUTE FUNCTION tell()`)
	return s
}

func (s *server) exec(t testing.TB, statement string, values ...any) {
	t.Helper()
	if _, err := s.conn.Exec(t.Context(), statement, values...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func (s *server) set(t *testing.T, n int) {
	t.Helper()
	s.exec(t, `TRUNCATE jobs`)
	if n > 0 {
		s.exec(t, `INSERT INTO jobs SELECT generate_series(1, $1::int)`, n)
	}
}

func (s *server) subject() triggertest.Subject {
	return triggertest.Subject{
		Type: "postgresql", Build: New,
		Metadata: map[string]string{
			"query": "SELECT count(*) FROM jobs", "targetQueryValue": "5", "activationTargetQueryValue": "2",
			"connectionFromEnv": "PG", "notifyChannel": "jobs",
		},
		Env:    map[string]string{"PG": s.url(s.port)},
		Metric: "postgresql", Target: "5",
		Required: []string{"query", "targetQueryValue", "connectionFromEnv"},
		Wrong:    map[string]string{"targetQueryValue": "many", "activationTargetQueryValue": "x", "notifyChannel": strings.Repeat("x", 64)},
		Set:      s.set,
		Break:    func(t *testing.T) { s.Stop(t) },
		Repair:   func(t *testing.T) { s.Start(t) },
		Keeps:    true,
		Within:   300 * time.Millisecond,
	}
}

func TestPostgreSQL(t *testing.T) {
	s := start(t)
	t.Run("by connection string, told by a channel", func(t *testing.T) { triggertest.Run(t, s.subject()) })
	parts := s.subject()
	parts.Env = nil
	parts.Metadata = map[string]string{
		"query": "SELECT count(*) FROM jobs", "targetQueryValue": "5", "activationTargetQueryValue": "2",
		"host": "127.0.0.1", "port": s.port, "userName": "postgres", "dbName": "postgres", "sslmode": "disable",
	}
	parts.Auth = map[string]string{"password": secret}
	parts.Required = []string{"query", "targetQueryValue", "host", "port", "userName", "dbName", "sslmode"}
	parts.Denied = map[string]string{"password": "hunter2"}
	parts.Down = map[string]string{"port": process.Port(t)}
	t.Run("by parts, polled", func(t *testing.T) { triggertest.Run(t, parts) })
}

func build(t testing.TB, env trigger.Environment, metadata map[string]string, url string) (trigger.Source, error) {
	t.Helper()
	c := trigger.Config{Environment: env}
	c.TriggerMetadata = map[string]string{"query": "SELECT count(*) FROM jobs", "targetQueryValue": "5"}
	maps.Copy(c.TriggerMetadata, metadata)
	c.AuthParams = map[string]string{"connection": url}
	return New(c)
}

func read(t testing.TB, s trigger.Source) (float64, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	got, err := s.Read(ctx)
	if err != nil {
		return 0, err
	}
	return got[0].Value.AsApproximateFloat64(), nil
}

func TestErrorsKeepSecrets(t *testing.T) {
	s := start(t)
	for name, url := range map[string]string{
		"a wrong password":          strings.Replace(s.url(s.port), "s3cr%20et%27", "hunter2", 1),
		"a URL that is none":        "postgres://postgres:hunter2@127.0.0.1:port/postgres",
		"keywords that are none":    "host=127.0.0.1 password=hunter2 sslmode=perhaps",
		"a string that is a secret": "hunter2",
		"a wrong database":          strings.Replace(s.url(s.port), "/postgres?", "/hunted?", 1),
	} {
		t.Run(name, func(t *testing.T) {
			made, err := build(t, triggertest.Environment(t), nil, url)
			if err == nil {
				_, err = read(t, made)
				if err := made.Close(); err != nil {
					t.Error(err)
				}
			}
			if err == nil {
				t.Fatal("there is no error")
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "s3cr") {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
}

func TestReadTakesWhatDatabasesCount(t *testing.T) {
	s := start(t)
	for query, want := range map[string]float64{
		"SELECT 7": 7, "SELECT 2.5::numeric": 2.5, "SELECT 1.25::real": 1.25, "SELECT '4'": 4, "SELECT 9::bigint": 9,
	} {
		made, err := build(t, triggertest.Environment(t), map[string]string{"query": query}, s.url(s.port))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := read(t, made); err != nil || got != want {
			t.Errorf("%s gives %v, %v; want %v", query, got, err, want)
		}
		_ = made.Close()
	}
	for _, query := range []string{"SELECT NULL::int", "SELECT 1 WHERE false", "SELECT 'many'", "SELECT 1, 2", "SELEC 1"} {
		made, err := build(t, triggertest.Environment(t), map[string]string{"query": query}, s.url(s.port))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := read(t, made); err == nil {
			t.Errorf("%s gives %v; want an error", query, got)
		}
		_ = made.Close()
	}
}

func TestManyTriggersUseFewConnections(t *testing.T) {
	s := start(t)
	relay := process.NewRelay(t, net.JoinHostPort("127.0.0.1", s.port))
	_, port, _ := net.SplitHostPort(relay.Address)
	env := triggertest.Environment(t)
	woken := make(chan int, 1000)
	for n := range 100 {
		made, err := build(t, env, map[string]string{"notifyChannel": fmt.Sprintf("jobs %d", n)}, s.url(port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = made.Close() })
		t.Cleanup(made.(trigger.Pusher).Watch(trigger.Idle, func() { woken <- n }))
		if _, err := read(t, made); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 { // each is woken once when it is listened for
		<-woken
	}
	s.exec(t, `NOTIFY "jobs 42"`)
	if n := <-woken; n != 42 {
		t.Errorf("trigger %d was woken; want 42", n)
	}
	if n := relay.Accepted(); n > most+1 {
		t.Errorf("there were %d connections; want at most %d", n, most+1)
	}
}

func TestSlowAnswersEndInTime(t *testing.T) {
	s := start(t)
	made, err := build(t, triggertest.Environment(t), map[string]string{"query": "SELECT 1 FROM pg_sleep(30)"}, s.url(s.port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = made.Close() }()
	triggertest.EndsInTime(t, made)
}

func BenchmarkWake(b *testing.B) {
	s := start(b)
	env := trigger.Environment{}
	triggertest.Bench(b, &env)
	made, err := build(b, env, map[string]string{"notifyChannel": "jobs"}, s.url(s.port))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = made.Close() }()
	triggertest.Wakes(b, made, func() { s.exec(b, `INSERT INTO jobs VALUES (1)`) })
}
