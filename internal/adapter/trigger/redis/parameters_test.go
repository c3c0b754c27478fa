package redis

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
)

type given struct {
	metadata, auth, env map[string]string
	// wrong is part of the error there must be.
	wrong string
	// want are the addresses, the user and the password, and whether TLS is used.
	want []string
}

var connections = map[string]given{
	"an address": {metadata: map[string]string{"address": "a:1"}, want: []string{"a:1"}},
	"an address from the environment, and a user": {
		metadata: map[string]string{"addressFromEnv": "A", "usernameFromEnv": "U", "passwordFromEnv": "P"},
		env:      map[string]string{"A": "a:1", "U": "me", "P": "pw"}, want: []string{"a:1", "me", "pw"},
	},
	"addresses": {auth: map[string]string{"addresses": ":7001, :7002"}, want: []string{":7001", ":7002"}},
	"hosts and ports": {
		auth: map[string]string{"hosts": "   a, b,    c ", "ports": "1, 2, 3"}, want: []string{"a:1", "b:2", "c:3"},
	},
	"a host of version 6": {metadata: map[string]string{"host": "::1", "port": "1"}, want: []string{"[::1]:1"}},
	"hosts after addresses": {
		metadata: map[string]string{"address": "a:1", "host": "b", "port": "2"}, want: []string{"a:1", "b:2"},
	},
	"a user by the trigger, a password by authentication": {
		metadata: map[string]string{"address": "a:1", "username": "me"},
		auth:     map[string]string{"username": "other", "password": "pw"}, want: []string{"a:1", "me", "pw"},
	},
	"TLS by the trigger": {
		metadata: map[string]string{"address": "a:1", "enableTLS": "true"}, want: []string{"a:1", "TLS"},
	},
	"no TLS by the trigger": {
		metadata: map[string]string{"address": "a:1", "enableTLS": "false"}, want: []string{"a:1"},
	},
	"TLS by authentication": {
		metadata: map[string]string{"address": "a:1"}, auth: map[string]string{"tls": "enable"}, want: []string{"a:1", "TLS"},
	},
	"no TLS by authentication": {
		metadata: map[string]string{"address": "a:1"}, auth: map[string]string{"tls": "disable"}, want: []string{"a:1"},
	},
	"nothing":                        {wrong: errNoAddresses.Error()},
	"an empty address":               {metadata: map[string]string{"address": "", "password": ""}, wrong: errNoAddresses.Error()},
	"an address that is not there":   {metadata: map[string]string{"addressFromEnv": "NONE"}, wrong: errNoAddresses.Error()},
	"a host without a port":          {metadata: map[string]string{"host": "a"}, wrong: errNoAddresses.Error()},
	"a port without a host":          {metadata: map[string]string{"port": "1"}, wrong: errNoAddresses.Error()},
	"more hosts than ports":          {metadata: map[string]string{"hosts": "a, b, c", "ports": "1, 2"}, wrong: errUnequalPorts.Error()},
	"a first address that is empty":  {metadata: map[string]string{"addresses": ", a:1"}, wrong: errNoAddresses.Error()},
	"TLS by both":                    {metadata: map[string]string{"address": "a:1", "enableTLS": "true"}, auth: map[string]string{"tls": "disable"}, wrong: errBothTLS.Error()},
	"TLS that is neither on nor off": {metadata: map[string]string{"address": "a:1", "enableTLS": "no"}, wrong: "EnableTLS parsing error"},
	"TLS by another word":            {metadata: map[string]string{"address": "a:1"}, auth: map[string]string{"tls": "true"}, wrong: "error incorrect TLS value given, got true"},
	"an unsafeSsl that is no bool":   {metadata: map[string]string{"address": "a:1", "unsafeSsl": "x"}, wrong: "unsafeSsl"},
}

func TestConnections(t *testing.T) {
	for name, g := range connections {
		t.Run(name, func(t *testing.T) {
			lists, streams := g.config(t, "listName"), g.config(t, "stream")
			var l listParameters
			var s streamParameters
			for _, err := range []error{lists.TypedConfig(&l), streams.TypedConfig(&s)} {
				switch {
				case g.wrong == "" && err != nil:
					t.Errorf("it is refused: %v", err)
				case g.wrong != "" && (err == nil || !strings.Contains(err.Error(), g.wrong)):
					t.Errorf("it is refused by %v; want %s", err, g.wrong)
				}
			}
			if g.wrong != "" {
				return
			}
			for _, c := range []connection{l.Connection, s.Connection} {
				got := slices.Clone(c.Addresses)
				got = append(got, c.Username, c.Password)
				if c.secure {
					got = append(got, "TLS")
				}
				got = slices.DeleteFunc(got, func(s string) bool { return s == "" })
				if diff := cmp.Diff(g.want, got); diff != "" {
					t.Errorf("connection differs (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func (g given) config(t *testing.T, name string) trigger.Config {
	t.Helper()
	c := triggertest.Subject{Metadata: g.metadata, Auth: g.auth, Env: g.env}.Config(t, nil)
	c.TriggerMetadata[name] = "x"
	return c
}

func TestQuestions(t *testing.T) {
	for name, c := range map[string]struct {
		metadata map[string]string
		want     question
		target   int64
	}{
		"length by default":            {nil, question{length, "x", ""}, 5},
		"length":                       {map[string]string{"streamLength": "7", "lagCount": "9"}, question{length, "x", ""}, 7},
		"pending entries by default":   {map[string]string{"consumerGroup": "g", "streamLength": "7"}, question{pending, "x", "g"}, 5},
		"pending entries":              {map[string]string{"consumerGroup": "g", "pendingEntriesCount": "8"}, question{pending, "x", "g"}, 8},
		"lag before pending entries":   {map[string]string{"consumerGroup": "g", "pendingEntriesCount": "8", "lagCount": "9"}, question{lag, "x", "g"}, 9},
		"no lag is as if it was unset": {map[string]string{"consumerGroup": "g", "lagCount": "0"}, question{pending, "x", "g"}, 5},
	} {
		g := given{metadata: c.metadata}
		config := g.config(t, "stream")
		config.TriggerMetadata["address"] = "a:1"
		var p streamParameters
		if err := config.TypedConfig(&p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, target := p.question(); got != c.want || target != c.target || p.Activation != 0 {
			t.Errorf("%s: %+v above %d, with a target of %d; want %+v above 0 with %d", name, got, p.Activation, target, c.want, c.target)
		}
	}
}

func TestSharing(t *testing.T) {
	a := connection{Addresses: []string{"a:1"}, Username: "me", Password: "pw"}
	same := a
	if a.key(single, 0) != same.key(single, 0) {
		t.Error("two triggers of a server do not share it")
	}
	others := map[string]connection{
		"address": {Addresses: []string{"a:2"}, Username: "me", Password: "pw"},
		"user":    {Addresses: []string{"a:1"}, Username: "you", Password: "pw"},
		"words":   {Addresses: []string{"a:1"}, Username: "me\" \"p", Password: "w"},
		"TLS":     {Addresses: []string{"a:1"}, Username: "me", Password: "pw", secure: true},
	}
	for name, other := range others {
		if a.key(single, 0) == other.key(single, 0) {
			t.Errorf("those of another %s share it", name)
		}
	}
	if a.key(single, 0) == a.key(single, 1) || a.key(single, 0) == a.key(cluster, 0) {
		t.Error("those of another database or kind share it")
	}
}
