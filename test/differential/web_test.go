package differential

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ebb.dev/ebb/internal/adapter/trigger/jolokia/jolokiatest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

func TestPrometheus(t *testing.T) {
	covers(t, "prometheus")
	var waiting atomic.Int64
	scraped := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = fmt.Fprintf(w, "# TYPE waiting gauge\nwaiting{queue=\"a b\"} %d\nwaiting{queue=\"other\"} 100\n", waiting.Load())
	}))
	t.Cleanup(scraped.Close)
	address := "http://" + servers.Prometheus(t, scraped.Listener.Addr().String()).Address
	set := func(n int64) func(*testing.T) { return func(*testing.T) { waiting.Store(n) } }
	var states []state
	for _, n := range []int64{0, 2, 3, 17} {
		states = append(states, state{name: fmt.Sprint(n), set: set(n), want: fmt.Sprint(n)})
	}
	for _, query := range []string{
		"vector(2.5)", "vector(-3)", "nothing_like_it", "vector(1) / 0", "vector(0) / 0", `waiting{queue!=""}`, "waiting[", "scalar(vector(1))", "vector(0.0004)",
		`"a text"`, "waiting[1m]", "vector(1e20)", "vector(2.9996)", "vector(1) == 2",
	} {
		for _, ignore := range []string{"true", "false"} {
			states = append(states, state{name: query + " with ignoreNullValues " + ignore, over: map[string]string{"query": query, "ignoreNullValues": ignore}})
		}
	}
	compare(t, subject{
		Type: "prometheus",
		Metadata: map[string]string{
			"serverAddress": address, "query": `sum(waiting{queue="a b"})`, "threshold": "5.5", "activationThreshold": "2.5",
		},
		Where: []string{"serverAddress", "authModes", "auth authModes"},
		Refused: []string{
			"serverAddress", "query", "threshold", "threshold=one", "activationThreshold=one", "ignoreNullValues=xxxx", "unsafeSsl=maybe",
			"customHeaders=key1=value1,key2", "queryParameters=key1=value1,key2", "authModes=magic",
		},
		Try: map[string][]string{
			"namespace": {"a b"}, "customHeaders": {"a=b,c=d"}, "queryParameters": {"a=b,c=d e", "query=7"}, "timeout": {"1000", "2s"}, "unsafeSsl": nil,
			"authModes": {"basic", "bearer", "tls", "custom", "basic,bearer", "apiKey", "oauth"}, "serverAddress": {address + "/", "nowhere", "http://"},
		},
	}, append(states,
		state{name: "nobody there", over: map[string]string{"serverAddress": "http://127.0.0.1:" + process.Port(t)}, want: fails},
		state{name: "no page", over: map[string]string{"serverAddress": address + "/else"}, want: fails},
	)...)
	t.Run("answers", func(t *testing.T) {
		answers(t, subject{
			Type: "prometheus", Metadata: map[string]string{"query": "up", "threshold": "5", "activationThreshold": "2"},
		}, "serverAddress", []string{
			`{}`, `[]`, ``, `<html>`, `{"status":"error"}`, `{"data":{"result":[]}}`, `{"data":{"result":[{}]}}`, `{"data":{"result":[{"value":[]}]}}`,
			`{"data":{"result":[{"value":[1]}]}}`, `{"data":{"result":[{"value":[1,"7"]}]}}`, `{"data":{"result":[{"value":[1,null]}]}}`,
			`{"data":{"result":[{"value":[1,"x"]}]}}`, `{"data":{"result":[{"value":[1,7]}]}}`, `{"data":{"result":[{"value":[1,"7"]},{"value":[1,"8"]}]}}`,
			`{"data":{"result":[{"value":[1,"7",9]}]}}`, `{"data":{"result":[{"value":[1,""]}]}}`, `{"data":{"resultType":"scalar","result":[1,"7"]}}`,
			`{"data":{"result":[{"value":[1,"+Inf"]}]}}`, `{"data":{"result":[{"value":[1,"NaN"]}]}}`, `{"data":{"result":[{"value":[1,"0x10"]}]}}`,
		})
	})
	t.Run("signing in", func(t *testing.T) {
		signing(t, subject{Type: "prometheus", Metadata: map[string]string{"query": "up", "threshold": "5"}}, "serverAddress", `{"data":{"result":[{"value":[1,"7"]}]}}`)
	})
}

// answers compares what is made of answers, with status 200 and others.
func answers(t *testing.T, s subject, address string, texts []string) {
	t.Helper()
	for i, text := range texts {
		for _, code := range []int{200, 201, 204, 400, 404, 500} {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(code)
				_, _ = io.WriteString(w, text)
			}))
			s.row(t, state{name: fmt.Sprintf("answer %d with status %d", i, code), over: map[string]string{address: server.URL}})
			server.Close()
		}
	}
}

// signing compares how a server that wants to know its clients is asked.
func signing(t *testing.T, s subject, address, answer string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if slices.Contains([]string{
			password + user, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "),
			r.Header.Get("X-API-KEY"), r.Header.Get("X-Mine"), r.FormValue("api_key"), r.FormValue("mine"),
		}, "hunter2") {
			_, _ = io.WriteString(w, answer)
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(server.Close)
	for _, way := range []map[string]string{
		{},
		{"auth username": "2", "auth password": "hunter"},
		{"authModes": "basic", "auth username": "2", "auth password": "hunter"},
		{"authMode": "basic", "auth username": "2", "auth password": "hunter"},
		{"authMode": "basic", "auth username": "2", "auth password": "wrong"},
		{"authMode": "basic", "auth password": "hunter2"},
		{"authMode": "basic", "auth username": "hunter2"},
		{"authModes": "bearer", "auth bearerToken": "hunter2"},
		{"authMode": "bearer", "auth token": "hunter2"},
		{"authMode": "bearer"},
		{"authMode": "apiKey", "auth apiKey": "hunter2"},
		{"authMode": "apiKey", "auth apiKey": "hunter2", "keyParamName": "X-Mine"},
		{"authMode": "apiKey", "auth apiKey": "hunter2", "method": "query"},
		{"authMode": "apiKey", "auth apiKey": "hunter2", "method": "query", "keyParamName": "mine"},
		{"authMode": "apiKey", "auth apiKey": "hunter2", "method": "body"},
		{"authMode": "apiKey"},
		{"authModes": "custom", "auth customAuthHeader": "X-Mine", "auth customAuthValue": "hunter2"},
		{"authModes": "custom", "auth customAuthHeader": "X-Mine"},
		{"authModes": "basic,apiKey", "auth username": "a", "auth password": "b", "auth apiKey": "hunter2"},
		{"authModes": "bearer,basic", "auth bearerToken": "hunter2", "auth username": "a", "auth password": "b"},
		{"authModes": "tls", "auth cert": "x", "auth key": "y"},
		{"authModes": "tls"},
		{"authModes": "oauth", "auth oauthTokenURI": "http://127.0.0.1:1/", "auth clientID": "a"},
		{"authModes": "magic"},
		{"auth authModes": "bearer", "auth bearerToken": "hunter2"},
		{"address with a user": "hunter2"},
	} {
		name, over := "not at all", map[string]string{address: server.URL}
		if len(way) > 0 {
			name = strings.TrimPrefix(fmt.Sprint(way), "map")
		}
		if way["address with a user"] != "" {
			over[address] = strings.Replace(server.URL, "http://", "http://2:hunter@", 1)
		} else {
			over = merged(over, way)
		}
		s.row(t, state{name: name, over: over})
	}
}

func TestGraphite(t *testing.T) {
	covers(t, "graphite")
	s := servers.StartGraphite(t)
	put := func(metric string, value float64) func(*testing.T) {
		return func(t *testing.T) { s.Put(t, metric, value) }
	}
	asked := func(query string) map[string]string { return map[string]string{"query": query} }
	compare(t, subject{
		Type: "graphite",
		Metadata: map[string]string{
			"serverAddress": "http://" + s.Web, "query": "sumSeries(jobs.*.waiting)", "queryTime": "-30minutes", "threshold": "5.5", "activationThreshold": "2.5",
		},
		Where:   []string{"serverAddress", "queryTime"},
		Refused: []string{"serverAddress", "query", "queryTime", "threshold=one", "activationThreshold=one"},
		Try:     map[string][]string{"queryTime": {"-1h", "-5min", "nonsense"}},
	},
		state{name: "nothing", want: "0"},
		state{name: "two", set: put("jobs.a.waiting", 2), want: "2"},
		state{name: "three", set: put("jobs.a.waiting", 3), want: "3"},
		state{name: "a part", set: put("jobs.a.waiting", 3.25), want: "3.250"},
		state{name: "several that are added", set: put("jobs.b.waiting", 4), want: "7.250"},
		state{name: "several that are not", over: asked("jobs.*.waiting"), want: fails},
		state{name: "one of them", over: asked("jobs.b.waiting"), want: "4"},
		state{name: "less than nothing", over: asked("scale(jobs.b.waiting,-1)"), want: "0"},
		state{name: "no function", over: asked("nonsense(jobs.b.waiting)"), want: fails},
		state{name: "no page", over: map[string]string{"serverAddress": "http://" + s.Web + "/else"}, want: fails},
		state{name: "nobody there", over: map[string]string{"serverAddress": "http://127.0.0.1:" + process.Port(t)}, want: fails},
	)
	stub := subject{Type: "graphite", Metadata: map[string]string{"query": "a.b", "queryTime": "-30Seconds", "activationThreshold": "2"}}
	t.Run("answers", func(t *testing.T) {
		answers(t, stub, "serverAddress", []string{
			`[]`, `{}`, ``, `<html>`, `[{"target":"a"}]`, `[{"datapoints":[]}]`, `[{"datapoints":[[1,10]]}]`, `[{"datapoints":[[1,10],[2.5,20]]}]`,
			`[{"datapoints":[[1,10],[null,20]]}]`, `[{"datapoints":[[null,10],[null,20]]}]`, `[{"datapoints":[[1,10]]},{"datapoints":[[1,10]]}]`,
			`[{"datapoints":[["1",10]]}]`, `[{"datapoints":[[3,10],[]]}]`, `[{"datapoints":[[1e999,10]]}]`, `[{"datapoints":[[7]]}]`,
		})
	})
	t.Run("signing in", func(t *testing.T) { signing(t, stub, "serverAddress", `[{"datapoints":[[7,1]]}]`) })
}

// bodies are pages with a number in them, by format and where it is.
var bodies = []struct {
	format, location string
	texts            []string
}{
	{"json", "queue.tasks", []string{
		`{"queue":{"tasks":7}}`, `{"queue":{"tasks":"7"}}`, `{"queue":{"tasks":"500m"}}`, `{"queue":{"tasks":2.5}}`, `{"queue":{"tasks":"x"}}`, `{"queue":{"tasks":null}}`,
		`{"queue":{"tasks":true}}`, `{"queue":{}}`, `{"queue":[{"tasks":7}]}`, `{`, ``, `7`, `{"queue":{"tasks":-1}}`, `{"queue":{"tasks":1e3}}`, `{"queue":{"tasks":[1]}}`,
	}},
	{"json", "queues.#.n|@reverse|0", []string{`{"queues":[{"n":1},{"n":2}]}`}},
	{"json", `queues.#(name=="a").n`, []string{`{"queues":[{"name":"b","n":1},{"name":"a","n":2}]}`}},
	{"yaml", "queue.tasks", []string{
		"queue:\n  tasks: 7\n", `queue: {tasks: "7"}`, `queue: {tasks: 500m}`, `queue: {tasks: 2.5}`, `queue: {tasks: x}`, `queue: {tasks: null}`, `queue: {tasks: true}`,
		`queue: {}`, `queue: [{tasks: 7}]`, "a: b: c", ``, `7`, `queue: {tasks: 0x10}`, `queue: {tasks: 1_000}`, `queue: {tasks: -1}`, `queue: {tasks: 18446744073709551615}`,
		"---\nqueue: {tasks: 3}\n---\nqueue: {tasks: 4}\n",
	}},
	{"yaml", "queues.1.n", []string{`queues: [{n: 1}, {n: 2}]`, `queues: {1: {n: 3}}`, `queues: [{n: 1}]`}},
	{"xml", "queue.tasks", []string{
		`<queue><tasks>7</tasks></queue>`, `<?xml version="1.0"?><queue><tasks>2.5</tasks></queue>`, `<queue><tasks>x</tasks></queue>`, `<queue><tasks/></queue>`, `<queue/>`,
		`<a><queue><tasks>7</tasks></queue></a>`, `<queue><tasks>1</tasks><tasks>2</tasks></queue>`, `<queue><tasks kind="x">7</tasks></queue>`, `<queue`, ``, `7`,
		`<queue><tasks> 7 </tasks></queue>`, `<queue><tasks>500m</tasks></queue>`, `<queue><tasks>7</tasks></queue><queue/>`, `<queue tasks="7"/>`, `<queue><tasks><![CDATA[7]]></tasks></queue>`,
		`<queue><tasks>true</tasks></queue>`, `<queue><!-- x --><tasks>7</tasks></queue>`, `<n:queue xmlns:n="x"><n:tasks>7</n:tasks></n:queue>`,
	}},
	{"xml", "queue.task.1.n", []string{`<queue><task><n>1</n></task><task><n>2</n></task></queue>`, `<queue><task><n>1</n></task></queue>`}},
	{"prometheus", `tasks{queue="x"}`, []string{
		"tasks{queue=\"x\"} 7", "# TYPE tasks gauge\ntasks{queue=\"y\"} 1\ntasks{queue=\"x\"} 2.5\n", "# TYPE tasks counter\ntasks{queue=\"x\"} 3\n",
		"tasks 4\n", "other{queue=\"x\"} 1\n", "# TYPE tasks histogram\ntasks_bucket{queue=\"x\",le=\"+Inf\"} 1\ntasks_sum{queue=\"x\"} 1\ntasks_count{queue=\"x\"} 1\n",
		"tasks{queue=\"x\"} NaN\n", "tasks{queue=\"x\"} +Inf\n", "tasks{", "", "tasks{queue=\"x\",more=\"z\"} 5\r\n", "tasks{queue=\"x\"} 1\ntasks{queue=\"x\",a=\"b\"} 2\n",
		"tasks{queue=\"x\"} 7 1700000000\n", "# HELP tasks of work\n# TYPE tasks summary\ntasks{queue=\"x\",quantile=\"0.5\"} 7\n",
	}},
	{"prometheus", `tasks`, []string{"tasks 7\n", "tasks{queue=\"x\"} 3\n", "tasks{queue=\"x\"} 3\ntasks 4\n"}},
	{"prometheus", `tasks{queue!="x"}`, []string{"tasks{queue=\"y\"} 3\n"}},
	{"prometheus", `tasks{queue=~"x|y"}`, []string{"tasks{queue=\"y\"} 3\n", "tasks{queue=\"x|y\"} 4\n"}},
	{"prometheus", `{queue="x"}`, []string{"tasks{queue=\"x\"} 3\n"}},
	{"prometheus", `tasks{`, []string{"tasks 7\n"}},
}

func TestMetricsAPI(t *testing.T) {
	covers(t, "metrics-api")
	var body atomic.Value
	body.Store("")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body.Load().(string)) }))
	t.Cleanup(server.Close)
	say := func(text string) func(*testing.T) { return func(*testing.T) { body.Store(text) } }
	states := []state{
		{name: "none", set: say(`{"n":0}`), want: "0"},
		{name: "two", set: say(`{"n":2}`), want: "2"},
		{name: "three", set: say(`{"n":3}`), want: "3"},
		{name: "nobody there", over: map[string]string{"url": "http://127.0.0.1:" + process.Port(t)}, want: fails},
	}
	for i, b := range bodies {
		for j, text := range b.texts {
			states = append(states, state{
				name: fmt.Sprintf("%s %d.%d", b.format, i, j), set: say(text), over: map[string]string{"format": b.format, "valueLocation": b.location},
			})
		}
	}
	compare(t, subject{
		Type:     "metrics-api",
		Metadata: map[string]string{"url": server.URL + "/stats", "valueLocation": "n", "targetValue": "5.5", "activationTargetValue": "2.5"},
		Where:    []string{"url"},
		Refused: []string{
			"url", "valueLocation", "targetValue", "targetValue=0", "targetValue=x", "activationTargetValue=x", "format=toml", "unsafeSsl=maybe",
			"aggregationType=most", "aggregateFromKubeServiceEndpoints=maybe", "authMode=magic",
		},
		Try: map[string][]string{
			"url": {server.URL, "nowhere", "http://", "http:///x"}, "timeout": {"1000", "2s"}, "unsafeSsl": nil, "format": {"json"}, "valueLocation": {"a/b.c:d%(e)"},
		},
	}, append(states, state{name: "seven", set: say(`{"n":7}`), want: "7"})...)
	stub := subject{Type: "metrics-api", Metadata: map[string]string{"valueLocation": "n", "targetValue": "5"}}
	t.Run("answers", func(t *testing.T) { answers(t, stub, "url", []string{`{"n":7}`, ``}) })
	t.Run("signing in", func(t *testing.T) { signing(t, stub, "url", `{"n":7}`) })
	t.Run("of a Service", aggregated)
}

// aggregated compares what is read from all endpoints of a Service.
func aggregated(t *testing.T) {
	answers := func(status int, answer string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = fmt.Fprintf(w, `{"n":%s}`, answer)
		})
	}
	port, addresses := servers.Endpoints(t, answers(http.StatusOK, "2"), answers(http.StatusOK, "9"), answers(http.StatusOK, "90"), answers(http.StatusTeapot, ""))
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "work", Name: "jobs-1", Labels: map[string]string{discoveryv1.LabelServiceName: "jobs"}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: &port}},
	}
	objects := triggertest.NewObjects()
	more := func(ready bool) func(*testing.T) {
		return func(*testing.T) {
			n := len(slice.Endpoints)
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
				Addresses: addresses[n : n+1], Conditions: discoveryv1.EndpointConditions{Ready: &ready},
				TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: fmt.Sprint("p", n), Namespace: "work"},
			})
			objects.PutSlice(slice)
		}
	}
	more(true)(t)
	s := subject{Type: "metrics-api", Objects: objects, Metadata: map[string]string{
		"url": fmt.Sprintf("http://jobs.work.svc.cluster.local:%d/st ats?a=b", port), "valueLocation": "n", "targetValue": "5", "activationTargetValue": "2",
		"aggregateFromKubeServiceEndpoints": "true",
	}}
	for _, set := range []struct {
		name string
		set  func(*testing.T)
	}{
		{"one", nil}, {"two", more(true)}, {"one that is not ready", more(false)}, {"one that fails", more(true)},
	} {
		if set.set != nil {
			set.set(t)
		}
		for _, kind := range []string{"", "average", "sum", "max", "min"} {
			s.row(t, state{name: set.name + " by " + kind, over: map[string]string{"aggregationType": kind}})
		}
	}
	for name, url := range map[string]string{
		"short":               fmt.Sprintf("http://jobs.work:%d/", port),
		"shorter":             fmt.Sprintf("http://jobs:%d/", port),
		"no Service":          fmt.Sprintf("http://none.work:%d/", port),
		"no port":             "http://jobs.work/",
		"no URL":              "jobs",
		"of another cluster":  fmt.Sprintf("http://jobs.work.svc.example.com:%d/", port),
		"an address":          fmt.Sprintf("http://127.0.0.1:%d/", port),
		"with a user":         fmt.Sprintf("http://me:pw@jobs.work:%d/", port),
		"no path, but a part": fmt.Sprintf("http://jobs.work:%d?x=y", port),
	} {
		s.row(t, state{name: name, over: map[string]string{"url": url}})
	}
}

func TestActiveMQ(t *testing.T) {
	covers(t, "activemq")
	const path = "/api/jolokia/read/org.apache.activemq:type=Broker,brokerName=main,destinationType=Queue,destinationName=jobs/QueueSize"
	agent := jolokiatest.New(t, path)
	agent.Start()
	s := subject{
		Type: "activemq",
		Metadata: map[string]string{
			"managementEndpoint": agent.Host(), "brokerName": "main", "destinationName": "jobs", "targetQueueSize": "5",
			"activationTargetQueueSize": "2", "passwordFromEnv": "PASSWORD",
		},
		Auth: map[string]string{"username": "ebb"}, Env: map[string]string{"PASSWORD": "hunter2"}, Where: []string{"managementEndpoint", "restAPITemplate"},
		Refused: []string{
			"managementEndpoint", "brokerName", "destinationName", "auth username", "passwordFromEnv", "targetQueueSize=AA", "activationTargetQueueSize=AA",
			"restAPITemplate=nowhere",
		},
		Try: map[string][]string{
			"corsHeader": {"http://console"}, "managementEndpoint": {"me@" + agent.Host(), agent.Host() + "/", "%"}, "destinationName": {"a/b", "a,b"},
			"restAPITemplate": {
				"http://" + agent.Host() + path, "http://{{.ManagementEndpoint}}" + path,
				"http://" + agent.Host() + strings.Replace(path, "jobs", "{{.DestinationName}}", 1),
				"http://h/api/jolokia", "http://h/read/o:brokerName=main/QueueSize", "http://h/read/o:brokerName=main,destinationName=/QueueSize",
				"http://h/read/o:brokerName=,destinationName=jobs/QueueSize", "http://" + agent.Host() + strings.Replace(path, "main", "{{", 1),
			},
		},
	}
	asked(t, s, agent)
	s.Metadata = map[string]string{
		"restAPITemplate": "http://" + agent.Host() + path, "targetQueueSize": "5", "activationTargetQueueSize": "2", "passwordFromEnv": "PASSWORD",
	}
	s.Refused, s.Try = []string{"restAPITemplate", "auth username", "passwordFromEnv"}, nil
	t.Run("by URL", func(t *testing.T) { asked(t, s, agent) })
	jolokias(t, subject{Type: "activemq", Auth: map[string]string{"username": "ebb", "password": "hunter2"}, Metadata: s.Metadata}, "restAPITemplate", path)
}

// asked compares what is read from an agent.
func asked(t *testing.T, s subject, agent *jolokiatest.Agent) {
	t.Helper()
	set := func(n int) func(*testing.T) { return func(t *testing.T) { agent.Set(t, n) } }
	var states []state
	for _, n := range []int{0, 2, 3, 10, 11, -1} {
		states = append(states, state{name: fmt.Sprint(n), set: set(n), want: fmt.Sprint(max(n, 0))})
	}
	states = append(states,
		state{name: "seven", set: set(7), want: "7"},
		state{name: "a wrong password", over: map[string]string{"env PASSWORD": "wrong", "auth password": "wrong"}, want: fails})
	if s.Metadata["managementEndpoint"] != "" {
		states = append(states,
			state{name: "no such broker", over: map[string]string{"brokerName": "other"}, want: fails},
			state{name: "nobody there", over: map[string]string{"managementEndpoint": "127.0.0.1:" + process.Port(t)}, want: fails})
	}
	compare(t, s, states...)
}

// jolokias compares what is made of an agent's answers.
func jolokias(t *testing.T, s subject, template, path string) {
	t.Helper()
	t.Run("answers", func(t *testing.T) {
		for i, text := range []string{
			`{"status":200,"value":7}`, `{"status":404}`, `{"value":7}`, `{"status":200}`, `{"status":200,"value":"7"}`, `{"status":200,"value":7.5}`, `{"status":200,"value":null}`,
			`<html>`, ``, `[]`, `null`, `{"status":200,"value":7} and more`, `{"status":200,"value":{"a":1}}`,
		} {
			for _, code := range []int{200, 201, 401, 500} {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(code)
					_, _ = io.WriteString(w, text)
				}))
				s.row(t, state{name: fmt.Sprintf("answer %d with status %d", i, code), over: map[string]string{template: server.URL + path}})
				server.Close()
			}
		}
	})
}

func TestArtemis(t *testing.T) {
	covers(t, "artemis-queue")
	const path = `/console/jolokia/read/org.apache.activemq.artemis:broker="main",component=addresses,address="work",subcomponent=queues,routing-type="anycast",queue="jobs"/MessageCount`
	agent := jolokiatest.New(t, path)
	agent.Start()
	s := subject{
		Type: "artemis-queue",
		Metadata: map[string]string{
			"managementEndpoint": agent.Host(), "brokerName": "main", "brokerAddress": "work", "queueName": "jobs", "queueLength": "5",
			"activationQueueLength": "2", "passwordFromEnv": "PASSWORD",
		},
		Auth: map[string]string{"username": "ebb"}, Env: map[string]string{"PASSWORD": "hunter2"}, Where: []string{"managementEndpoint", "restApiTemplate"},
		Refused: []string{
			"managementEndpoint", "brokerName", "brokerAddress", "queueName", "auth username", "passwordFromEnv", "queueLength=AA", "activationQueueLength=AA",
			"restApiTemplate=nowhere", "unsafeSsl=perhaps", "auth cert=x", "auth key=x",
		},
		Try: map[string][]string{
			"corsHeader": {"http://console"}, "unsafeSsl": {"false"}, "auth ca": nil, "queueName": {"a/b", `a"b`, "a b"},
			"restApiTemplate": {
				"http://" + agent.Host() + path, "http://" + agent.Host() + strings.ReplaceAll(path, `"`, "%22"), "http://<<managementEndpoint>>" + path,
				"http://" + agent.Host() + strings.Replace(path, "jobs", "<<queueName>>", 1), `http://h/a"b`,
				`http://h/o:broker="main",queue="jobs",component=addresses/MessageCount`, `http://h/o:broker="main",address="work",queue=""/MessageCount`,
				`http://h/o:broker="",address="work",queue="jobs"/MessageCount`,
			},
		},
	}
	asked(t, s, agent)
	s.Metadata = map[string]string{"restApiTemplate": "http://" + agent.Host() + path, "queueLength": "5", "passwordFromEnv": "PASSWORD"}
	s.Refused, s.Try = []string{"restApiTemplate", "auth username", "passwordFromEnv"}, nil
	t.Run("by URL", func(t *testing.T) { asked(t, s, agent) })
	jolokias(t, subject{Type: "artemis-queue", Auth: map[string]string{"username": "ebb", "password": "hunter2"}, Metadata: s.Metadata}, "restApiTemplate", path)
}
