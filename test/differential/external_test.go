package differential

import (
	"context"
	"net"
	"sync"
	"testing"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

// A said is what an external scaler says.
type said struct {
	pb.UnimplementedExternalScalerServer

	mu     sync.Mutex // guards the fields below
	specs  []*pb.MetricSpec
	values []*pb.MetricValue
	active bool
	fails  map[string]bool
}

func (s *said) now(method string) error {
	if s.fails[method] {
		return status.Error(codes.Unavailable, "not now")
	}
	return nil
}

func (s *said) IsActive(context.Context, *pb.ScaledObjectRef) (*pb.IsActiveResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &pb.IsActiveResponse{Result: s.active}, s.now("IsActive")
}

// GetMetricSpec names its metric after a parameter, if there is such a one.
func (s *said) GetMetricSpec(_ context.Context, ref *pb.ScaledObjectRef) (*pb.GetMetricSpecResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	specs := s.specs
	if name := ref.GetScalerMetadata()["metric"]; name != "" {
		specs = []*pb.MetricSpec{{MetricName: name + ref.GetScalerMetadata()["moreFromEnv"] + ref.GetName() + ref.GetNamespace(), TargetSize: int64(len(ref.GetScalerMetadata()))}}
	}
	return &pb.GetMetricSpecResponse{MetricSpecs: specs}, s.now("GetMetricSpec")
}

func (s *said) GetMetrics(_ context.Context, q *pb.GetMetricsRequest) (*pb.GetMetricsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	values := s.values
	if len(s.specs) > 1 { // by name
		values = nil
		for _, v := range s.values {
			if v.GetMetricName() == q.GetMetricName() {
				values = append(values, v)
			}
		}
	}
	return &pb.GetMetricsResponse{MetricValues: values}, s.now("GetMetrics")
}

func serve(t *testing.T, s *said, options ...grpc.ServerOption) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	pb.RegisterExternalScalerServer(server, s)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

func TestExternal(t *testing.T) {
	covers(t, "external", "external-push")
	for _, kind := range []string{"external", "external-push"} {
		t.Run(kind, func(t *testing.T) { external(t, kind) })
	}
}

func external(t *testing.T, kind string) {
	t.Helper()
	s := &said{specs: []*pb.MetricSpec{{MetricName: "jobs", TargetSize: 5}}}
	address := serve(t, s)
	set := func(change func()) func(*testing.T) {
		return func(*testing.T) {
			s.mu.Lock()
			defer s.mu.Unlock()
			change()
		}
	}
	value := func(n int64, f float64, active bool) func(*testing.T) {
		return set(func() {
			s.values, s.active = []*pb.MetricValue{{MetricName: "jobs", MetricValue: n, MetricValueFloat: f}}, active
		})
	}
	specs := func(specs ...*pb.MetricSpec) func(*testing.T) { return set(func() { s.specs = specs }) }
	failing := func(methods ...string) func(*testing.T) {
		return set(func() {
			s.fails = map[string]bool{}
			for _, method := range methods {
				s.fails[method] = true
			}
		})
	}
	own, other := process.Certify(t), process.Certify(t)
	tls := serve(t, s, grpc.Creds(credentials.NewTLS(own.Server(t, ""))))
	mutual := serve(t, s, grpc.Creds(credentials.NewTLS(own.Server(t, own.CA))))
	compare(t, subject{
		Type: kind, Metadata: map[string]string{"scalerAddress": address, "target": "7"}, Where: []string{"scalerAddress"},
		Refused: []string{"scalerAddress", "enableTLS=maybe", "unsafeSsl=maybe"},
		Try:     map[string][]string{"enableTLS": {"false"}, "unsafeSsl": {"false"}, "metric": {"a/b.c"}},
	},
		state{name: "none", set: value(0, 0, false), want: "0"},
		state{name: "some that do not count", set: value(2, 0, false), want: "2"},
		state{name: "some", set: value(3, 0, true), want: "3"},
		state{name: "none that count", set: value(0, 0, true), want: "0"},
		state{name: "a part", set: value(3, 2.5, true), want: "2.500"},
		state{name: "a part that is nothing", set: value(3, -1, true), want: "3"},
		state{name: "less than nothing", set: value(-3, 0, true), want: "0"},
		state{name: "no values", set: set(func() { s.values = nil }), want: ""},
		state{name: "two values", set: set(func() {
			s.values = []*pb.MetricValue{{MetricName: "jobs", MetricValue: 3}, {MetricName: "x", MetricValue: 4}}
		}), want: "3 4"},
		state{name: "a target in parts", set: specs(&pb.MetricSpec{MetricName: "jobs", TargetSize: 5, TargetSizeFloat: 0.25})},
		state{name: "no target", set: specs(&pb.MetricSpec{MetricName: "jobs"})},
		state{name: "an odd name", set: specs(&pb.MetricSpec{MetricName: "a/b:c.d", TargetSize: 5})},
		state{name: "no name", set: specs(&pb.MetricSpec{TargetSize: 5})},
		state{name: "two metrics", set: specs(&pb.MetricSpec{MetricName: "jobs", TargetSize: 5}, &pb.MetricSpec{MetricName: "x", TargetSize: 6}), want: "3 4"},
		state{name: "three metrics", set: specs(&pb.MetricSpec{MetricName: "jobs", TargetSize: 5}, &pb.MetricSpec{MetricName: "x"}, &pb.MetricSpec{MetricName: "none"})},
		state{name: "no metrics", set: specs()},
		state{name: "what it is told", set: specs(&pb.MetricSpec{MetricName: "jobs", TargetSize: 5}), over: map[string]string{
			"metric": "m", "moreFromEnv": "V", "noneFromEnv": "N", "env V": "v",
		}},
		state{name: "no values now", set: failing("GetMetrics"), want: fails},
		state{name: "no activity now", set: failing("IsActive"), want: fails},
		state{name: "no metrics now", set: failing("GetMetricSpec")},
		state{name: "TLS", set: failing(), over: map[string]string{"scalerAddress": tls, "enableTLS": "true", "auth caCert": own.CA}, want: "3 4"},
		state{name: "TLS by a certificate", over: map[string]string{"scalerAddress": tls, "auth caCert": own.CA}, want: ""},
		state{name: "TLS of a stranger", over: map[string]string{"scalerAddress": tls, "enableTLS": "true", "auth caCert": other.CA}},
		state{name: "TLS of anybody", over: map[string]string{"scalerAddress": tls, "enableTLS": "true", "unsafeSsl": "true"}, want: "3 4"},
		state{name: "TLS of both", over: map[string]string{
			"scalerAddress": mutual, "enableTLS": "true", "auth caCert": own.CA, "auth tlsClientCert": own.Cert, "auth tlsClientKey": own.Key,
		}, want: "3 4"},
		state{name: "a certificate that is none", over: map[string]string{"auth caCert": own.CA, "auth tlsClientCert": "x", "auth tlsClientKey": "y"}},
		state{name: "TLS where there is none", over: map[string]string{"enableTLS": "true"}},
		state{name: "by DNS", over: map[string]string{"scalerAddress": "dns:///" + address}, want: "3 4"},
		state{name: "nobody there", over: map[string]string{"scalerAddress": "127.0.0.1:" + process.Port(t)}},
	)
}
