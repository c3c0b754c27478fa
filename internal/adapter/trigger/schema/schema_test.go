package schema_test

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ebb.dev/ebb/internal/adapter/trigger/schema"
)

type values = map[string]string

func TestCheckSaysWhatIsWrong(t *testing.T) {
	cron := func(change values) values {
		out := values{"timezone": "UTC", "start": "0 8 * * *", "end": "0 9 * * *", "desiredReplicas": "3"}
		maps.Copy(out, change)
		return out
	}
	refused := func(parameter, message string) []schema.Problem {
		return []schema.Problem{{Parameter: parameter, Message: message, Refused: true}}
	}
	warned := func(parameter, message string) []schema.Problem {
		return []schema.Problem{{Parameter: parameter, Message: message}}
	}
	kafka := values{"bootstrapServers": "k:9092", "consumerGroup": "g"}
	tests := map[string]struct {
		kind                string
		metadata, auth, env values
		want                []schema.Problem
	}{
		"all is right":                      {kind: "cron", metadata: cron(nil)},
		"a misspelt type":                   {kind: "kafk", want: refused("", `there is no trigger of type "kafk"; did you mean "kafka"?`)},
		"a type like no other":              {kind: "telegraph", want: refused("", `there is no trigger of type "telegraph"`)},
		"a misspelt parameter":              {kind: "kafka", metadata: with(kafka, "lagTreshold", "5"), want: refused("lagTreshold", `triggers of type "kafka" have no such parameter; did you mean "lagThreshold"?`)},
		"a parameter in the wrong case":     {kind: "kafka", metadata: with(kafka, "lagthreshold", "5"), want: refused("lagthreshold", `triggers of type "kafka" have no such parameter; did you mean "lagThreshold"?`)},
		"a misspelt parameter that must be": {kind: "kafka", metadata: values{"bootstrapServers": "k:9092", "consumerGrop": "g"}, want: refused("consumerGrop", `triggers of type "kafka" have no such parameter; did you mean "consumerGroup"?`)},
		"a parameter like no other":         {kind: "kafka", metadata: with(kafka, "colour", "blue"), want: warned("colour", `triggers of type "kafka" have no such parameter; it is ignored`)},
		"a number of letters":               {kind: "kafka", metadata: with(kafka, "lagThreshold", "many"), want: refused("lagThreshold", `"many" is no whole number`)},
		"a truth that is none":              {kind: "kafka", metadata: with(kafka, "allowIdleConsumers", "maybe"), want: refused("allowIdleConsumers", `"maybe" is neither true nor false`)},
		"a choice there is not":             {kind: "kafka", metadata: with(kafka, "offsetResetPolicy", "lates"), want: refused("offsetResetPolicy", `"lates" is none of latest, earliest; did you mean "latest"?`)},
		"several choices":                   {kind: "prometheus", metadata: values{"serverAddress": "http://p", "query": "q", "threshold": "1", "authModes": "basic, tls"}},
		"a required parameter left out":     {kind: "kafka", metadata: values{"bootstrapServers": "k:9092"}, want: refused("consumerGroup", `is required by triggers of type "kafka"`)},
		"a required one in a variable":      {kind: "kafka", metadata: values{"bootstrapServersFromEnv": "SERVERS", "consumerGroup": "g"}},
		"a required one in no variable":     {kind: "kafka", metadata: values{"bootstrapServersFromEnv": "SERVERS", "consumerGroup": "g"}, env: values{}, want: refused("bootstrapServers", `is required by triggers of type "kafka"`)},
		"a misspelt name of a variable":     {kind: "kafka", metadata: with(kafka, "topcFromEnv", "TOPIC"), want: refused("topcFromEnv", `triggers of type "kafka" have no such parameter; did you mean "topicFromEnv"?`)},
		"a variable nobody reads":           {kind: "kafka", metadata: with(kafka, "lagThresholdFromEnv", "LAG"), want: warned("lagThresholdFromEnv", "lagThreshold is not read from variables; what is there is ignored")},
		"a secret in metadata":              {kind: "kafka", metadata: with(kafka, "password", "hunter2"), want: warned("password", "is read from authentication only; what is in metadata is ignored")},
		"authentication that lacks a need":  {kind: "activemq", metadata: values{"managementEndpoint": "a:8161", "destinationName": "d", "brokerName": "b"}, auth: values{"username": "u"}, want: refused("password", `is required by triggers of type "activemq"`)},
		"authentication that is not known":  {kind: "activemq", metadata: values{"managementEndpoint": "a:8161", "destinationName": "d", "brokerName": "b"}},
		"a deprecated parameter":            {kind: "cpu", metadata: values{"type": "Utilization", "value": "50"}, want: warned("type", "is deprecated; use metricType")},
		"one of a parameter's two names":    {kind: "ibmmq", metadata: values{"host": "https://h", "queueName": "q", "queueDepth": "1"}},
		"anything for somebody else's":      {kind: "external", metadata: values{"scalerAddress": "a:1", "scalarAddress": "x", "colour": "blue"}},
		"a parameter of ebb's own":          {kind: "nats-jetstream", metadata: values{"natsServerURL": "nats://n:4222", "natsServerMonitoringEndpoint": "n:8222", "account": "$G", "stream": "s", "consumer": "c", "lagThreshold": " 5 "}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, schema.Check(tt.kind, tt.metadata, tt.auth, tt.env)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func with(m values, name, value string) values {
	out := values{name: value}
	maps.Copy(out, m)
	return out
}

func TestAllOfUpstreamsTypesAreKnown(t *testing.T) {
	if n := len(schema.Types()); n != 80 {
		t.Errorf("%d types, want 79 and one for tests", n)
	}
	for _, kind := range schema.Types() {
		if !schema.Known(kind) || schema.Nearest(kind) != kind {
			t.Errorf("%s is not known as itself", kind)
		}
	}
}
