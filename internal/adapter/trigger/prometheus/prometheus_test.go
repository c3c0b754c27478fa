package prometheus

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kedacore/keda/v2/apis/keda/v1alpha1"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

// start runs a Prometheus that scrapes a gauge "waiting" all the time.
func start(t *testing.T) (address string, waiting *atomic.Int32) {
	t.Helper()
	waiting = &atomic.Int32{}
	scraped := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = fmt.Fprintf(w, "# TYPE waiting gauge\nwaiting{queue=\"a b\"} %d\nwaiting{queue=\"other\"} 100\n", waiting.Load())
	}))
	t.Cleanup(scraped.Close)
	return servers.Prometheus(t, scraped.Listener.Addr().String()).Address, waiting
}

func TestPrometheus(t *testing.T) {
	address, waiting := start(t)
	relay := process.NewRelay(t, address)
	triggertest.Run(t, triggertest.Subject{
		Type: "prometheus", Build: New,
		Metadata: map[string]string{
			"serverAddress": "http://" + relay.Address, "query": `sum(waiting{queue="a b"})`, "threshold": "5", "activationThreshold": "2",
		},
		Metric: "prometheus", Target: "5",
		Required: []string{"serverAddress", "query", "threshold"},
		Wrong: map[string]string{
			"threshold": "one", "activationThreshold": "one", "ignoreNullValues": "xxxx", "unsafeSsl": "maybe", "timeout": "-1",
			"customHeaders": "key1=value1,key2", "queryParameters": "key1=value1,key2", "authModes": "magic",
		},
		Set:    func(_ *testing.T, n int) { waiting.Store(int32(n)) },
		Down:   map[string]string{"serverAddress": "http://127.0.0.1:" + process.Port(t)},
		Break:  func(*testing.T) { relay.Cut() },
		Repair: func(*testing.T) { relay.Heal() },
	})
	for query, test := range map[string]struct{ want, strict string }{
		"vector(2.5)":        {"2.500", "2.500"},
		"vector(-3)":         {"0", "0"},
		"nothing_like_it":    {"0", "target may be lost, the result is empty"},
		"vector(1) / 0":      {"0", "prometheus query returns +Inf"},
		"vector(0) / 0":      {"0", "prometheus query returns NaN"},
		`waiting{queue!=""}`: {`prometheus query waiting{queue!=""} returned multiple elements`, "returned multiple elements"},
		"waiting[":           {"prometheus query api returned error. status: 400", "status: 400"},
		"scalar(vector(1))":  {"reading the answer:", "reading the answer:"},
	} {
		for ignore, want := range map[string]string{"true": test.want, "false": test.strict} {
			got := read(t, triggertest.Environment(t), map[string]string{"serverAddress": "http://" + address, "query": query, "ignoreNullValues": ignore}, nil)
			if !strings.Contains(got, want) {
				t.Errorf("%s reads %q with ignoreNullValues %s; want %q", query, got, ignore, want)
			}
		}
	}
}

func config(env trigger.Environment, over, auth map[string]string) trigger.Config {
	c := trigger.Config{Environment: env}
	c.TriggerMetadata = map[string]string{"serverAddress": "http://127.0.0.1:1", "query": "up", "threshold": "5"}
	maps.Copy(c.TriggerMetadata, over)
	c.AuthParams = auth
	return c
}

// read returns the value or the error's text.
func read(t *testing.T, env trigger.Environment, over, auth map[string]string) string {
	t.Helper()
	made, err := New(config(env, over, auth))
	if err != nil {
		return err.Error()
	}
	defer func() { _ = made.Close() }()
	got, err := made.Read(t.Context())
	if err != nil {
		return err.Error()
	}
	return got[0].Value.String()
}

// stub is a server that always says the same, and notes what it was asked.
func stub(t *testing.T, status int, body string) (address string, asked *http.Request) {
	t.Helper()
	asked = &http.Request{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = *r
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

func TestAnswers(t *testing.T) {
	for body, test := range map[string]struct{ want, strict string }{
		`{}`:                                  {"0", "the result is empty"},
		`{"data":{"result":[]}}`:              {"0", "the result is empty"},
		`{"data":{"result":[{"value": []}]}}`: {"0", "the value list is empty"},
		`{"data":{"result":[{"values": [[1,"2"]]}]}}`:    {"0", "the value list is empty"},
		`{"data":{"result":[{"value": ["1", "2"]}]}}`:    {"2", "2"},
		`{"data":{"result":[{"value": [1.5, "2e3"]}]}}`:  {"2k", "2k"},
		`{"data":{"result":[{"value": ["1"]}]}}`:         {"prometheus query up didn't return enough values", "enough values"},
		`{"data":{"result":[{},{}]}}`:                    {"returned multiple elements", "returned multiple elements"},
		`{"data":{"result":[{"value": ["1", "+Inf"]}]}}`: {"0", "prometheus query returns +Inf"},
		`{"data":{"result":[{"value": ["1", "-Inf"]}]}}`: {"0", "prometheus query returns -Inf"},
		`{"data":{"result":[{"value": ["1", "NaN"]}]}}`:  {"0", "prometheus query returns NaN"},
		`{"data":{"result":[{"value": ["1", null]}]}}`:   {"0", "0"},
		`{"data":{"result":[{"value": ["1", 2]}]}}`:      {"it is not a string", "it is not a string"},
		`{"data":{"result":[{"value": ["1", "two"]}]}}`:  {"it is not a number", "it is not a number"},
		`<html>`: {"reading the answer: invalid character", "invalid character"},
		`{"status":"success","data":{"result":[1,"2"]}}`:   {"reading the answer: json", "reading the answer: json"},
		`{"data":{"result":[{"value":["1","2"]}]},"x":[]}`: {"2", "2"},
	} {
		address, _ := stub(t, http.StatusOK, body)
		for ignore, want := range map[string]string{"true": test.want, "false": test.strict} {
			got := read(t, triggertest.Environment(t), map[string]string{"serverAddress": address, "ignoreNullValues": ignore}, nil)
			if !strings.Contains(got, want) {
				t.Errorf("%s reads %q with ignoreNullValues %s; want %q", body, got, ignore, want)
			}
		}
	}
	address, _ := stub(t, http.StatusServiceUnavailable, "hunter2")
	if got := read(t, triggertest.Environment(t), map[string]string{"serverAddress": address}, nil); got != "querying Prometheus: prometheus query api returned error. status: 503" {
		t.Error(got)
	}
}

func TestQuestions(t *testing.T) {
	address, asked := stub(t, http.StatusOK, `{"data":{"result":[{"value":[1,"7"]}]}}`)
	for name, test := range map[string]struct {
		metadata, auth map[string]string
		query, headers map[string]string
	}{
		"the query": {map[string]string{"query": `sum(rate(a{b="c"}[5m])) + 1`}, nil, map[string]string{"query": `sum(rate(a{b="c"}[5m])) + 1`, "namespace": ""}, nil},
		"a namespace and more": {
			map[string]string{"namespace": "foo", "queryParameters": "first=foo, second=b&r"},
			nil,
			map[string]string{"query": "up", "namespace": "foo", "first": "foo", "second": "b&r"},
			nil,
		},
		"headers": {map[string]string{"customHeaders": "X-Client-Id=cid,X-Tenant-Id=tid"}, nil, nil, map[string]string{"X-Client-Id": "cid", "X-Tenant-Id": "tid"}},
		"a token": {map[string]string{"authModes": "bearer", "customHeaders": "Authorization=x"}, map[string]string{"bearerToken": "t"}, nil, map[string]string{"Authorization": "Bearer t"}},
		"a user":  {map[string]string{"authModes": "basic"}, map[string]string{"username": "u", "password": "p"}, nil, map[string]string{"Authorization": "Basic dTpw"}},
		"a header of its own": {
			map[string]string{"authModes": "custom"},
			map[string]string{"customAuthHeader": "header\n", "customAuthValue": "value\n"},
			nil,
			map[string]string{"Header": "value"},
		},
		"an API key, which upstream does not send": {map[string]string{"authModes": "apiKey"}, map[string]string{"apiKey": "k"}, nil, map[string]string{"X-Api-Key": ""}},
		"credentials without a mode":               {nil, map[string]string{"bearerToken": "t", "ca": "caaa"}, nil, map[string]string{"Authorization": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			over := map[string]string{"serverAddress": address + "/base"}
			maps.Copy(over, test.metadata)
			if got := read(t, triggertest.Environment(t), over, test.auth); got != "7" {
				t.Fatalf("it reads %s", got)
			}
			if asked.Method != http.MethodGet || asked.URL.Path != "/base/api/v1/query" {
				t.Errorf("it asked %s %s", asked.Method, asked.URL.Path)
			}
			if at, err := time.Parse(time.RFC3339, asked.FormValue("time")); err != nil || time.Since(at) > time.Minute {
				t.Errorf("it asked for %s", asked.FormValue("time"))
			}
			for name, want := range test.query {
				if got := asked.FormValue(name); got != want {
					t.Errorf("it asked with %s=%q; want %q", name, got, want)
				}
			}
			for name, want := range test.headers {
				if got := asked.Header.Get(name); got != want {
					t.Errorf("it asked with %s: %q; want %q", name, got, want)
				}
			}
		})
	}
}

func TestOAuth(t *testing.T) {
	issuer, _ := stub(t, http.StatusOK, "access_token=fresh&token_type=Bearer&expires_in=3600")
	address, asked := stub(t, http.StatusOK, `{"data":{"result":[{"value":[1,"7"]}]}}`)
	over := map[string]string{"serverAddress": address, "authModes": "oauth"}
	auth := map[string]string{"oauthTokenURI": issuer, "clientID": "me", "clientSecret": "hunter2", "scopes": "a, b", "endpointParams": "audience=x"}
	if got := read(t, triggertest.Environment(t), over, auth); got != "7" || asked.Header.Get("Authorization") != "Bearer fresh" {
		t.Errorf("it reads %s, signed with %q", got, asked.Header.Get("Authorization"))
	}
	delete(auth, "clientSecret")
	if got := read(t, triggertest.Environment(t), over, auth); got != "7" {
		t.Errorf("without a secret it reads %s", got)
	}
}

func TestTrust(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{}`) }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	for name, test := range map[string]struct {
		metadata map[string]string
		ca, want string
	}{
		"nobody":                               {nil, "", "certificate"},
		"anybody":                              {map[string]string{"unsafeSsl": "true"}, "", "0"},
		"an authority":                         {map[string]string{"authModes": "basic"}, ca, "0"},
		"an authority that is none":            {map[string]string{"authModes": "basic"}, "caaa", "reading the authorities"},
		"an authority in no mode":              {nil, ca, "certificate"},
		"anybody in no mode with an authority": {map[string]string{"unsafeSsl": "true"}, "caaa", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			over := map[string]string{"serverAddress": server.URL}
			maps.Copy(over, test.metadata)
			if got := read(t, triggertest.Environment(t), over, map[string]string{"username": "u", "ca": test.ca}); !strings.Contains(got, test.want) {
				t.Errorf("it reads %q; want %q", got, test.want)
			}
		})
	}
}

func TestIdentities(t *testing.T) {
	for name, test := range map[string]struct {
		provider            v1alpha1.PodIdentityProvider
		metadata, auth, env map[string]string
		want                string
	}{
		"none":                     {},
		"none, said":               {provider: "none"},
		"one and a mode":           {provider: "azure-workload", metadata: map[string]string{"authModes": "bearer"}, auth: map[string]string{"token": "hunter2"}, want: "pod identity cannot be enabled with other auth types"},
		"Azure's":                  {provider: "azure-workload", want: `pod identity "azure-workload" is not built in`},
		"Google's":                 {provider: "gcp"},
		"Amazon's":                 {provider: "aws", metadata: map[string]string{"awsRegion": "eu-west-1"}, want: `pod identity "aws" is not built in`},
		"Google's credentials":     {auth: map[string]string{"GoogleApplicationCredentials": "hunter2"}, want: "are not the key of a service account"},
		"Google's, from the pod":   {metadata: map[string]string{"credentialsFromEnv": "G"}, env: map[string]string{"G": `{"type":"service_account"}`}},
		"Google's, from a file":    {metadata: map[string]string{"credentialsFromEnvFile": "F"}, want: "reading credentialsFromEnvFile is not built in"},
		"Amazon's keys":            {auth: map[string]string{"awsAccessKeyID": "a", "awsSecretAccessKey": "hunter2"}, want: "signing by AWS credentials is not built in"},
		"Amazon's role":            {auth: map[string]string{"awsRoleArn": "a"}, want: "AWS credentials"},
		"the operator's":           {metadata: map[string]string{"identityOwner": "operator"}, want: "AWS credentials"},
		"Amazon's, from the pod":   {metadata: map[string]string{"awsAccessKeyIDFromEnv": "A", "awsSecretAccessKeyFromEnv": "B"}, env: map[string]string{"A": "a", "B": "hunter2"}, want: "AWS credentials"},
		"half of Amazon's":         {metadata: map[string]string{"awsAccessKeyID": "a"}},
		"a region without a key":   {metadata: map[string]string{"awsRegion": "eu-west-1"}},
		"Amazon's keys and a mode": {metadata: map[string]string{"authModes": "bearer"}, auth: map[string]string{"token": "t", "awsSecretAccessKey": "hunter2"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := config(triggertest.Environment(t), test.metadata, test.auth)
			c.PodIdentity.Provider, c.ResolvedEnv = test.provider, test.env
			made, err := New(c)
			if err == nil {
				_ = made.Close()
			}
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2")) {
				t.Errorf("making it: %v; want %q", err, test.want)
			}
		})
	}
}

func TestSlowAnswersEndInTime(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	begin := time.Now()
	got := read(t, triggertest.Environment(t), map[string]string{"serverAddress": server.URL, "timeout": "200", "query": "up"}, nil)
	if took := time.Since(begin); took < 200*time.Millisecond || took > 2*time.Second || !strings.Contains(got, "imeout") {
		t.Errorf("it says %s after %s; want 200 ms", got, took)
	}
}
