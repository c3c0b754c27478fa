package export

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// collectorPatience bounds one delivery by HTTP; gRPC's exporters bound themselves.
const collectorPatience = 10 * time.Second

// grpcPort is OTLP's, for endpoints that name none.
const grpcPort = "4317"

// target is where OTLP by HTTP goes: to the endpoint's path, or to the usual one if it has none.
// The exporters differ in what they do then, from one version to the next.
func target(u *url.URL, usual string) string {
	if u.Path == "" {
		u = u.JoinPath(usual)
	}
	return u.String()
}

// client speaks HTTP to a collector.
func (e *Exporter) client() *http.Client {
	return &http.Client{Timeout: collectorPatience, Transport: &http.Transport{
		DialContext: e.config.Dial, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 1, IdleConnTimeout: 2 * time.Minute,
	}}
}

// connection speaks gRPC to a collector; it connects when first used, and again when it broke.
func (e *Exporter) connection(u *url.URL) (*grpc.ClientConn, error) {
	secured := insecure.NewCredentials()
	if u.Scheme == "https" {
		secured = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	address := net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), grpcPort))
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(secured),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return e.config.Dial(ctx, "tcp", addr) }))
	if err != nil {
		return nil, fmt.Errorf("preparing a connection to %s: %w", address, err)
	}
	return conn, nil
}
