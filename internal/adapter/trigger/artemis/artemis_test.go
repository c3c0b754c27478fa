package artemis

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"strings"
	"testing"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/jolokia/jolokiatest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

const path = `/console/jolokia/read/org.apache.activemq.artemis:broker="main",component=addresses,address="work",subcomponent=queues,routing-type="anycast",queue="jobs"/MessageCount`

func TestArtemis(t *testing.T) {
	agent := jolokiatest.New(t, path)
	agent.Start()
	relay := process.NewRelay(t, agent.Host())
	subject := triggertest.Subject{
		Type: "artemis-queue", Build: New,
		Metadata: map[string]string{
			"managementEndpoint": relay.Address, "brokerName": "main", "brokerAddress": "work", "queueName": "jobs",
			"queueLength": "5", "activationQueueLength": "2", "usernameFromEnv": "USERNAME",
		},
		Auth:   map[string]string{"password": "hunter2"},
		Env:    map[string]string{"USERNAME": "ebb"},
		Metric: "artemis-jobs", Target: "5",
		Required: []string{"managementEndpoint", "brokerName", "brokerAddress", "queueName", "usernameFromEnv", "password"},
		Wrong:    map[string]string{"queueLength": "AA", "activationQueueLength": "AA", "restApiTemplate": "nowhere", "unsafeSsl": "perhaps"},
		Set:      agent.Set,
		Break:    func(*testing.T) { relay.Cut() },
		Repair:   func(*testing.T) { relay.Heal() },
		Down:     map[string]string{"managementEndpoint": "127.0.0.1:1"},
	}
	subject.Denied = map[string]string{"password": "hunter3"}
	t.Run("by parts", func(t *testing.T) { triggertest.Run(t, subject) })
	subject.Variant = true
	subject.Metadata = map[string]string{
		"restApiTemplate": "http://" + relay.Address + path, "queueLength": "5", "activationQueueLength": "2", "usernameFromEnv": "USERNAME",
	}
	subject.Metric, subject.Required = `artemis-"jobs"`, []string{"restApiTemplate", "usernameFromEnv", "password"}
	subject.Down = map[string]string{"restApiTemplate": "http://127.0.0.1:1" + path}
	t.Run("by URL", func(t *testing.T) { triggertest.Run(t, subject) })
	subject.Metadata["restApiTemplate"] = "http://" + relay.Address + strings.ReplaceAll(path, `"`, "%22")
	t.Run("by an escaped URL", func(t *testing.T) { triggertest.Run(t, subject) })
}

func config(t *testing.T, host string, over, auth map[string]string) trigger.Config {
	t.Helper()
	c := trigger.Config{Environment: triggertest.Environment(t)}
	c.GlobalHTTPTimeout = time.Second
	c.TriggerMetadata = map[string]string{"managementEndpoint": host, "brokerName": "main", "brokerAddress": "work", "queueName": "jobs"}
	c.AuthParams = map[string]string{"username": "ebb", "password": "hunter2"}
	maps.Copy(c.TriggerMetadata, over)
	maps.Copy(c.AuthParams, auth)
	return c
}

func TestItIsActiveAboveTenByDefault(t *testing.T) {
	agent := jolokiatest.New(t, path)
	agent.Start()
	made, err := New(config(t, agent.Host(), nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = made.Close() }()
	for n, active := range map[int]bool{0: false, 10: false, 11: true} {
		agent.Set(t, n)
		got, err := made.Read(t.Context())
		if err != nil || got[0].Active != active {
			t.Errorf("Read() = %+v, %v where %d wait; want it active: %v", got, err, n, active)
		}
	}
	if got := agent.Origin.Load(); got != "http://"+agent.Host() {
		t.Errorf("Read() says it asks from %v", got)
	}
}

func TestErrors(t *testing.T) {
	agent := jolokiatest.New(t, path)
	agent.Start()
	const rest = `,component=addresses/MessageCount`
	for name, test := range map[string]struct {
		over, auth map[string]string
		want       string
	}{
		"a wrong password":              {nil, map[string]string{"password": "hunter3"}, "artemis management endpoint response error code : 401 0"},
		"an origin that is not allowed": {map[string]string{"corsHeader": "elsewhere"}, nil, "artemis management endpoint response error code : 403 403"},
		"no such queue":                 {map[string]string{"queueName": "other"}, nil, "artemis management endpoint response error code : 200 404"},
		"nobody there":                  {map[string]string{"managementEndpoint": "ebb:hunter3@127.0.0.1:1"}, nil, "refused"},
		"a URL that is none":            {map[string]string{"restApiTemplate": "http://ebb:hunter3#@h" + path}, nil, "can't parse restApiTemplate"},
		"a URL without object":          {map[string]string{"restApiTemplate": `http://h/a"b`}, nil, "can't parse restApiTemplate"},
		"a URL without address":         {map[string]string{"restApiTemplate": `http://h/o:broker="main",queue="jobs"` + rest}, nil, "no brokerAddress given"},
		"a URL with an empty queue":     {map[string]string{"restApiTemplate": `http://h/o:broker="main",address="work",queue=""` + rest}, nil, "no queueName is given"},
		"a URL with an empty broker":    {map[string]string{"restApiTemplate": `http://h/o:broker="",address="work",queue="jobs"` + rest}, nil, "no brokerName given"},
		"a certificate without key":     {nil, map[string]string{"ca": "a", "cert": "c"}, "both cert and key must be provided"},
		"a key without certificate":     {nil, map[string]string{"ca": "a", "key": "k"}, "both cert and key must be provided"},
		"a certificate that is none":    {nil, map[string]string{"cert": "c", "key": "k"}, "reading the certificate and its key"},
	} {
		t.Run(name, func(t *testing.T) {
			made, err := New(config(t, agent.Host(), test.over, test.auth))
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

func TestHTTPS(t *testing.T) {
	agent := jolokiatest.New(t, path)
	agent.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	agent.StartTLS()
	agent.Set(t, 4)
	pair := agent.TLS.Certificates[0]
	private, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	cert, key := encode("CERTIFICATE", pair.Certificate[0]), encode("PRIVATE KEY", private)
	for name, test := range map[string]struct {
		unsafe string
		auth   map[string]string
		good   bool
	}{
		"nobody vouches":                {"false", nil, false},
		"anybody will do":               {"true", nil, true},
		"an authority alone is ignored": {"false", map[string]string{"ca": cert}, false},
		"an authority and who we are":   {"false", map[string]string{"ca": cert, "cert": cert, "key": key}, true},
		"who we are, but not who it is": {"false", map[string]string{"cert": cert, "key": key}, false},
	} {
		t.Run(name, func(t *testing.T) {
			over := map[string]string{"unsafeSsl": test.unsafe, "restApiTemplate": agent.URL + path}
			made, err := New(config(t, "", over, test.auth))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = made.Close() }()
			got, err := made.Read(t.Context())
			if test.good && (err != nil || got[0].Value.Value() != 4) || !test.good && err == nil {
				t.Errorf("Read() = %+v, %v; want it to work: %v", got, err, test.good)
			}
		})
	}
}
