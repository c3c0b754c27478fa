package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

// server is a MariaDB with a database "work" that has a table "jobs".
type server struct {
	*process.Process
	port string
	db   *sql.DB
}

func dsn(port string) string { return "ebb:hunter2@tcp(127.0.0.1:" + port + ")/work" }

func start(t testing.TB) *server {
	t.Helper()
	program, port := servers.MariaDB(t)
	db, err := sql.Open("mysql", dsn(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s := &server{port: port, db: db}
	program.Ready = func(ctx context.Context) error { return db.PingContext(ctx) }
	s.Process = process.Start(t, program)
	s.exec(t, "CREATE TABLE IF NOT EXISTS jobs (id INT)")
	return s
}

func (s *server) exec(t testing.TB, statement string) {
	t.Helper()
	if _, err := s.db.Exec(statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func (s *server) set(t *testing.T, n int) {
	t.Helper()
	s.exec(t, "DELETE FROM jobs")
	for range n {
		s.exec(t, "INSERT INTO jobs VALUES (1)")
	}
}

func (s *server) subject() triggertest.Subject {
	return triggertest.Subject{
		Type: "mysql", Build: New,
		Metadata: map[string]string{
			"query": "SELECT COUNT(*) FROM jobs", "queryValue": "5", "activationQueryValue": "2", "connectionStringFromEnv": "DSN",
		},
		Env:    map[string]string{"DSN": dsn(s.port)},
		Metric: "mysql-work", Target: "5",
		Required: []string{"query", "queryValue"},
		Wrong:    map[string]string{"queryValue": "many", "activationQueryValue": "x"},
		Set:      s.set,
		Break:    func(t *testing.T) { s.Stop(t) },
		Repair:   func(t *testing.T) { s.Start(t) },
		Keeps:    true,
	}
}

func TestMySQL(t *testing.T) {
	s := start(t)
	whole := s.subject()
	whole.Variant = true
	t.Run("by connection string", func(t *testing.T) { triggertest.Run(t, whole) })
	parts := s.subject()
	parts.Env = nil
	parts.Metadata = map[string]string{
		"query": "SELECT COUNT(*) FROM jobs", "queryValue": "5", "activationQueryValue": "2",
		"host": "127.0.0.1", "port": s.port, "username": "ebb", "dbName": "work",
	}
	parts.Auth = map[string]string{"password": "hunter2"}
	parts.Denied = map[string]string{"password": "hunter3"}
	parts.Down = map[string]string{"port": process.Port(t)}
	t.Run("by parts", func(t *testing.T) { triggertest.Run(t, parts) })
}

func build(t testing.TB, env trigger.Environment, query, dsn string) (trigger.Source, error) {
	t.Helper()
	c := trigger.Config{Environment: env}
	c.TriggerMetadata = map[string]string{"query": query, "queryValue": "5"}
	c.AuthParams = map[string]string{"connectionString": dsn}
	return New(c)
}

func TestErrorsKeepSecrets(t *testing.T) {
	s := start(t)
	for name, dsn := range map[string]string{
		"a wrong password":     strings.Replace(dsn(s.port), "hunter2", "hunter3", 1),
		"no connection string": "hunter3",
		"an unknown setting":   dsn(s.port) + "?tls=hunter3",
		"a wrong database":     strings.Replace(dsn(s.port), "/work", "/other", 1),
	} {
		t.Run(name, func(t *testing.T) {
			made, err := build(t, triggertest.Environment(t), "SELECT 1", dsn)
			if err == nil {
				_, err = made.Read(t.Context())
				if err := made.Close(); err != nil {
					t.Error(err)
				}
			}
			if err == nil || strings.Contains(err.Error(), "hunter") {
				t.Errorf("it fails with %v; want an error that does not tell the password", err)
			}
		})
	}
}

func TestReadTakesWhatDatabasesCount(t *testing.T) {
	s := start(t)
	env := triggertest.Environment(t)
	for query, want := range map[string]string{
		"SELECT 7": "7", "SELECT 2.5": "2.500", "SELECT SUM(2)": "2", "SELECT '4'": "4", "SELECT NULL": "", "SELECT 1 WHERE 1 = 0": "", "SELEC": "",
	} {
		made, err := build(t, env, query, dsn(s.port))
		if err != nil {
			t.Fatal(err)
		}
		got, err := made.Read(t.Context())
		if want == "" && err == nil || want != "" && (err != nil || got[0].Value.Cmp(resource.MustParse(want)) != 0) {
			t.Errorf("%s gives %v, %v; want %q", query, got, err, want)
		}
		_ = made.Close()
	}
}

func TestSlowAnswersEndInTime(t *testing.T) {
	s := start(t)
	env := triggertest.Environment(t)
	made, err := build(t, env, "SELECT SLEEP(30)", dsn(s.port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = made.Close() }()
	triggertest.EndsInTime(t, made)
	var sources []trigger.Source
	for n := range 100 {
		made, err := build(t, env, fmt.Sprintf("SELECT %d", n), dsn(s.port))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = made.Close() }()
		sources = append(sources, made)
	}
	for _, made := range sources {
		if _, err := made.Read(t.Context()); err != nil {
			t.Error(err)
		}
	}
	var open int
	if err := s.db.QueryRow("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'ebb'").Scan(&open); err != nil || open > most+3 {
		t.Errorf("%d connections are open, %v; want few", open, err)
	}
}
