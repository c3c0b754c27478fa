package rabbitmq

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
)

// queue is how the management API tells of one.
func queue(messages, ready int, published, delivered float64) string {
	return fmt.Sprintf(`{"name":"q","messages":%d,"messages_ready":%d,"message_stats":{"publish_details":{"rate":%g},"deliver_get_details":{"rate":%g}}}`,
		messages, ready, published, delivered)
}

func TestModes(t *testing.T) {
	for name, test := range map[string]struct {
		mode, answer string
		activation   string
		value        int64 // in thousandths
		active       bool
	}{
		"a length":                             {"QueueLength", queue(4, 3, 1.4, 0), "", 4000, true},
		"no length":                            {"QueueLength", queue(0, 0, 1.4, 2), "", 0, false},
		"a length at the threshold":            {"QueueLength", queue(4, 3, 0, 0), "4", 4000, false},
		"nothing is known yet":                 {"QueueLength", `{"name":"q"}`, "", 0, false},
		"a rate":                               {"MessageRate", queue(0, 0, 1.4, 0), "", 1400, true},
		"no rate, but messages":                {"MessageRate", queue(4, 3, 0, 1.3), "", 0, true},
		"no rate and no messages":              {"MessageRate", queue(0, 0, 0, 0), "", 0, false},
		"a rate at the threshold":              {"MessageRate", queue(1, 1, 1.5, 0), "1.5", 1500, false},
		"deliveries":                           {"DeliverGetRate", queue(20, 20, 0, 12.5), "", 12500, true},
		"no deliveries":                        {"DeliverGetRate", queue(20, 20, 5, 0), "", 0, false},
		"deliveries at the threshold":          {"DeliverGetRate", queue(0, 0, 0, 2), "2", 2000, false},
		"as many come as go":                   {"PublishedToDeliveredRatio", queue(0, 0, 3, 3), "1", 1000, false},
		"more come than go":                    {"PublishedToDeliveredRatio", queue(0, 0, 3, 2), "1", 1500, true},
		"some come and none go":                {"PublishedToDeliveredRatio", queue(0, 0, 3, 0), "1", 1000, true},
		"none come":                            {"PublishedToDeliveredRatio", queue(9, 9, 0, 3), "1", 0, false},
		"nothing waits, nobody takes":          {"ExpectedQueueConsumptionTime", queue(0, 0, 0, 0), "1", 0, false},
		"nothing waits any more":               {"ExpectedQueueConsumptionTime", queue(0, 0, 0, 2), "1", 0, false},
		"what waits is not taken":              {"ExpectedQueueConsumptionTime", queue(10, 10, 3, 0), "1", 1000, true},
		"what waits is taken too slowly":       {"ExpectedQueueConsumptionTime", queue(10, 10, 3, 2), "1", 5500, true},
		"what waits is taken soon":             {"ExpectedQueueConsumptionTime", queue(4, 4, 0, 2), "1", 1000, false},
		"what waits is gone before it is told": {"ExpectedQueueConsumptionTime", queue(1, 1, 0, 10), "1", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.RequestURI != "/api/queues/%2F/jobs" {
					t.Errorf("asked for %s", r.RequestURI)
				}
				_, _ = w.Write([]byte(test.answer))
			}))
			defer api.Close()
			over := map[string]string{"mode": test.mode, "value": "1", "activationValue": test.activation}
			got, err := build(t, triggertest.Environment(t), api.URL, over, nil).Read(t.Context())
			if err != nil || got[0].Value.MilliValue() != test.value || got[0].Active != test.active {
				t.Errorf("Read() = %+v, %v; want %dm, active: %v", got, err, test.value, test.active)
			}
		})
	}
}

func TestSeveralQueues(t *testing.T) {
	two := []string{queue(4, 3, 6, 1), queue(1, 0, 3, 2)}
	for name, test := range map[string]struct {
		mode, operation, ready string
		queues                 []string
		value                  int64 // in thousandths
	}{
		"all of them":                   {"QueueLength", "sum", "false", two, 5000},
		"the longest":                   {"QueueLength", "max", "false", two, 4000},
		"half of a message is none":     {"QueueLength", "avg", "false", two, 2000},
		"all of them that are ready":    {"QueueLength", "sum", "true", two, 3000},
		"most that are ready":           {"QueueLength", "max", "true", two, 3000},
		"half of those that are ready":  {"QueueLength", "avg", "true", two, 1000},
		"all rates":                     {"MessageRate", "sum", "false", two, 9000},
		"the greatest rate":             {"MessageRate", "max", "false", two, 6000},
		"the mean rate":                 {"MessageRate", "avg", "false", two, 4500},
		"all deliveries":                {"DeliverGetRate", "sum", "false", two, 3000},
		"the most deliveries":           {"DeliverGetRate", "max", "false", two, 2000},
		"the mean of deliveries":        {"DeliverGetRate", "avg", "false", two, 1500},
		"the ratio of sums":             {"PublishedToDeliveredRatio", "sum", "false", two, 3000},
		"the time for all":              {"ExpectedQueueConsumptionTime", "sum", "false", two, 3666},
		"none":                          {"QueueLength", "avg", "false", nil, 0},
		"none, by an unknown operation": {"QueueLength", "median", "false", nil, 0},
		"an unknown operation":          {"QueueLength", "median", "false", two, -1},
	} {
		t.Run(name, func(t *testing.T) {
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.RequestURI != "/api/queues/%2F?page=1&use_regex=true&pagination=false&name=%5Ejobs+%24&page_size=7" {
					t.Errorf("asked for %s", r.RequestURI)
				}
				_, _ = fmt.Fprintf(w, `{"items":[%s],"page_count":1}`, strings.Join(test.queues, ","))
			}))
			defer api.Close()
			over := map[string]string{
				"mode": test.mode, "value": "1", "operation": test.operation, "excludeUnacknowledged": test.ready,
				"queueName": "^jobs $", "useRegex": "true", "pageSize": "7",
			}
			got, err := build(t, triggertest.Environment(t), api.URL, over, nil).Read(t.Context())
			if test.value < 0 {
				if err == nil || !strings.Contains(err.Error(), "operation mode median must be one of sum, max, avg") {
					t.Errorf("Read() fails with %v; want to be told of the operation", err)
				}
				return
			}
			if err != nil || got[0].Value.MilliValue()/10 != test.value/10 {
				t.Errorf("Read() = %+v, %v; want %dm", got, err, test.value)
			}
		})
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	var status atomic.Int32
	var answer atomic.Value
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(int(status.Load()))
		_, _ = w.Write([]byte(answer.Load().(string)))
	}))
	defer api.Close()
	made := build(t, triggertest.Environment(t), strings.Replace(api.URL, "://", "://ebb:hunter2@", 1), nil, nil)
	for said, code := range map[string]int{"Password is incorrect": http.StatusUnauthorized, "Not Found": http.StatusNotFound, "<html>": http.StatusOK, "": http.StatusOK} {
		status.Store(int32(code))
		answer.Store(said)
		_, err := made.Read(t.Context())
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Read() fails with %v where %q is said; want an error without the password", err, said)
		} else if code != http.StatusOK && !strings.Contains(err.Error(), "response: "+said) {
			t.Errorf("Read() fails with %v; want it to quote %q", err, said)
		}
	}
}

func TestTimeout(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer api.Close()
	made := build(t, triggertest.Environment(t), api.URL, map[string]string{"mode": "QueueLength", "value": "1", "timeout": "100"}, nil)
	begin := time.Now()
	if _, err := made.Read(t.Context()); err == nil || time.Since(begin) > 2*time.Second {
		t.Errorf("Read() fails with %v after %s; want it to after 100 ms", err, time.Since(begin))
	}
}

func TestHTTPS(t *testing.T) {
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(queue(3, 3, 0, 0))) }))
	defer api.Close()
	authority := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw}))
	for name, test := range map[string]struct {
		over, auth map[string]string
		good       bool
	}{
		"nobody vouches":         {nil, nil, false},
		"anybody will do":        {map[string]string{"unsafeSsl": "true"}, nil, true},
		"an authority":           {nil, map[string]string{"tls": "enable", "ca": authority}, true},
		"one that nobody asks":   {nil, map[string]string{"ca": authority}, false},
		"TLS, and nobody at all": {nil, map[string]string{"tls": "enable"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := build(t, triggertest.Environment(t), api.URL, test.over, test.auth).Read(t.Context()); (err == nil) != test.good {
				t.Errorf("Read() fails with %v; want it to work: %v", err, test.good)
			}
		})
	}
}

func TestToken(t *testing.T) {
	var tokens atomic.Int32
	var refuse atomic.Bool
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/token" {
			if got := r.Header.Get("Authorization"); got != "Bearer t1" {
				t.Errorf("the API is asked with %q; want the first token", got)
			}
			_, _ = w.Write([]byte(queue(3, 3, 0, 0)))
			return
		}
		if refuse.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		id, secret, _ := r.BasicAuth()
		if id != "me" || secret != "hunter2" || r.FormValue("scope") != "read write" || r.FormValue("audience") != "rabbitmq" || r.FormValue("grant_type") != "client_credentials" {
			t.Errorf("a token is asked for by %s with %v", id, r.Form)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"access_token":"t%d","token_type":"Bearer","expires_in":3600}`, tokens.Add(1))
	}))
	defer api.Close()
	env := triggertest.Environment(t)
	auth := map[string]string{
		"oauthTokenURI": api.URL + "/token", "clientID": "me", "clientSecret": "hunter2", "scopes": "read, write", "endpointParams": "audience=rabbitmq",
	}
	for _, made := range []string{"jobs", "tasks"} { // they share the token
		count(t, build(t, env, api.URL, map[string]string{"queueName": made}, auth), 3)
	}
	if n := tokens.Load(); n != 1 {
		t.Errorf("%d tokens were asked for; want 1", n)
	}
	refuse.Store(true)
	if _, err := build(t, triggertest.Environment(t), api.URL, nil, auth).Read(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Read() fails with %v; want an error without the secret", err)
	}
}
