package rabbitmq

import (
	"maps"
	"strings"
	"testing"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
)

// words makes parameters of "a=b c=d".
func words(line string) map[string]string {
	out := map[string]string{}
	for word := range strings.FieldsSeq(line) {
		name, value, _ := strings.Cut(word, "=")
		out[name] = value
	}
	return out
}

func TestParameters(t *testing.T) {
	oauth := "oauthTokenURI=https://oauth.example.com/token clientID=me clientSecret=sesame"
	for name, test := range map[string]struct {
		metadata, auth, want string // want is part of the error, "" for none
	}{
		"nothing at all":                         {"queueName= host=", "", "missing required parameter"},
		"a queue and a host":                     {"host=amqp://", "", ""},
		"no queue":                               {"queueName= host=amqp://", "", `missing required parameter "queueName"`},
		"the older way to say a length":          {"host=amqp:// queueLength=10", "", ""},
		"no number as length":                    {"host=amqp:// queueLength=AA", "", "queueLength"},
		"a host from authentication":             {"host=", "host=amqp://a", ""},
		"a protocol from authentication":         {"host=http://a", "protocol=http", ""},
		"a protocol that is none":                {"host=http://a protocol=gopher", "", "the protocol has to be either `amqp`, `http`, or `auto` but is `gopher`"},
		"a scheme that is none":                  {"host=something://", "", "unknown host URL scheme: `something`"},
		"a host without scheme":                  {"host=somewhere", "", "unknown host URL scheme: ``"},
		"a host without scheme, and a protocol":  {"host=somewhere protocol=http", "", ""},
		"a host no URL can be":                   {"host=http://%zz", "", "can't parse host to find protocol"},
		"length and mode":                        {"host=https:// queueLength=10 mode=QueueLength", "", "queueLength is deprecated; use mode and value"},
		"length and value":                       {"host=https:// queueLength=10 value=20", "", "queueLength is deprecated; use mode and value"},
		"only a mode":                            {"host=https:// mode=QueueLength", "", "value must be specified"},
		"only a value":                           {"host=https:// value=20", "", "mode must be specified"},
		"mode and value":                         {"host=https:// mode=QueueLength value=20", "", ""},
		"a mode that is none":                    {"host=https:// mode=Feelings value=20", "", "trigger mode Feelings must be one of QueueLength, MessageRate, DeliverGetRate, PublishedToDeliveredRatio or ExpectedQueueConsumptionTime"},
		"a value that is none":                   {"host=https:// mode=QueueLength value=lots", "", "value"},
		"a length by amqps":                      {"host=amqps:// mode=QueueLength value=20", "", ""},
		"a rate by amqp":                         {"host=amqp:// mode=MessageRate value=1000", "", "protocol amqp not supported; must be HTTP to use trigger mode MessageRate"},
		"a rate by amqps":                        {"host=amqps:// mode=DeliverGetRate value=1000", "", "protocol amqp not supported"},
		"a ratio by amqp":                        {"host=amqp:// mode=PublishedToDeliveredRatio value=1", "", "protocol amqp not supported"},
		"a time by amqp":                         {"host=amqp:// mode=ExpectedQueueConsumptionTime value=1", "", "protocol amqp not supported"},
		"a rate by http":                         {"host=http:// mode=MessageRate value=1000", "", ""},
		"a regex by amqp":                        {"host=amqps:// useRegex=true", "", "configure useRegex=true only with HTTP protocol"},
		"a regex by http":                        {"host=http:// useRegex=true mode=MessageRate value=1000 pageSize=100", "", ""},
		"a page of none":                         {"host=http:// useRegex=true pageSize=-1", "", "pageSize should be 1 or greater"},
		"a page of nonsense":                     {"host=http:// useRegex=true pageSize=a", "", "pageSize"},
		"only what is ready by amqp":             {"host=amqp:// excludeUnacknowledged=true", "", "configure excludeUnacknowledged=true only with HTTP protocol"},
		"only what is ready by http":             {"host=http:// excludeUnacknowledged=true", "", ""},
		"a timeout by http":                      {"host=http:// mode=QueueLength value=1000 timeout=1000", "", ""},
		"a timeout below zero":                   {"host=http:// mode=QueueLength value=1000 timeout=-10", "", "timeout"},
		"a timeout that is none":                 {"host=http:// mode=QueueLength value=1000 timeout=error", "", "timeout"},
		"a timeout by amqp":                      {"host=amqp:// mode=QueueLength value=1000 timeout=10", "", "AMQP protocol doesn't support custom timeouts: 10000000"},
		"a timeout by amqp, and no mode":         {"host=amqp:// timeout=10", "", ""},
		"no activation value":                    {"host=amqp:// activationValue=AA", "", "activationValue"},
		"unsafe nonsense":                        {"host=https:// unsafeSsl=random", "", "unsafeSsl"},
		"a key and no certificate":               {"host=amqp://", "tls=enable ca=a key=k", "both key and certificate must be provided"},
		"a certificate and no key":               {"host=amqp://", "tls=enable ca=a cert=c", "both key and certificate must be provided"},
		"TLS that is neither":                    {"host=amqp://", "tls=yes", "incorrect value for TLS given: yes"},
		"an authority that is none":              {"host=amqp://", "tls=enable ca=a", "reading the authorities"},
		"an authority nobody asks":               {"host=amqp://", "ca=a", ""},
		"a user without password":                {"host=amqp://", "username=u", "username and password must be given together"},
		"a password without user":                {"host=amqp://", "password=p", "username and password must be given together"},
		"a user and a password":                  {"host=amqp://", "username=u password=p", ""},
		"workload identity by amqp":              {"host=amqp://", "workloadIdentityResource=r", "workload identity is not supported for the AMQP protocol at the moment"},
		"workload identity by http":              {"host=http://", "workloadIdentityResource=r", "Azure workload identity is not built in"},
		"a token":                                {"host=http://", oauth, ""},
		"a token with scopes and parameters":     {"host=http://", oauth + " scopes=read,write endpointParams=audience=rabbitmq", ""},
		"a token for amqp":                       {"host=amqp://", oauth, "OAuth2 authentication is only supported with HTTP protocol, not AMQP"},
		"a token and a password":                 {"host=http://", oauth + " username=u password=p", "OAuth2 authentication cannot be combined"},
		"a token and workload identity":          {"host=http://", oauth + " workloadIdentityResource=r", "OAuth2 authentication cannot be combined"},
		"a token from nowhere":                   {"host=http://", "clientID=me clientSecret=sesame", "oauthTokenURI=<empty> and clientID=<present> are required when oauth is enabled"},
		"a token for nobody":                     {"host=http://", "oauthTokenURI=https://a clientSecret=sesame", "oauthTokenURI=<present> and clientID=<empty> are required when oauth is enabled"},
		"a token without secret":                 {"host=http://", "oauthTokenURI=https://a clientID=me", "OAuth2 requires tokenUrl clientId and clientSecret"},
		"a token that is only promised":          {"host=http:// authModes=oauth", "", "are required when oauth is enabled"},
		"a password that is declared":            {"host=http:// authModes=basic", "username=u password=p", ""},
		"a password that is only promised":       {"host=http:// authModes=basic", "", "username=<empty> is required when basic auth is enabled"},
		"a certificate that is only promised":    {"host=http:// authMode=tls", "", "cert=<empty> and key=<empty> are required when tls auth is enabled"},
		"a way to sign in that is not supported": {"host=http:// authModes=bearer", "bearerToken=t", `auth mode "bearer" is not supported by this scaler`},
		"ways that exclude each other":           {"host=http:// authModes=basic,oauth", oauth, "must contain only one of"},
	} {
		t.Run(name, func(t *testing.T) {
			c := config(triggertest.Environment(t), "", nil, words(test.auth))
			maps.Copy(c.TriggerMetadata, words(test.metadata))
			made, err := New(c)
			if err == nil {
				_ = made.Close()
			}
			switch {
			case test.want == "" && err != nil:
				t.Errorf("New() fails with %v", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("New() fails with %v; want %q", err, test.want)
			}
		})
	}
}

func TestMetric(t *testing.T) {
	for name, test := range map[string]struct {
		metadata, metric string
		target           int64 // in thousandths
	}{
		"by default":       {"queueName=sample", "s0-rabbitmq-sample", 20000},
		"a slash in it":    {"queueName=namespace/name queueLength=10", "s0-rabbitmq-namespace-2Fname", 10000},
		"a broken target":  {"mode=MessageRate value=0.25", "s0-rabbitmq-jobs", 250},
		"the older length": {"queueLength=2.5", "s0-rabbitmq-jobs", 2500},
	} {
		t.Run(name, func(t *testing.T) {
			specs, err := build(t, triggertest.Environment(t), "http://a", words(test.metadata), nil).Specs(t.Context())
			if err != nil || specs[0].External.Metric.Name != test.metric || specs[0].External.Target.AverageValue.MilliValue() != test.target {
				t.Errorf("Specs() = %+v, %v; want %s of %dm", specs, err, test.metric, test.target)
			}
		})
	}
}

func TestAddress(t *testing.T) {
	for name, test := range map[string]struct {
		parameters parameters
		want       string
	}{
		"as it is":              {parameters{Host: "amqp://u:p@h:5236/v?heartbeat=5"}, "amqp://u:p@h:5236/v?heartbeat=5"},
		"another virtual host":  {parameters{Host: "amqp://u:p@h/v", Vhost: "a/b c"}, "amqp://u:p@h/a%2Fb%20c"},
		"the root":              {parameters{Host: "amqp://h/v", Vhost: "/"}, "amqp://h/%2F"},
		"another user":          {parameters{Host: "amqps://u:p@h", Username: "a@b", Password: "c:d/"}, "amqps://a%40b:c%3Ad%2F@h"},
		"a user where was none": {parameters{Host: "amqp://", Username: "a", Password: "b"}, "amqp://a:b@"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := test.parameters.address(); err != nil || got.String() != test.want {
				t.Errorf("address() = %s, %v; want %s", got, err, test.want)
			}
		})
	}
}

func TestPlace(t *testing.T) {
	for name, test := range map[string]struct{ path, vhost, want string }{
		"nothing":                              {"", "", "/api/queues/%2F"},
		"a slash":                              {"/", "", "/api/queues/%2F"},
		"two":                                  {"//", "", "/api/queues/%2F"},
		"the root by name":                     {"/%2F", "", "/api/queues/%2F"},
		"a name":                               {"/mine", "", "/api/queues/mine"},
		"a name that begins with a slash":      {"/%2Fmine", "", "/api/queues/%2Fmine"},
		"a name with a space":                  {"/my%20own", "", "/api/queues/my%20own"},
		"another name":                         {"/mine", "yours", "/api/queues/yours"},
		"the root instead":                     {"/mine", "/", "/api/queues/%2F"},
		"another with a space":                 {"", "my own+", "/api/queues/my%20own%2B"},
		"a folder":                             {"/sub/", "", "/sub/api/queues/%2F"},
		"a folder and two slashes":             {"/sub//", "", "/sub/api/queues/%2F"},
		"a folder and a name":                  {"/sub/mine", "", "/sub/api/queues/mine"},
		"a folder and the root":                {"/sub/%2F", "", "/sub/api/queues/%2F"},
		"a folder and another":                 {"/sub/", "yours", "/sub/api/queues/yours"},
		"two folders and a name":               {"/sub/marine/%2Fmine", "", "/sub/marine/api/queues/%2Fmine"},
		"two folders and another":              {"/sub/marine/mine", "yours", "/sub/marine/api/queues/yours"},
		"the last of two is the virtual host ": {"/sub/marine", "", "/sub/api/queues/marine"},
	} {
		t.Run(name, func(t *testing.T) {
			p := parameters{Host: "https://u:p@h:15672" + test.path, Vhost: test.vhost}
			want := place{"https://h:15672" + test.want, "u", "p"}
			if got, err := p.place(); err != nil || got != want {
				t.Errorf("place() = %+v, %v; want %+v", got, err, want)
			}
		})
	}
}

func TestOnlyAMQPIsWatched(t *testing.T) {
	env := triggertest.Environment(t)
	if _, pushes := build(t, env, "http://a", nil, nil).(trigger.Pusher); pushes {
		t.Error("the management API is polled for changes")
	}
	if _, pushes := build(t, env, "amqp://a", nil, nil).(trigger.Pusher); !pushes {
		t.Error("queues are not polled for changes")
	}
}
