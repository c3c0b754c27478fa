package graphite

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

func TestGraphite(t *testing.T) {
	s := servers.StartGraphite(t)
	relay := process.NewRelay(t, s.Web)
	triggertest.Run(t, triggertest.Subject{
		Type: "graphite", Build: New,
		Metadata: map[string]string{
			"serverAddress": "http://" + relay.Address, "query": "sumSeries(jobs.*.waiting)", "queryTime": "-30minutes",
			"threshold": "5", "activationThreshold": "2",
		},
		Metric: "graphite", Target: "5",
		Required: []string{"serverAddress", "query", "queryTime"},
		Wrong:    map[string]string{"threshold": "one", "activationThreshold": "one", "authMode": "tls"},
		Set:      func(t *testing.T, n int) { s.Put(t, "jobs.a.waiting", float64(n)) },
		Down:     map[string]string{"serverAddress": "http://127.0.0.1:" + process.Port(t)},
		Break:    func(*testing.T) { relay.Cut() },
		Repair:   func(*testing.T) { relay.Heal() },
	})
	s.Put(t, "two.a", 1)
	s.Put(t, "two.b", 2.5)
	for query, want := range map[string]string{
		"none.*": "0", "two.b": "2.500", "scale(two.b,2)": "5", "two.*": "graphite query two.* returned multiple series",
	} {
		got := ""
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && !strings.Contains(got, want); <-time.After(50 * time.Millisecond) {
			got = read(t, map[string]string{"serverAddress": "http://" + s.Web, "query": query, "queryTime": "-5min"}, nil)
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s reads %q; want %q", query, got, want)
		}
	}
}

// read returns the value or the error's text.
func read(t *testing.T, over, auth map[string]string) string {
	t.Helper()
	c := trigger.Config{Environment: triggertest.Environment(t)}
	c.TriggerMetadata = map[string]string{"query": "a.b", "queryTime": "-30Seconds"}
	maps.Copy(c.TriggerMetadata, over)
	c.AuthParams = auth
	made, err := New(c)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = made.Close() }()
	if specs, err := made.Specs(t.Context()); err != nil || specs[0].External.Target.AverageValue.String() != "100" {
		t.Errorf("Specs() = %+v, %v; want a target of 100", specs, err)
	}
	got, err := made.Read(t.Context())
	if err != nil {
		return err.Error()
	}
	return got[0].Value.String()
}

func TestAnswers(t *testing.T) {
	for body, want := range map[string]string{
		`[]`:                               "0",
		`[{"target":"a"}]`:                 "0",
		`[{"datapoints":[]}]`:              "0",
		`[{"datapoints":[[1,10000000]]}]`:  "1",
		`[{"datapoints":[[1,10],[2,20]]}]`: "2",
		`[{"datapoints":[[1,10000000],[null,10000010]]}]`:         "1",
		`[{"datapoints":[[3.5,10],[null,20],[]]}]`:                "3.500",
		`[{"datapoints":[[null,10000000],[null,10000010]]}]`:      "no valid non-null response in query a.b, try increasing your queryTime or check your query",
		`[{"datapoints":[[1,1000000]]},{"datapoints":[[1,100]]}]`: "graphite query a.b returned multiple series",
		`{}`:                            "reading the answer, which has status 400",
		`<html>`:                        "reading the answer, which has status 400: invalid character",
		`[{"datapoints":[["1",100]]}]`:  "reading the answer",
		`[{"datapoints":[[1e999,10]]}]`: "reading the answer",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.RequestURI != "/render?from=-30Seconds&target=a.b&format=json" {
				t.Errorf("it asked %s", r.RequestURI)
			}
			if strings.HasPrefix(want, "reading") {
				w.WriteHeader(http.StatusBadRequest)
			}
			_, _ = io.WriteString(w, body)
		}))
		if got := read(t, map[string]string{"serverAddress": server.URL}, nil); !strings.Contains(got, want) {
			t.Errorf("%s reads %q; want %q", body, got, want)
		}
		server.Close()
	}
}

func TestSigningIn(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "me" || password != "hunter2" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `[{"datapoints":[[7,1]]}]`)
	}))
	defer server.Close()
	for name, test := range map[string]struct{ mode, user, password, want string }{
		"in a mode":             {"basic", "me", "hunter2", "7"},
		"without a mode":        {"", "me", "hunter2", "7"},
		"with a wrong password": {"basic", "me", "hunter3", "status 401"},
		"not at all":            {"", "", "", "status 401"},
		"without a user":        {"basic", "", "hunter2", "username=<empty> is required"},
		"in another mode":       {"tls", "me", "hunter2", `auth mode "tls" is not supported by this scaler; supported modes: [basic]`},
	} {
		t.Run(name, func(t *testing.T) {
			over := map[string]string{"serverAddress": strings.Replace(server.URL, "http://", "http://other:hunter3@", 1), "authMode": test.mode}
			got := read(t, over, map[string]string{"username": test.user, "password": test.password})
			if !strings.Contains(got, test.want) || strings.Contains(got, "hunter") {
				t.Errorf("it reads %q; want %q", got, test.want)
			}
		})
	}
}
