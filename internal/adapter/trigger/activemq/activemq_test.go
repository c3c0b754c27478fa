package activemq

import (
	"maps"
	"strings"
	"testing"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/jolokia/jolokiatest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

const path = "/api/jolokia/read/org.apache.activemq:type=Broker,brokerName=main,destinationType=Queue,destinationName=jobs/QueueSize"

func TestActiveMQ(t *testing.T) {
	agent := jolokiatest.New(t, path)
	agent.Start()
	relay := process.NewRelay(t, agent.Host())
	subject := triggertest.Subject{
		Type: "activemq", Build: New,
		Metadata: map[string]string{
			"managementEndpoint": relay.Address, "brokerName": "main", "destinationName": "jobs",
			"targetQueueSize": "5", "activationTargetQueueSize": "2", "passwordFromEnv": "PASSWORD",
		},
		Auth:   map[string]string{"username": "ebb"},
		Env:    map[string]string{"PASSWORD": "hunter2"},
		Metric: "activemq-jobs", Target: "5",
		Required: []string{"managementEndpoint", "brokerName", "destinationName", "username", "passwordFromEnv"},
		Wrong:    map[string]string{"targetQueueSize": "AA", "activationTargetQueueSize": "AA", "restAPITemplate": "testInvalidRestAPITemplate"},
		Set:      agent.Set,
		Break:    func(*testing.T) { relay.Cut() },
		Repair:   func(*testing.T) { relay.Heal() },
		Down:     map[string]string{"managementEndpoint": "127.0.0.1:1"},
	}
	t.Run("by parts", func(t *testing.T) { triggertest.Run(t, subject) })
	subject.Metadata = map[string]string{
		"restAPITemplate": "http://" + relay.Address + path, "targetQueueSize": "5", "activationTargetQueueSize": "2", "passwordFromEnv": "PASSWORD",
	}
	subject.Required = []string{"restAPITemplate", "username", "passwordFromEnv"}
	subject.Down = map[string]string{"restAPITemplate": "http://127.0.0.1:1" + path}
	t.Run("by URL", func(t *testing.T) { triggertest.Run(t, subject) })
}

func config(t *testing.T, host string, over map[string]string) trigger.Config {
	t.Helper()
	c := trigger.Config{Environment: triggertest.Environment(t)}
	c.GlobalHTTPTimeout = 200 * time.Millisecond
	c.TriggerMetadata = map[string]string{"managementEndpoint": host, "brokerName": "main", "destinationName": "jobs"}
	c.AuthParams = map[string]string{"username": "ebb", "password": "hunter2"}
	maps.Copy(c.TriggerMetadata, over)
	return c
}

func TestOrigin(t *testing.T) {
	agent := jolokiatest.New(t, path)
	agent.Start()
	for origin, want := range map[string]string{"": "http://" + agent.Host(), "https://console": "https://console"} {
		made, err := New(config(t, agent.Host(), map[string]string{"corsHeader": origin}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := made.Read(t.Context()); err != nil || agent.Origin.Load() != want {
			t.Errorf("Read() says it asks from %v, and fails with %v; want %s", agent.Origin.Load(), err, want)
		}
		_ = made.Close()
	}
}

func TestErrors(t *testing.T) {
	agent := jolokiatest.New(t, path)
	agent.Start()
	for name, test := range map[string]struct {
		over     map[string]string
		password string
		want     string
	}{
		"a wrong password":                {nil, "hunter3", "ActiveMQ management endpoint response error code : 401 0"},
		"an origin that is not allowed":   {map[string]string{"corsHeader": "elsewhere"}, "", "ActiveMQ management endpoint response error code : 403 403"},
		"no such queue":                   {map[string]string{"destinationName": "other"}, "", "ActiveMQ management endpoint response error code : 200 404"},
		"nobody there":                    {map[string]string{"managementEndpoint": "ebb:hunter3@127.0.0.1:1"}, "", "refused"},
		"an endpoint that is none":        {map[string]string{"managementEndpoint": "ebb:hunter3#@127.0.0.1:1"}, "", "not a valid URL"},
		"a URL that is none":              {map[string]string{"restAPITemplate": "http://ebb:hunter3#@h" + path}, "", "unable to parse ActiveMQ restAPITemplate"},
		"a URL without object":            {map[string]string{"restAPITemplate": "http://h/api/jolokia"}, "", "unable to parse ActiveMQ restAPITemplate"},
		"a URL without destination":       {map[string]string{"restAPITemplate": "http://h/read/o:brokerName=main/QueueSize"}, "", "no destinationName is given"},
		"a URL with an empty destination": {map[string]string{"restAPITemplate": "http://h/read/o:brokerName=main,destinationName=/QueueSize"}, "", "no destinationName is given"},
		"a URL without broker":            {map[string]string{"restAPITemplate": "http://h/read/o:brokerName=,destinationName=jobs/QueueSize"}, "", "no brokerName given"},
	} {
		t.Run(name, func(t *testing.T) {
			c := config(t, agent.Host(), test.over)
			if test.password != "" {
				c.AuthParams["password"] = test.password
			}
			made, err := New(c)
			if err == nil {
				_, err = made.Read(t.Context())
				_ = made.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter") {
				t.Errorf("it fails with %v; want %q and no password", err, test.want)
			}
		})
	}
}

func TestTheEndpointMayComeFromAnywhere(t *testing.T) {
	agent := jolokiatest.New(t, path)
	agent.Start()
	agent.Set(t, 4)
	for name, set := range map[string]func(c *trigger.Config){
		"from authentication": func(c *trigger.Config) { c.AuthParams["managementEndpoint"] = agent.Host() },
		"from a variable": func(c *trigger.Config) {
			c.TriggerMetadata["managementEndpointFromEnv"], c.ResolvedEnv = "HOST", map[string]string{"HOST": agent.Host()}
		},
		"from metadata before authentication": func(c *trigger.Config) {
			c.TriggerMetadata["managementEndpoint"], c.AuthParams["managementEndpoint"] = agent.Host(), "127.0.0.1:1"
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := config(t, "", nil)
			set(&c)
			made, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = made.Close() }()
			if got, err := made.Read(t.Context()); err != nil || got[0].Value.Value() != 4 {
				t.Errorf("Read() = %+v, %v; want 4", got, err)
			}
		})
	}
}
