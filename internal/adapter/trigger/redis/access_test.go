package redis

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

// secure starts a server that wants its clients' certificates, and tells its port for TLS.
func secure(t *testing.T, c process.Certificate) (s *testServer, port string) {
	t.Helper()
	dir := process.Dir(t, "redis")
	for name, text := range map[string]string{"ca.pem": c.CA, "cert.pem": c.Cert, "key.pem": c.Key} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o644); err != nil { // the server is another user's
			t.Fatal(err)
		}
	}
	port = process.Port(t)
	return start(t, "--tls-port", port, "--tls-auth-clients", "yes", "--tls-cert-file", filepath.Join(dir, "cert.pem"),
		"--tls-key-file", filepath.Join(dir, "key.pem"), "--tls-ca-cert-file", filepath.Join(dir, "ca.pem")), port
}

func TestTLS(t *testing.T) {
	c := process.Certify(t)
	s, port := secure(t, c)
	relay := process.NewRelay(t, "127.0.0.1:"+port)
	subject := listSubject(t, s.client)
	subject.Metadata["address"] = relay.Address
	subject.Auth = map[string]string{"tls": "enable", "ca": c.CA, "cert": c.Cert, "key": c.Key}
	delete(subject.Wrong, "enableTLS")
	subject.Wrong["ca"], subject.Wrong["key"], subject.Wrong["tls"] = "none", "none", "perhaps"
	subject.Break = func(*testing.T) { relay.Cut() }
	subject.Repair = func(*testing.T) { relay.Heal() }
	triggertest.Run(t, subject)

	t.Run("a server that is not known is not believed", func(t *testing.T) {
		for name, over := range map[string]map[string]string{
			"without its authority": {"ca": ""},
			"without a certificate": {"cert": "", "key": ""},
			"without TLS":           {"tls": "disable"},
		} {
			made, err := New(subject.Config(t, over))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := made.Read(t.Context()); err == nil {
				t.Errorf("%s: Read() = %v; want an error", name, got)
			}
			if err := made.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("any server is believed by unsafeSsl", func(t *testing.T) {
		fill(t, s.client, "jobs", 3)
		made, err := New(subject.Config(t, map[string]string{"ca": "", "unsafeSsl": "true"}))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = made.Close() }()
		if got := read(t, made); got != 3 {
			t.Errorf("it has %d items; want 3", got)
		}
	})
}

// allow makes a user who may do only that.
func (s *testServer) allow(t *testing.T, user string, rules ...any) {
	t.Helper()
	command := append([]any{"ACL", "SETUSER", user, "reset", "on", ">" + password, "~jobs", "~events"}, rules...)
	if err := s.client.Do(t.Context(), command...).Err(); err != nil {
		t.Fatal(err)
	}
}

// What a user needs to be allowed: to ask, as for upstream; and better, to be told.
var (
	mayAsk  = []any{"+eval", "+type", "+llen", "+scard", "+zcard", "+hlen", "+xlen", "+xpending", "+xinfo|groups", "+info"}
	mayHear = append([]any{"+client|tracking", "+select"}, mayAsk...)
)

func TestUsers(t *testing.T) {
	for name, rules := range map[string][]any{"who may be told": mayHear, "who may only ask": mayAsk} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			s.allow(t, "ebb", rules...)
			relay := process.NewRelay(t, s.address)
			subject := listSubject(t, s.client)
			subject.Metadata["address"] = relay.Address
			subject.Env = map[string]string{"U": "ebb"}
			subject.Metadata["usernameFromEnv"] = "U"
			subject.Auth = map[string]string{"password": password}
			subject.Denied = map[string]string{"password": "hunter2"}
			subject.Break = func(*testing.T) { relay.Cut() }
			subject.Repair = func(*testing.T) { relay.Heal() }
			triggertest.Run(t, subject)

			stream := streamSubjects(t, s.client)["lag"]
			stream.Metadata["address"], stream.Metadata["username"] = s.address, "ebb"
			stream.Variant = true
			stream.Auth = map[string]string{"password": password}
			triggertest.Run(t, stream)
		})
	}
}

func TestServersWithoutTheProtocolThatTells(t *testing.T) {
	s := start(t, "--rename-command", "HELLO", "", "--requirepass", password)
	subject := listSubject(t, s.as(t, password))
	subject.Metadata["address"] = s.address
	subject.Auth = map[string]string{"password": password}
	subject.Variant = true
	triggertest.Run(t, subject)
}

func TestErrorsKeepSecrets(t *testing.T) {
	const wrong = "hunter2"
	for name, arguments := range map[string][]string{
		"a server that wants a password": {"--requirepass", password},
		"an old one that does":           {"--requirepass", password, "--rename-command", "HELLO", ""},
	} {
		s := start(t, arguments...)
		for _, user := range []string{"", "ebb"} {
			parameters := map[string]string{"address": s.address, "listName": "jobs", "username": user, "password": wrong}
			made := build(t, triggertest.Environment(t), New, parameters)
			if _, err := made.Read(t.Context()); err == nil || strings.Contains(err.Error(), wrong) {
				t.Errorf("%s: Read() fails with %v; want an error without the password", name, err)
			}
			node, err := made.(*source).server.node(t.Context(), "jobs")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := connect(t.Context(), node); err == nil || strings.Contains(err.Error(), wrong) {
				t.Errorf("%s: connect() fails with %v; want an error without the password", name, err)
			}
		}
	}
}

func TestNobodyReadsWithoutThePassword(t *testing.T) {
	s := start(t, "--requirepass", password)
	for name, what := range map[string]struct {
		build      trigger.Build
		parameters map[string]string
	}{
		"a list's length":       {New, map[string]string{"listName": "jobs"}},
		"a stream's length":     {NewStreams, map[string]string{"stream": stream}},
		"a stream's lag":        {NewStreams, map[string]string{"stream": stream, "consumerGroup": group, "lagCount": "5"}},
		"a group's open events": {NewStreams, map[string]string{"stream": stream, "consumerGroup": group}},
	} {
		for _, database := range []string{"0", "2"} {
			what.parameters["address"], what.parameters["databaseIndex"] = s.address, database
			made := build(t, triggertest.Environment(t), what.build, what.parameters)
			if got, err := made.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
				t.Errorf("%s in database %s: Read() = %+v, %v; want an error that says NOAUTH", name, database, got, err)
			}
		}
	}
}
