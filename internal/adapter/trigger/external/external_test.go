package external

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

func subject(t *testing.T, s *server, kind string, build trigger.Build) triggertest.Subject {
	return triggertest.Subject{
		Type: kind, Build: build,
		Metadata: map[string]string{"scalerAddress": s.address},
		Metric:   "jobs", Target: "5",
		Required: []string{"scalerAddress"},
		Wrong:    map[string]string{"enableTLS": "perhaps", "unsafeSsl": "2", "scalerAddress": "unix:/run/scaler"},
		Set:      func(_ *testing.T, n int) { s.set(n) },
		Break:    func(*testing.T) { s.Stop() },
		Repair:   func(t *testing.T) { s.Start(t) },
		Down:     map[string]string{"scalerAddress": "127.0.0.1:" + process.Port(t)},
		Within:   300 * time.Millisecond,
	}
}

func TestExternal(t *testing.T) { triggertest.Run(t, subject(t, start(t, nil), "external", New)) }

func TestExternalPush(t *testing.T) {
	triggertest.Run(t, subject(t, start(t, nil), "external-push", NewPush))
}

func TestTLS(t *testing.T) {
	own, other := process.Certify(t), process.Certify(t)
	for name, test := range map[string]struct {
		clients  string
		metadata map[string]string
		auth     map[string]string
		refused  bool
	}{
		"a server by its authority":              {auth: map[string]string{"caCert": own.CA}},
		"not by another authority":               {auth: map[string]string{"caCert": other.CA}, refused: true},
		"not by none":                            {metadata: map[string]string{"enableTLS": "true"}, refused: true},
		"any server":                             {metadata: map[string]string{"enableTLS": "true", "unsafeSsl": "true"}},
		"not without TLS":                        {metadata: map[string]string{"unsafeSsl": "true"}, refused: true},
		"a client that the server knows":         {clients: other.CA, auth: map[string]string{"caCert": own.CA, "tlsClientCert": other.Cert, "tlsClientKey": other.Key}},
		"a client's certificate alone means TLS": {clients: other.CA, metadata: map[string]string{"unsafeSsl": "true"}, auth: map[string]string{"tlsClientCert": other.Cert, "tlsClientKey": other.Key}},
		"no client that the server does not":     {clients: other.CA, auth: map[string]string{"caCert": own.CA, "tlsClientCert": own.Cert, "tlsClientKey": own.Key}, refused: true},
		"no client without a certificate":        {clients: other.CA, auth: map[string]string{"caCert": own.CA}, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, own.Server(t, test.clients))
			s.set(3)
			metadata := map[string]string{"scalerAddress": s.address}
			maps.Copy(metadata, test.metadata)
			made, err := New(config(triggertest.Environment(t), metadata, test.auth))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = made.Close() }()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if _, err := made.Read(ctx); (err != nil) != test.refused {
				t.Errorf("Read() fails with %v; want a failure: %v", err, test.refused)
			}
		})
	}
}

func TestWrongCertificatesAreRefusedWithoutBeingTold(t *testing.T) {
	c := process.Certify(t)
	for name, auth := range map[string]map[string]string{
		"an authority that is none": {"caCert": "hunter2"},
		"a key that is none":        {"tlsClientCert": c.Cert, "tlsClientKey": "hunter2"},
	} {
		made, err := New(config(triggertest.Environment(t), map[string]string{"scalerAddress": "scaler:80"}, auth))
		if err == nil {
			_ = made.Close()
			t.Errorf("a trigger was made with %s", name)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error tells a secret: %v", err)
		}
	}
}

func TestAddresses(t *testing.T) {
	for given, want := range map[string]string{
		"scaler.ns:9090":                 "scaler.ns:9090",
		"scaler.ns":                      "scaler.ns:443",
		"10.0.0.1:80":                    "10.0.0.1:80",
		"10.0.0.1":                       "10.0.0.1:443",
		"::1":                            "[::1]:443",
		"[::1]:80":                       "[::1]:80",
		"[::1]":                          "[::1]:443",
		":80":                            "localhost:80",
		"dns:scaler:80":                  "scaler:80",
		"dns:///scaler:80":               "scaler:80",
		"dns://10.0.0.10/scaler.ns.svc":  "scaler.ns.svc:443",
		"passthrough:///scaler:80":       "scaler:80",
		"scaler:":                        "",
		"scaler:80:90":                   "",
		"unix:///run/containerd.sock":    "",
		"unix-abstract:containerd":       "",
		"scaler.ns.svc.cluster.local:50": "scaler.ns.svc.cluster.local:50",
	} {
		p := parameters{Address: given}
		if got, err := p.address(); got != want || (err != nil) != (want == "") {
			t.Errorf("%s leads to %q, %v; want %q", given, got, err, want)
		}
	}
}

func TestServersAreToldOfTheObject(t *testing.T) {
	s := start(t, nil)
	s.set(1)
	c := config(triggertest.Environment(t), map[string]string{
		"scalerAddress": s.address, "query": "up", "tokenFromEnv": "TOKEN", "noneFromEnv": "NONE", "emptyFromEnv": "EMPTY",
	}, nil)
	c.ResolvedEnv = map[string]string{"TOKEN": "t0ken", "EMPTY": ""}
	made, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = made.Close() }()
	if _, err := made.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := &pb.ScaledObjectRef{Name: "subject", Namespace: "default", ScalerMetadata: map[string]string{
		"scalerAddress": s.address, "query": "up", "tokenFromEnv": "t0ken",
	}}
	var refs []*pb.ScaledObjectRef
	s.change(func() { refs = s.refs })
	if len(refs) != 3 {
		t.Errorf("it was asked %d times; want once for specs, value and activity each", len(refs))
	}
	for _, got := range refs {
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("it was told (-want +got):\n%s", diff)
		}
	}
}

func TestMetricsAreAsTheServerHasThem(t *testing.T) {
	s := start(t, nil)
	s.retarget(
		&pb.MetricSpec{MetricName: "a/b.c", TargetSize: 7},
		&pb.MetricSpec{MetricName: "both", TargetSize: 7, TargetSizeFloat: 2.5},
		&pb.MetricSpec{MetricName: "negative", TargetSize: 4, TargetSizeFloat: -1},
		&pb.MetricSpec{MetricName: "none"},
	)
	s.change(func() {
		s.active = true
		s.values = map[string][]*pb.MetricValue{
			"a/b.c":    {{MetricName: "other", MetricValue: 7}, {MetricValue: 8}},
			"both":     {{MetricValue: 7, MetricValueFloat: 1.25}},
			"negative": {{MetricValue: 3, MetricValueFloat: -2}},
			"none":     nil,
		}
	})
	made, err := New(config(triggertest.Environment(t), map[string]string{"scalerAddress": s.address}, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = made.Close() }()
	specs, err := made.Specs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := targets(specs), []string{"s3-a/b.c 7", "s3-both 2.5", "s3-negative 4", "s3-none 0"}; !slices.Equal(got, want) {
		t.Errorf("targets are %v; want %v", got, want)
	}
	readings, err := made.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range readings {
		got = append(got, fmt.Sprintf("%s %v %v", r.Metric, r.Value.AsApproximateFloat64(), r.Active))
	}
	want := []string{"s3-a/b.c 7 true", "s3-a/b.c 8 true", "s3-both 1.25 true", "s3-negative 3 true", "s3-none 0 true"}
	if !slices.Equal(got, want) {
		t.Errorf("readings are %v; want %v", got, want)
	}
}

func targets(specs []autoscalingv2.MetricSpec) (out []string) {
	for _, spec := range specs {
		out = append(out, fmt.Sprintf("%s %v", spec.External.Metric.Name, spec.External.Target.AverageValue.AsApproximateFloat64()))
	}
	return out
}

func TestASlowServerDelaysNobodyElse(t *testing.T) {
	slow, quick, env := start(t, nil), start(t, nil), triggertest.Environment(t)
	slow.change(func() { slow.slow = make(chan struct{}) })
	quick.set(1)
	one, other := push(t, env, slow.address), push(t, env, quick.address)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := one.Read(ctx); status.Code(errors.Unwrap(err)) != codes.DeadlineExceeded {
		t.Errorf("Read() of a slow server fails with %v; want its context's end", err)
	}
	if _, err := other.Read(t.Context()); err != nil {
		t.Error(err)
	}
	answered := make(chan error)
	go func() {
		_, err := one.Read(t.Context())
		answered <- err
	}()
	slow.set(1)
	close(slow.slow)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestTriggersShareAConnection(t *testing.T) {
	s := start(t, nil)
	s.set(1)
	relay := process.NewRelay(t, s.address)
	env := triggertest.Environment(t)
	var made []*pusher
	for range 50 {
		p := push(t, env, relay.Address)
		if _, err := p.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
		watch(t, p)
		made = append(made, p)
	}
	eventually(t, "all have a stream", func() bool { return s.open() == len(made) })
	if n := relay.Accepted(); n != 1 {
		t.Errorf("%d triggers made %d connections", len(made), n)
	}
	apart, err := New(config(env, map[string]string{"scalerAddress": relay.Address, "unsafeSsl": "true"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = apart.Close() }()
	if env.Shared.Len() != 2 {
		t.Error("triggers that trust differently share a connection")
	}
}

func TestNothingIsLeftOfConnections(t *testing.T) {
	s := start(t, nil)
	s.set(1)
	relay := process.NewRelay(t, s.address)
	p := push(t, triggertest.Environment(t), relay.Address)
	woken := watch(t, p)
	relay.Churn(t, func(ctx context.Context) error {
		for len(woken) > 0 {
			<-woken
		}
		_, err := p.Read(ctx)
		return err
	})
	eventually(t, "there is one stream", func() bool { return s.open() == 1 })
}

func BenchmarkWake(b *testing.B) {
	s := start(b, nil)
	env := trigger.Environment{Log: slog.New(slog.DiscardHandler)}
	triggertest.Bench(b, &env)
	n := 0
	triggertest.Wakes(b, push(b, env, s.address), func() {
		n = 3 - n
		s.set(n)
	})
}
