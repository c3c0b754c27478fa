package mongodb

import (
	"context"
	"maps"
	"net"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

// database is a MongoDB, or what speaks like one.
type database struct {
	*process.Process
	address string
	jobs    *mongo.Collection
}

func start(t testing.TB) *database {
	t.Helper()
	run := servers.MongoDB(t, "../../../../bin")
	d := &database{Process: run.Process, address: run.Address}
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://" + d.address).SetServerSelectionTimeout(10 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { farewell(t.Context(), client.Disconnect) })
	d.jobs = client.Database("work").Collection("jobs")
	return d
}

func (d *database) set(t *testing.T, n int) {
	t.Helper()
	// A connection that was open when the server ended shows so when it is used next.
	for try := range 3 {
		if _, err := d.jobs.DeleteMany(t.Context(), bson.D{}); err == nil {
			break
		} else if try == 2 {
			t.Fatal(err)
		}
	}
	for i := range n + 1 { // and one that does not count
		if _, err := d.jobs.InsertOne(t.Context(), bson.D{{Key: "waits", Value: i < n}}); err != nil {
			t.Fatal(err)
		}
	}
}

func metadata() map[string]string {
	return map[string]string{
		"dbName": "work", "collection": "jobs", "query": `{"waits": true}`, "queryValue": "5", "activationQueryValue": "2",
	}
}

func TestMongoDB(t *testing.T) {
	d := start(t)
	subject := triggertest.Subject{
		Type: "mongodb", Build: New, Metadata: metadata(),
		Auth:   map[string]string{"connectionString": "mongodb://" + d.address + "/"},
		Metric: "mongodb-jobs", Target: "5",
		Required: []string{"connectionString", "dbName", "collection", "query", "queryValue"},
		Wrong:    map[string]string{"query": "{", "queryValue": "many", "activationQueryValue": "x", "connectionString": "work"},
		Set:      d.set,
		Down:     map[string]string{"connectionString": "mongodb://127.0.0.1:" + process.Port(t)},
		Break:    func(t *testing.T) { d.Stop(t) },
		Repair:   func(t *testing.T) { d.Start(t) },
		Keeps:    true,
	}
	triggertest.Run(t, subject)
}

func build(t testing.TB, env trigger.Environment, over, auth map[string]string) (trigger.Source, error) {
	t.Helper()
	c := trigger.Config{Environment: env}
	c.TriggerMetadata, c.AuthParams = metadata(), auth
	maps.Copy(c.TriggerMetadata, over)
	return New(c)
}

func TestParameters(t *testing.T) {
	parts := map[string]string{"host": "db.example", "port": "27017", "username": "ebb", "password": "p@ss/word"}
	for name, test := range map[string]struct {
		over, auth map[string]string
		ok         bool
	}{
		"parts that are all there":            {auth: parts, ok: true},
		"parts without a password":            {auth: map[string]string{"host": "db.example", "port": "27017", "username": "ebb"}},
		"a scheme whose servers have no port": {auth: map[string]string{"scheme": srv, "host": "db.example", "username": "ebb", "password": "x"}, ok: true},
		"an empty query":                      {auth: parts, over: map[string]string{"query": "{}"}},
		"TLS with nothing to know it by":      {auth: map[string]string{"connectionString": "mongodb://db.example", "tls": "enable"}},
		"a certificate without its key":       {auth: map[string]string{"connectionString": "mongodb://db.example", "tls": "enable", "cert": "x"}},
		"authorities that are none":           {auth: map[string]string{"connectionString": "mongodb://db.example", "tls": "enable", "ca": "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			env := triggertest.Environment(t)
			env.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, context.Canceled }
			made, err := build(t, env, test.over, test.auth)
			if (err == nil) != test.ok {
				t.Errorf("making it: %v", err)
			}
			if err == nil {
				_ = made.Close()
			}
		})
	}
	p := parameters{Scheme: "mongodb", Host: "db.example", Port: "1", Username: "ebb", Password: "p@ss/word", DBName: "work"}
	if got, want := p.connection(), "mongodb://ebb:p%40ss%2Fword@db.example:1/work"; got != want {
		t.Errorf("connection() = %s; want %s", got, want)
	}
}

func TestErrorsKeepSecrets(t *testing.T) {
	for name, connection := range map[string]string{
		"nobody answers":     "mongodb://ebb:hunter2@127.0.0.1:" + process.Port(t),
		"it is no URL":       "ebb:hunter2@127.0.0.1",
		"the port is a word": "mongodb://ebb:hunter2@127.0.0.1:port",
		"an unknown option":  "mongodb://ebb:hunter2@127.0.0.1/?authMechanism=hunter2",
	} {
		t.Run(name, func(t *testing.T) {
			made, err := build(t, triggertest.Environment(t), nil, map[string]string{"connectionString": connection})
			if err == nil {
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				_, err = made.Read(ctx)
				_ = made.Close()
			}
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("it fails with %v; want an error that does not tell the password", err)
			}
		})
	}
}
