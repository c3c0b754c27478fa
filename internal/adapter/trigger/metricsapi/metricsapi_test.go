package metricsapi

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

var bodies = map[string]struct{ body, location string }{
	"json":       {`{"queue":{"tasks":%d}}`, "queue.tasks"},
	"yaml":       {"queue:\n  tasks: %d\n", "queue.tasks"},
	"xml":        {"<?xml version='1.0'?><queue><tasks>%d</tasks></queue>", "queue.tasks"},
	"prometheus": {"# TYPE tasks gauge\ntasks{queue=\"x\"} %d", `tasks{queue="x"}`},
}

func TestMetricsAPI(t *testing.T) {
	for format, test := range bodies {
		t.Run(format, func(t *testing.T) {
			var waiting atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = fmt.Fprintf(w, test.body, waiting.Load())
			}))
			defer server.Close()
			relay := process.NewRelay(t, server.Listener.Addr().String())
			triggertest.Run(t, triggertest.Subject{
				Type: "metrics-api", Build: New,
				Metadata: map[string]string{
					"url": "http://" + relay.Address + "/stats", "valueLocation": test.location, "format": format,
					"targetValue": "5", "activationTargetValue": "2",
				},
				Metric: "metric-api-" + test.location, Target: "5",
				Required: []string{"url", "valueLocation", "targetValue"},
				Wrong: map[string]string{
					"targetValue": "aa", "activationTargetValue": "aa", "timeout": "-1", "unsafeSsl": "yes", "format": "csv",
					"aggregationType": "median", "aggregateFromKubeServiceEndpoints": "maybe",
				},
				Variant: format == "json",
				Set:     func(_ *testing.T, n int) { waiting.Store(int32(n)) },
				Down:    map[string]string{"url": "http://127.0.0.1:" + process.Port(t)},
				Break:   func(*testing.T) { relay.Cut() },
				Repair:  func(*testing.T) { relay.Heal() },
			})
		})
	}
}

// build makes a trigger that looks at an address, with parameters put over it.
func build(t *testing.T, env trigger.Environment, over, auth map[string]string) (trigger.Source, error) {
	t.Helper()
	c := trigger.Config{Environment: env}
	c.TriggerMetadata = map[string]string{"valueLocation": "n", "targetValue": "5"}
	maps.Copy(c.TriggerMetadata, over)
	c.AuthParams = auth
	return New(c)
}

func read(t *testing.T, env trigger.Environment, over, auth map[string]string) (string, error) {
	t.Helper()
	made, err := build(t, env, over, auth)
	if err != nil {
		return "", err
	}
	defer func() { _ = made.Close() }()
	got, err := made.Read(t.Context())
	if err != nil {
		return "", err
	}
	return got[0].Value.String(), nil
}

func TestSigningIn(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if slices.Contains([]string{
			password + user, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "),
			r.Header.Get("X-Api-Key"), r.Header.Get("X-Mine"), r.FormValue("api_key"), r.FormValue("mine"),
		}, "hunter2") {
			_, _ = io.WriteString(w, `{"n":7}`)
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	for name, test := range map[string]struct {
		metadata, auth map[string]string
		want           string
	}{
		"not at all":        {nil, map[string]string{"apiKey": "hunter2", "bearerToken": "hunter2"}, "/stats: api returned 401"},
		"as a user":         {map[string]string{"authMode": "basic"}, map[string]string{"username": "2", "password": "hunter"}, "7"},
		"by a token":        {map[string]string{"authMode": "bearer"}, map[string]string{"token": "hunter2"}, "7"},
		"by a header":       {map[string]string{"authMode": "apiKey"}, map[string]string{"apiKey": "hunter2"}, "7"},
		"by a named header": {map[string]string{"authMode": "apiKey", "keyParamName": "X-Mine"}, map[string]string{"apiKey": "hunter2"}, "7"},
		"by the query":      {map[string]string{"authMode": "apiKey", "method": "query"}, map[string]string{"apiKey": "hunter2"}, "7"},
		"by a named part of the query": {
			map[string]string{"authMode": "apiKey", "method": "query", "keyParamName": "mine"}, map[string]string{"apiKey": "hunter2"}, "7",
		},
		"by a wrong token": {map[string]string{"authMode": "bearer"}, map[string]string{"token": "hunter3"}, "/stats: api returned 401"},
		"by a wrong key in the query": {
			map[string]string{"authMode": "apiKey", "method": "query"}, map[string]string{"apiKey": "hunter3"}, "/stats: api returned 401",
		},
		"by a header that upstream does not send": {
			map[string]string{"authMode": "custom"}, map[string]string{"customAuthHeader": "a", "customAuthValue": "hunter2"}, "supported modes: [apiKey basic tls bearer]",
		},
		"by a flow that upstream does not do": {
			map[string]string{"authMode": "apiKey,oauth"},
			map[string]string{"apiKey": "hunter2", "oauthTokenURI": "u", "clientID": "c"},
			`auth mode "oauth" is not supported`,
		},
		"without a key":                       {map[string]string{"authMode": "apiKey"}, nil, "apiKey is required"},
		"with a certificate that is none":     {map[string]string{"authMode": "tls"}, map[string]string{"cert": "ceert", "key": "hunter2"}, "reading the certificate"},
		"with certificates nobody asked for":  {map[string]string{"authMode": "bearer"}, map[string]string{"token": "hunter2", "ca": "caaa", "cert": "c", "key": "k"}, "7"},
		"by a key in the query, with no host": {map[string]string{"authMode": "apiKey", "method": "query", "url": "http:///x"}, map[string]string{"apiKey": "hunter2"}, "no Host"},
	} {
		t.Run(name, func(t *testing.T) {
			over := map[string]string{"url": server.URL + "/stats"}
			maps.Copy(over, test.metadata)
			got, err := read(t, triggertest.Environment(t), over, test.auth)
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, test.want) || strings.Contains(got, "hunter") {
				t.Errorf("it reads %q; want %q", got, test.want)
			}
		})
	}
}

func TestTrust(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"n":7}`) }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	env := triggertest.Environment(t)
	if got, err := read(t, env, map[string]string{"url": server.URL, "unsafeSsl": "true"}, nil); err != nil || got != "7" {
		t.Errorf("without a check it reads %s, %v", got, err)
	}
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	if got, err := read(t, env, map[string]string{"url": server.URL}, map[string]string{"ca": ca}); err == nil {
		t.Errorf("an authority counts in mode tls alone, yet it reads %s", got)
	}
}

func TestSlowAnswersEndInTime(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	begin := time.Now()
	if got, err := read(t, triggertest.Environment(t), map[string]string{"url": server.URL, "timeout": "200"}, nil); err == nil {
		t.Errorf("it reads %s", got)
	}
	if took := time.Since(begin); took < 200*time.Millisecond || took > 2*time.Second {
		t.Errorf("it gave up after %s; want 200 ms", took)
	}
}

func TestWhereNoTargetIsNeeded(t *testing.T) {
	c := trigger.Config{Environment: triggertest.Environment(t)}
	c.TriggerMetadata = map[string]string{"url": "http://host", "valueLocation": "n"}
	c.AsMetricSource = true
	made, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	_ = made.Close()
}

// endpoints are servers that answer with numbers, "" with an error.
func endpoints(t *testing.T, answers ...string) (port int32, addresses []string) {
	t.Helper()
	var handlers []http.Handler
	for _, answer := range answers {
		handlers = append(handlers, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if answer == "" || r.URL.Path != "/st ats" {
				w.WriteHeader(http.StatusTeapot)
			}
			_, _ = fmt.Fprintf(w, `{"n":%s}`, answer)
		}))
	}
	return servers.Endpoints(t, handlers...)
}

func sliceOf(name string, port int32, ready *bool, addresses ...string) *discoveryv1.EndpointSlice {
	tcp := corev1.ProtocolTCP
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: strings.TrimRight(name, "0123456789")}},
		Ports:      []discoveryv1.EndpointPort{{Port: &port, Protocol: &tcp}},
	}
	for _, address := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: ready}})
	}
	return s
}

func TestAggregation(t *testing.T) {
	port, addresses := endpoints(t, "3", "8", "", "2", "1", "6", "4")
	objects := triggertest.NewObjects()
	objects.PutSlice(sliceOf("some1", port, nil, addresses[:3]...))
	objects.PutSlice(sliceOf("some2", port, new(true), addresses[1:4]...))
	objects.PutSlice(sliceOf("some3", port, new(false), addresses[4]))
	objects.PutSlice(sliceOf("all1", port, nil, addresses...))
	objects.PutSlice(sliceOf("broken1", port, nil, addresses[2]))
	objects.PutSlice(sliceOf("elsewhere1", port+1, nil, addresses[0]))
	env := triggertest.Environment(t)
	env.Objects = objects
	for name, test := range map[string]struct{ host, kind, want string }{
		"average":                     {"some.ns", "", "4.333"}, // of 3, 8 and 2, each once
		"average, said":               {"some.ns.svc", "average", "4.333"},
		"sum":                         {"some.ns.svc.cluster.local", "sum", "13"},
		"max":                         {"some.ns", "max", "8"},
		"min":                         {"some.ns", "min", "2"},
		"more than at once":           {"all.ns", "sum", "24"},
		"all broken":                  {"broken.ns", "", "could not get any metric successfully from the 1 provided endpoints: /st ats: api returned 418"},
		"none there":                  {"none.ns", "max", "no endpoints URLs were given for the service name"},
		"another namespace's":         {"some.other", "max", "no endpoints URLs were given for the service name"},
		"no namespace":                {"some", "max", "expected at least 2 elements"},
		"a port that no endpoint has": {"elsewhere.ns", "max", "could not get any metric"},
	} {
		t.Run(name, func(t *testing.T) {
			over := map[string]string{"url": fmt.Sprintf("http://%s:%d/st%%20ats?x=y", test.host, port), "aggregateFromKubeServiceEndpoints": "true"}
			if test.kind != "" {
				over["aggregationType"] = test.kind
			}
			got, err := read(t, env, over, nil)
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, test.want) {
				t.Errorf("it reads %q; want %q", got, test.want)
			}
		})
	}
	objects.SetDown(true)
	if _, err := read(t, env, map[string]string{"url": "http://some.ns/", "aggregateFromKubeServiceEndpoints": "true"}, nil); err == nil {
		t.Error("it reads without knowing of endpoints")
	}
}

func TestAddressesOfEndpoints(t *testing.T) {
	objects := triggertest.NewObjects()
	objects.PutSlice(sliceOf("six1", 8080, nil, "fd00::1"))
	objects.PutSlice(sliceOf("six2", 443, nil, "10.0.0.1"))
	for at, want := range map[string]string{
		"http://six.ns:8080/metrics": "http://10.0.0.1/metrics http://[fd00::1]:8080/metrics",
		"https://six.ns/metrics":     "https://10.0.0.1:443/metrics https://[fd00::1]/metrics",
		"http://six.ns/a%2Fb?c=d":    "http://10.0.0.1/a%2Fb http://[fd00::1]/a%2Fb",
	} {
		got, err := (&source{objects: objects, parameters: parameters{URL: at}}).endpoints()
		if err != nil || len(got) != 2 || got[1]+" "+got[0] != want {
			t.Errorf("%s leads to %v, %v; want %s", at, got, err, want)
		}
	}
}
