package probe

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
)

// grpc asks the standard health service.
func (t Target) grpc(ctx context.Context, a *corev1.GRPCAction) error {
	address := net.JoinHostPort(t.Host, strconv.Itoa(int(a.Port)))
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent(or(t.Agent, "kube-probe/1.36")),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return t.Dial(ctx, "tcp", addr) }))
	if err != nil {
		return fmt.Errorf("building the probe's connection: %w", err)
	}
	defer conn.Close()
	service := ""
	if a.Service != nil {
		service = *a.Service
	}
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		code := status.Code(err)
		if code == codes.Unimplemented {
			return fmt.Errorf("%w: this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", ErrUnhealthy, status.Convert(err).Message())
		}
		if code == codes.DeadlineExceeded || code == codes.Unavailable {
			return fmt.Errorf("%w: timeout: failed to connect service %q: %s", ErrUnhealthy, address, status.Convert(err).Message())
		}
		return fmt.Errorf("%w: rpc error: %w", ErrUnhealthy, err)
	}
	if answer.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("%w: service unhealthy (responded with %q)", ErrUnhealthy, answer.GetStatus())
	}
	return nil
}
