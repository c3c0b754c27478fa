package external

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"ebb.dev/ebb/internal/adapter/trigger"
)

// server is a scaler: one metric, "jobs", with a target of 5, active above 2, unless a test says
// otherwise.
type server struct {
	pb.UnimplementedExternalScalerServer
	address string
	tls     *tls.Config

	mu      sync.Mutex // guards the fields below
	serving *grpc.Server
	specs   []*pb.MetricSpec
	values  map[string][]*pb.MetricValue
	active  bool
	refs    []*pb.ScaledObjectRef
	slow    chan struct{} // closed when answers may go
	fails   codes.Code    // of streams of activity, at once
	ends    bool          // streams of activity end after one message
	opened  int           // streams of activity
	streams map[chan bool]struct{}
	targets chan struct{} // closed when specs change; nil where they are not streamed
}

func start(t testing.TB, config *tls.Config) *server {
	t.Helper()
	s := &server{tls: config, address: "127.0.0.1:0", values: map[string][]*pb.MetricValue{}, streams: map[chan bool]struct{}{}}
	s.specs = []*pb.MetricSpec{{MetricName: "jobs", TargetSize: 5}}
	s.Start(t)
	t.Cleanup(s.Stop)
	return s
}

// Start has it serve, as before Stop.
func (s *server) Start(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	var options []grpc.ServerOption
	if s.tls != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(s.tls)))
	}
	serving := grpc.NewServer(options...)
	pb.RegisterExternalScalerServer(serving, s)
	s.mu.Lock()
	s.serving = serving
	s.mu.Unlock()
	go func() { _ = serving.Serve(l) }()
}

// Stop ends it at once.
func (s *server) Stop() { s.serving.Stop() }

// change changes what it says.
func (s *server) change(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// set has that much work wait.
func (s *server) set(n int) {
	s.change(func() {
		s.values["jobs"] = []*pb.MetricValue{{MetricName: "jobs", MetricValue: int64(n)}}
		s.active = n > 2
	})
	s.push(n > 2)
}

// push tells all streams.
func (s *server) push(active bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for stream := range s.streams {
		stream <- active
	}
}

// retarget changes the metrics.
func (s *server) retarget(specs ...*pb.MetricSpec) {
	s.change(func() {
		s.specs = specs
		if s.targets != nil {
			close(s.targets)
			s.targets = make(chan struct{})
		}
	})
}

func (s *server) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

func (s *server) had() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened
}

// wait takes as long as the test wants.
func (s *server) wait(ctx context.Context, ref *pb.ScaledObjectRef) {
	s.mu.Lock()
	slow := s.slow
	s.refs = append(s.refs, ref)
	s.mu.Unlock()
	if slow != nil {
		select {
		case <-slow:
		case <-ctx.Done():
		}
	}
}

func (s *server) IsActive(ctx context.Context, ref *pb.ScaledObjectRef) (*pb.IsActiveResponse, error) {
	s.wait(ctx, ref)
	s.mu.Lock()
	defer s.mu.Unlock()
	return &pb.IsActiveResponse{Result: s.active}, nil
}

func (s *server) GetMetricSpec(ctx context.Context, ref *pb.ScaledObjectRef) (*pb.GetMetricSpecResponse, error) {
	s.wait(ctx, ref)
	s.mu.Lock()
	defer s.mu.Unlock()
	return &pb.GetMetricSpecResponse{MetricSpecs: s.specs}, nil
}

func (s *server) GetMetrics(ctx context.Context, q *pb.GetMetricsRequest) (*pb.GetMetricsResponse, error) {
	s.wait(ctx, q.GetScaledObjectRef())
	s.mu.Lock()
	defer s.mu.Unlock()
	values, known := s.values[q.GetMetricName()]
	if !known {
		return nil, status.Errorf(codes.NotFound, "there is no metric %q", q.GetMetricName())
	}
	return &pb.GetMetricsResponse{MetricValues: values}, nil
}

func (s *server) StreamIsActive(_ *pb.ScaledObjectRef, to grpc.ServerStreamingServer[pb.IsActiveResponse]) error {
	news := make(chan bool, 1000)
	s.mu.Lock()
	s.opened++
	s.streams[news] = struct{}{}
	code, ends := s.fails, s.ends
	s.mu.Unlock()
	defer s.change(func() { delete(s.streams, news) })
	if code != codes.OK {
		return status.Error(code, "not now")
	}
	for {
		select {
		case <-to.Context().Done():
			return nil
		case active := <-news:
			if err := to.Send(&pb.IsActiveResponse{Result: active}); err != nil || ends {
				return err
			}
		}
	}
}

func (s *server) StreamMetricSpec(ref *pb.ScaledObjectRef, to grpc.ServerStreamingServer[pb.GetMetricSpecResponse]) error {
	for {
		s.mu.Lock()
		specs, changed := s.specs, s.targets
		s.mu.Unlock()
		if changed == nil {
			return s.UnimplementedExternalScalerServer.StreamMetricSpec(ref, to)
		}
		if err := to.Send(&pb.GetMetricSpecResponse{MetricSpecs: specs}); err != nil {
			return err
		}
		select {
		case <-to.Context().Done():
			return nil
		case <-changed:
		}
	}
}

// config is a trigger's.
func config(env trigger.Environment, metadata, auth map[string]string) trigger.Config {
	c := trigger.Config{Environment: env}
	c.TriggerType, c.TriggerIndex = "external-push", 3
	c.ScalableObjectName, c.ScalableObjectNamespace, c.ScalableObjectType = "subject", "default", "ScaledObject"
	c.TriggerMetadata, c.AuthParams, c.ResolvedEnv = metadata, auth, map[string]string{}
	return c
}

// push makes a trigger of type external-push.
func push(t testing.TB, env trigger.Environment, address string) *pusher {
	t.Helper()
	made, err := NewPush(config(env, map[string]string{"scalerAddress": address}, nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	return made.(*pusher)
}

// eventually waits until a check holds.
func eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !check() {
		select {
		case <-deadline:
			t.Fatalf("it does not come about that %s", what)
		case <-tick.C:
		}
	}
}

// watch returns the times at which a trigger wakes.
func watch(t testing.TB, by trigger.Pusher) <-chan time.Time {
	t.Helper()
	woken := make(chan time.Time, 1000)
	t.Cleanup(by.Watch(trigger.Idle, func() { woken <- time.Now() }))
	return woken
}

// wake waits for one.
func wake(t testing.TB, woken <-chan time.Time) time.Time {
	t.Helper()
	select {
	case at := <-woken:
		return at
	case <-time.After(20 * time.Second):
		t.Fatal("nobody told of anything")
		return time.Time{}
	}
}
