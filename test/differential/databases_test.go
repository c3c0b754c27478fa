package differential

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/zap"

	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

// queries are what databases may be asked, beside the number of jobs.
var queries = []string{
	"SELECT 7", "SELECT 2.5", "SELECT -3", "SELECT '4'", "SELECT '4.25'", "SELECT 'many'", "SELECT NULL", "SELECT 1 WHERE 1 = 0",
	"SELECT 1, 2", "SELECT 3 UNION ALL SELECT 4", "SELECT true", "SELECT count(*) FROM missing", "SELEC", "SELECT 12345678901234567890",
	"SELECT 1e30", "SELECT 0.0004", "SELECT 0.0006", "SELECT current_timestamp", "SELECT 1; SELECT 2", "SELECT 9 -- really", "  SELECT 8  ",
}

func TestPostgreSQL(t *testing.T) {
	covers(t, "postgresql")
	const password = servers.PostgreSQLPassword
	program, port := servers.PostgreSQL(t)
	url := func(password, database string) string {
		return "postgres://postgres:" + password + "@127.0.0.1:" + port + "/" + database + "?sslmode=disable"
	}
	var conn *pgx.Conn
	program.Ready = func(ctx context.Context) (err error) {
		conn, err = pgx.Connect(ctx, url("s3cr%20et%27", "postgres"))
		return err
	}
	process.Start(t, program)
	jobs := func(n int) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()
			_, err := conn.Exec(t.Context(), "DROP TABLE IF EXISTS jobs; CREATE TABLE jobs AS SELECT generate_series(1, "+fmt.Sprint(n)+")")
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	query := map[string]string{"query": "SELECT count(*) FROM jobs", "targetQueryValue": "5.5", "activationTargetQueryValue": "2"}
	states := []state{
		{name: "no table", want: fails},
		{name: "none", set: jobs(0), want: "0"},
		{name: "two", set: jobs(2), want: "2"},
		{name: "three", set: jobs(3), want: "3"},
		{name: "many", set: jobs(1234), want: "1234"},
	}
	try := map[string][]string{
		"query":            append(queries, "SELECT 1::numeric / 3", "SELECT 'NaN'::float8", "SELECT 'Infinity'::float8", "SELECT 2::money", "SELECT pg_sleep(0)"),
		"targetQueryValue": {"0.0005", "1000000"},
	}
	t.Run("by connection", func(t *testing.T) {
		compare(t, subject{
			Type: "postgresql", Metadata: merged(query, map[string]string{"connectionFromEnv": "PG"}), Env: map[string]string{"PG": url("s3cr%20et%27", "postgres")},
			Refused: []string{"query", "connectionFromEnv", "targetQueryValue", "targetQueryValue=many", "activationTargetQueryValue=x"},
			Try:     try, Where: []string{"connectionFromEnv"},
		}, append(states,
			state{name: "a wrong password", over: map[string]string{"env PG": url("wrong", "postgres")}, want: fails},
			state{name: "no such database", over: map[string]string{"env PG": url("s3cr%20et%27", "other")}, want: fails},
			state{name: "no connection string", over: map[string]string{"env PG": "nonsense"}, want: fails},
			state{name: "a keyword string", over: map[string]string{"env PG": `host=127.0.0.1 port=` + port + ` user=postgres password='s3cr et\'' dbname=postgres sslmode=disable`}, want: "1234"},
		)...)
	})
	t.Run("by parts", func(t *testing.T) {
		compare(t, subject{
			Type: "postgresql",
			Metadata: merged(query, map[string]string{
				"host": "127.0.0.1", "port": port, "userName": "postgres", "dbName": "postgres", "sslmode": "disable",
			}),
			Auth:    map[string]string{"password": password},
			Refused: []string{"query", "host", "port", "userName", "dbName", "sslmode"}, Where: []string{"host", "port", "auth host", "auth port"},
			Try: map[string][]string{"sslmode": {"require", "prefer", "verify-full", "allow"}, "dbName": {"template1"}, "userName": {"nobody"}, "auth userName": {"postgres"}},
		}, state{name: "many", want: "1234"},
			state{name: "nobody there", over: map[string]string{"port": process.Port(t)}, want: fails})
	})
}

func TestMySQL(t *testing.T) {
	covers(t, "mysql")
	program, port := servers.MariaDB(t)
	dsn := func(password, database string) string {
		return "ebb:" + password + "@tcp(127.0.0.1:" + port + ")/" + database
	}
	db, err := sql.Open("mysql", dsn("hunter2", "work"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	program.Ready = db.PingContext
	process.Start(t, program)
	jobs := func(n int) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()
			for _, statement := range []string{"CREATE OR REPLACE TABLE jobs (id INT)", "INSERT INTO jobs VALUES (1)" + strings.Repeat(", (1)", max(0, n-1))} {
				if n == 0 && strings.HasPrefix(statement, "INSERT") {
					continue
				}
				if _, err := db.ExecContext(t.Context(), statement); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	query := map[string]string{"query": "SELECT COUNT(*) FROM jobs", "queryValue": "5.5", "activationQueryValue": "2"}
	t.Run("by connection", func(t *testing.T) {
		compare(t, subject{
			Type: "mysql", Metadata: merged(query, map[string]string{"connectionStringFromEnv": "DSN"}), Env: map[string]string{"DSN": dsn("hunter2", "work")},
			Refused: []string{"query", "queryValue", "queryValue=many", "activationQueryValue=x"}, Where: []string{"connectionStringFromEnv"},
			Try: map[string][]string{"query": append(queries, "SELECT SUM(2)", "SELECT 1/3"), "metricName": {"mine"}},
		},
			state{name: "no table", want: fails},
			state{name: "none", set: jobs(0), want: "0"},
			state{name: "two", set: jobs(2), want: "2"},
			state{name: "three", set: jobs(3), want: "3"},
			state{name: "many", set: jobs(321), want: "321"},
			state{name: "a wrong password", over: map[string]string{"env DSN": dsn("wrong", "work")}, want: fails},
			state{name: "no such database", over: map[string]string{"env DSN": dsn("hunter2", "other")}, want: fails},
			state{name: "parameters", over: map[string]string{"env DSN": dsn("hunter2", "work?parseTime=true")}, want: "321"},
			state{name: "no connection string", over: map[string]string{"env DSN": "nonsense"}, want: fails},
		)
	})
	t.Run("by parts", func(t *testing.T) {
		compare(t, subject{
			Type:     "mysql",
			Metadata: merged(query, map[string]string{"host": "127.0.0.1", "port": port, "username": "ebb", "dbName": "work"}),
			Auth:     map[string]string{"password": "hunter2"}, Where: []string{"host", "port"},
			Refused: []string{"query", "queryValue", "queryValue=many"},
			Try:     map[string][]string{"dbName": {"mysql"}, "username": {"root"}},
		}, state{name: "many", want: "321"},
			state{name: "nobody there", over: map[string]string{"port": process.Port(t)}, want: fails})
	})
}

func TestMongoDB(t *testing.T) {
	covers(t, "mongodb")
	s := servers.MongoDB(t, "../../bin")
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://" + s.Address).SetServerSelectionTimeout(10 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(context.WithoutCancel(t.Context())) })
	collection := client.Database("work").Collection("jobs")
	jobs := func(n int) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()
			if _, err := collection.DeleteMany(t.Context(), bson.D{}); err != nil {
				t.Fatal(err)
			}
			for i := range n + 2 { // and two that do not count
				if _, err := collection.InsertOne(t.Context(), bson.D{{Key: "waits", Value: i < n}, {Key: "size", Value: i}}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	compare(t, subject{
		Type: "mongodb",
		Metadata: map[string]string{
			"dbName": "work", "collection": "jobs", "query": `{"waits": true}`, "queryValue": "5.5", "activationQueryValue": "2",
		},
		Auth:    map[string]string{"connectionString": "mongodb://" + s.Address + "/"},
		Refused: []string{"auth connectionString", "dbName", "collection", "query", "queryValue", "queryValue=many", "activationQueryValue=x"},
		Where:   []string{"auth connectionString"},
		Try: map[string][]string{
			"query":    {"{}", "{", "[]", "7", `{"size": {"$gt": 1}}`, `{"size": {"$gt": {"$numberInt": "1"}}}`, `{"$nope": 1}`, `{"waits": true, "waits": false}`, `{"waits": true} x`},
			"auth tls": {"disable", "maybe"}, "auth cert": nil,
		},
	},
		state{name: "no collection", want: "0"},
		state{name: "none", set: jobs(0), want: "0"},
		state{name: "two", set: jobs(2), want: "2"},
		state{name: "three", set: jobs(3), want: "3"},
		state{name: "eleven", set: jobs(11), want: "11"},
		state{name: "no connection string", over: map[string]string{"auth connectionString": "work"}, want: refused},
		state{name: "a host alone", over: map[string]string{"auth connectionString": "", "auth host": "127.0.0.1"}, want: refused},
		state{name: "no user", over: map[string]string{"auth connectionString": "", "auth host": "127.0.0.1", "auth port": "1"}, want: refused},
		state{name: "TLS without anything", over: map[string]string{"auth tls": "enable"}, want: refused},
		state{name: "TLS with half", over: map[string]string{"auth tls": "enable", "auth cert": "x"}, want: refused},
		state{name: "nobody there", over: map[string]string{"auth connectionString": "mongodb://127.0.0.1:" + process.Port(t) + "/?serverSelectionTimeoutMS=500"}, want: fails},
	)
}

func TestEtcd(t *testing.T) {
	covers(t, "etcd")
	program, address := servers.Etcd(t, "http")
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + address}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	program.Ready = func(ctx context.Context) error {
		_, err := client.Status(ctx, "http://"+address)
		return err
	}
	process.Start(t, program)
	put := func(value string) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()
			if _, err := client.Put(t.Context(), "jobs/waiting", value); err != nil {
				t.Fatal(err)
			}
		}
	}
	compare(t, subject{
		Type:     "etcd",
		Metadata: map[string]string{"endpoints": address, "watchKey": "jobs/waiting", "value": "5.5", "activationValue": "2.5"},
		Where:    []string{"endpoints"},
		Refused: []string{
			"endpoints", "watchKey", "value", "value=a", "activationValue=b", "watchProgressNotifyInterval=0", "watchProgressNotifyInterval=x", "auth tls=yes",
			"auth username=root", "auth password=x",
		},
		Try: map[string][]string{"watchKey": {"jobs"}, "auth tls": {"disable"}, "watchProgressNotifyInterval": {"5"}},
	},
		state{name: "no key", want: fails},
		state{name: "none", set: put("0"), want: "0"},
		state{name: "two", set: put("2"), want: "2"},
		state{name: "two and a half", set: put("2.5"), want: "2.500"},
		state{name: "more than that", set: put("2.501"), want: "2.501"},
		state{name: "less than counts", set: put("2.5004"), want: "2.500"},
		state{name: "a power", set: put("1e3"), want: "1k"},
		state{name: "less than nothing", set: put("-4"), want: "0"},
		state{name: "no number", set: put("NaN"), want: "0"},
		state{name: "too much", set: put("1e400"), want: fails},
		state{name: "endless", set: put("Inf"), want: "0"},
		state{name: "a word", set: put("many"), want: fails},
		state{name: "nothing", set: put(""), want: fails},
		state{name: "space", set: put(" 7"), want: fails},
		state{name: "a line", set: put("7\n"), want: fails},
		state{name: "hexadecimal", set: put("0x10")},
		state{name: "by URL", set: put("7"), over: map[string]string{"endpoints": "http://" + address}, want: "7"},
		state{name: "two addresses", over: map[string]string{"endpoints": address + ", " + address}, want: "7"},
		state{name: "a user nobody knows", over: map[string]string{"auth username": "me", "auth password": "x"}},
		state{name: "half a certificate", over: map[string]string{"auth tls": "enable", "auth cert": "x"}, want: refused},
		state{name: "no certificate", over: map[string]string{"auth tls": "enable", "auth cert": "x", "auth key": "y"}, want: refused},
		state{name: "TLS where there is none", over: map[string]string{"auth tls": "enable"}, want: fails},
		state{name: "nobody there", over: map[string]string{"endpoints": "127.0.0.1:" + process.Port(t)}, want: fails},
	)
}
