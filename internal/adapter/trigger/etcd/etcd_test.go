package etcd

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

// server is an etcd and a client of it.
type server struct {
	*process.Process
	address string
	client  *clientv3.Client
}

// start runs an etcd, which speaks TLS with clients of that authority if there is a certificate.
func start(t testing.TB, own *process.Certificate, clients string) *server {
	t.Helper()
	scheme, dir := "http", t.TempDir()
	config := clientv3.Config{DialTimeout: 5 * time.Second, Logger: zap.NewNop()}
	var args []string
	if own != nil {
		for name, text := range map[string]string{"cert": own.Cert, "key": own.Key, "clients": clients} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		args = append(args, "--cert-file", filepath.Join(dir, "cert"), "--key-file", filepath.Join(dir, "key"))
		if clients != "" {
			args = append(args, "--trusted-ca-file", filepath.Join(dir, "clients"), "--client-cert-auth")
		}
		scheme, config.TLS = "https", own.Server(t, "")
		config.TLS.InsecureSkipVerify = true
	}
	program, address := servers.Etcd(t, scheme, args...)
	s := &server{address: address}
	config.Endpoints = []string{scheme + "://" + address}
	client, err := clientv3.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	s.client = client
	program.Ready = func(ctx context.Context) error {
		_, err := client.Status(ctx, config.Endpoints[0]) // needs no password
		return err
	}
	s.Process = process.Start(t, program)
	return s
}

func (s *server) put(t testing.TB, key, value string) {
	t.Helper()
	if _, err := s.client.Put(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

func (s *server) subject() triggertest.Subject {
	return triggertest.Subject{
		Type: "etcd", Build: New,
		Metadata: map[string]string{"endpoints": s.address, "watchKey": "jobs/waiting", "value": "5", "activationValue": "2"},
		Auth:     map[string]string{"tls": disable},
		Metric:   "etcd-jobs/waiting", Target: "5",
		Required: []string{"endpoints", "watchKey", "value"},
		Wrong:    map[string]string{"value": "a", "activationValue": "b", "watchProgressNotifyInterval": "0", "tls": "yes"},
		Set:      func(t *testing.T, n int) { s.put(t, "jobs/waiting", strconv.Itoa(n)) },
		Within:   300 * time.Millisecond,
	}
}

func TestEtcd(t *testing.T) {
	s := start(t, nil, "")
	subject := s.subject()
	subject.Down = map[string]string{"endpoints": "127.0.0.1:" + process.Port(t)}
	subject.Break = func(t *testing.T) { s.Stop(t) }
	subject.Repair, subject.Keeps = func(t *testing.T) { s.Start(t) }, true
	triggertest.Run(t, subject)
}

func TestParameters(t *testing.T) {
	for name, test := range map[string]struct {
		auth  map[string]string
		fails string
	}{
		"TLS needs no certificate":                {auth: map[string]string{"tls": "enable"}},
		"a key needs a certificate":               {auth: map[string]string{"tls": "enable", "key": "k"}, fails: "cert must be provided with key"},
		"a certificate needs a key":               {auth: map[string]string{"tls": "enable", "cert": "c"}, fails: "key must be provided with cert"},
		"neither matters without TLS":             {auth: map[string]string{"tls": "disable", "cert": "c"}},
		"TLS is on or off":                        {auth: map[string]string{"tls": "yes"}, fails: "incorrect value for TLS given: yes"},
		"a user needs a password":                 {auth: map[string]string{"username": "root"}, fails: "password must be provided with username"},
		"a password needs a user":                 {auth: map[string]string{"password": "admin"}, fails: "username must be provided with password"},
		"both are fine, and nothing is asked yet": {auth: map[string]string{"username": "root", "password": "admin"}},
		"a key that is none is not told":          {auth: map[string]string{"tls": "enable", "cert": "c", "key": "hunter2"}, fails: "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			c := (&server{address: "a:1,b:2"}).subject().Config(t, nil)
			c.AuthParams = test.auth
			made, err := New(c)
			if err == nil {
				_ = made.Close()
			}
			if test.fails == "" && err != nil || test.fails != "" && (err == nil || !strings.Contains(err.Error(), test.fails)) {
				t.Errorf("New() fails with %v; want %q", err, test.fails)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

// build makes a trigger with parameters put over those of the subject.
func (s *server) build(t testing.TB, env trigger.Environment, metadata, auth map[string]string) trigger.Source {
	t.Helper()
	c := trigger.Config{Environment: env}
	c.TriggerMetadata = maps.Clone(s.subject().Metadata)
	maps.Copy(c.TriggerMetadata, metadata)
	c.AuthParams = auth
	made, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	return made
}

func read(ctx context.Context, s trigger.Source) (float64, error) {
	got, err := s.Read(ctx)
	if err != nil {
		return 0, err
	}
	return got[0].Value.AsApproximateFloat64(), nil
}

func TestTLS(t *testing.T) {
	own, other := process.Certify(t), process.Certify(t)
	plain, choosy := start(t, &own, ""), start(t, &own, own.CA)
	for name, test := range map[string]struct {
		to      *server
		scheme  string
		auth    map[string]string
		refused bool
	}{
		"a server by its authority":          {to: plain, auth: map[string]string{"tls": "enable", "ca": own.CA}},
		"by https, too":                      {to: plain, scheme: "https://", auth: map[string]string{"tls": "enable", "ca": own.CA}},
		"not by another authority":           {to: plain, auth: map[string]string{"tls": "enable", "ca": other.CA}, refused: true},
		"not by none":                        {to: plain, auth: map[string]string{"tls": "enable"}, refused: true},
		"not by none, where it is https":     {to: plain, scheme: "https://", refused: true},
		"not without TLS":                    {to: plain, auth: map[string]string{"ca": own.CA}, refused: true},
		"a client that the server knows":     {to: choosy, auth: map[string]string{"tls": "enable", "ca": own.CA, "cert": own.Cert, "key": own.Key}},
		"no client that the server does not": {to: choosy, auth: map[string]string{"tls": "enable", "ca": own.CA, "cert": other.Cert, "key": other.Key}, refused: true},
		"no client without a certificate":    {to: choosy, auth: map[string]string{"tls": "enable", "ca": own.CA}, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			test.to.put(t, "jobs/waiting", "7")
			made := test.to.build(t, triggertest.Environment(t), map[string]string{"endpoints": test.scheme + test.to.address}, test.auth)
			patience := 10 * time.Second
			if test.refused {
				patience = 2 * time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			got, err := read(ctx, made)
			if (err != nil) != test.refused || err == nil && got != 7 {
				t.Errorf("Read() = %v, %v; want it to be refused: %v", got, err, test.refused)
			}
		})
	}
}

func TestPasswords(t *testing.T) {
	s := start(t, nil, "")
	s.put(t, "jobs/waiting", "7")
	ctx := t.Context()
	for _, err := range []error{
		second(s.client.UserAdd(ctx, "root", "hunter2")), second(s.client.UserGrantRole(ctx, "root", "root")),
		second(s.client.UserAdd(ctx, "reader", "s3cr et")), second(s.client.RoleAdd(ctx, "jobs")),
		second(s.client.RoleGrantPermission(ctx, "jobs", "jobs/", clientv3.GetPrefixRangeEnd("jobs/"), clientv3.PermissionType(clientv3.PermRead))),
		second(s.client.UserGrantRole(ctx, "reader", "jobs")), second(s.client.AuthEnable(ctx)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	env := triggertest.Environment(t)
	reader := map[string]string{"username": "reader", "password": "s3cr et"}
	made := s.build(t, env, nil, reader)
	if got, err := read(ctx, made); err != nil || got != 7 {
		t.Errorf("Read() = %v, %v; want 7", got, err)
	}
	woken := watched(t, made)
	<-woken
	s.Stop(t)
	s.Start(t) // it has forgotten its tokens
	if got, err := read(ctx, made); err != nil || got != 7 {
		t.Errorf("Read() = %v, %v after a restart; want 7", got, err)
	}
	for name, refused := range map[string]trigger.Source{
		"a wrong password": s.build(t, env, nil, map[string]string{"username": "reader", "password": "hunter3"}),
		"no password":      s.build(t, env, nil, nil),
		"a forbidden key":  s.build(t, env, map[string]string{"watchKey": "other"}, reader),
	} {
		if got, err := read(ctx, refused); err == nil {
			t.Errorf("Read() = %v with %s", got, name)
		} else if strings.Contains(err.Error(), "hunter") {
			t.Errorf("with %s the error tells the password: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestWhatIsNoNumber(t *testing.T) {
	s := start(t, nil, "")
	env := triggertest.Environment(t)
	for value, want := range map[string]float64{"2.5": 2.5, "1e3": 1000, "-4": 0, "0x10p0": 16, "NaN": 0} {
		s.put(t, "jobs/waiting", value)
		if got, err := read(t.Context(), s.build(t, env, nil, nil)); err != nil || got != want {
			t.Errorf("%s reads as %v, %v; want %v", value, got, err, want)
		}
	}
	for _, value := range []string{"", "7 jobs", " 7"} {
		s.put(t, "jobs/waiting", value)
		if got, err := read(t.Context(), s.build(t, env, nil, nil)); err == nil {
			t.Errorf("%q reads as %v; want an error", value, got)
		}
	}
	_, err := read(t.Context(), s.build(t, env, map[string]string{"watchKey": "none"}, nil))
	if err == nil || !strings.Contains(err.Error(), "watchKey none doesn't exist") {
		t.Errorf("a key that is not there fails with %v", err)
	}
}

func BenchmarkWake(b *testing.B) {
	s := start(b, nil, "")
	env := trigger.Environment{}
	triggertest.Bench(b, &env)
	n := 0
	triggertest.Wakes(b, s.build(b, env, nil, nil), func() {
		n++
		s.put(b, "jobs/waiting", fmt.Sprint(n))
	})
}
