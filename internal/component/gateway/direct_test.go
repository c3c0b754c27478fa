package gateway_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"

	"ebb.dev/ebb/internal/domain/traffic"
)

// ask sends one request to a handler by a real connection.
func ask(t *testing.T, h http.Handler, host string, header http.Header) (status int, body string) {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	maps.Copy(req.Header, header)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(data)
}

func TestRequestsMayNameTheirRevisionInsideTheClusterOnly(t *testing.T) {
	r := newRig(t, traffic.Settings{})
	r.serve(func(w http.ResponseWriter, got *http.Request) {
		_, _ = io.WriteString(w, "revision "+got.Header.Get("Knative-Serving-Revision"))
	})
	named := func(namespace, name string) http.Header {
		return http.Header{"Knative-Serving-Namespace": {namespace}, "Knative-Serving-Revision": {name}}
	}
	tests := map[string]struct {
		handler http.Handler
		host    string
		header  http.Header
		status  int
		body    string
	}{
		"by header, as to an activator":               {r.g.RevisionHandler(), "anything", named("default", "hello-00001"), 200, "revision "},
		"by header, one that no route leads to":       {r.g.RevisionHandler(), host, named("default", "hello-00009"), 404, ""},
		"half named, so by its host":                  {r.g.RevisionHandler(), host, named("", "hello-00009"), 200, "revision "},
		"by the host of its Service, as an activator": {r.g.RevisionHandler(), "hello-00001.default.svc.cluster.local:80", nil, 200, "revision "},
		"by the host of its Service":                  {r.g.Handler(false), "hello-00001.default.svc.cluster.local", nil, 200, "revision "},
		"by a shorter host":                           {r.g.Handler(false), "Hello-00001.default.", nil, 200, "revision "},
		"by a bare name":                              {r.g.Handler(false), "hello-00001", nil, 404, ""},
		"by a host with more in it":                   {r.g.Handler(false), "hello-00001.default.example.com", nil, 404, ""},
		"by its Service's host, from outside":         {r.g.Handler(true), "hello-00001.default.svc.cluster.local", nil, 404, ""},
		"by header, from outside":                     {r.g.Handler(true), "unknown.example.com", named("default", "hello-00001"), 404, ""},
		"by header, through a route inside":           {r.g.Handler(false), "unknown.example.com", named("default", "hello-00001"), 404, ""},
		"asking for the activator":                    {r.g.RevisionHandler(), "anything", http.Header{"K-Network-Probe": {"activator"}}, 200, "activator"},
		"asking for somebody else":                    {r.g.RevisionHandler(), "anything", http.Header{"K-Network-Probe": {"queue"}}, 400, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			status, body := ask(t, tt.handler, tt.host, tt.header)
			if status != tt.status || tt.body != "" && body != tt.body {
				t.Errorf("status %d, body %q, want %d %q", status, body, tt.status, tt.body)
			}
		})
	}
}
