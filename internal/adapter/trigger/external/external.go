// Package external asks servers of users' own how much work waits. They speak upstream's gRPC service
// ExternalScaler; those of external-push also say so when work comes and when targets change.
package external

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
	"ebb.dev/ebb/internal/platform/telemetry/keda"
)

// patience is how long a server may take to answer all that one Read asks.
const patience = 10 * time.Second

var errLocal = errors.New("scalerAddress is a socket of this machine's; give host:port")

type parameters struct {
	TriggerIndex int

	Address    string `keda:"name=scalerAddress, order=triggerMetadata"`
	EnableTLS  bool   `keda:"name=enableTLS, order=triggerMetadata, optional"`
	Unsafe     bool   `keda:"name=unsafeSsl, order=triggerMetadata, optional"`
	CA         string `keda:"name=caCert, order=authParams, optional"`
	ClientCert string `keda:"name=tlsClientCert, order=authParams, optional"`
	ClientKey  string `keda:"name=tlsClientKey, order=authParams, optional"`
}

// address returns where to connect. As in gRPC's own names, the port is 443 unless it is given.
func (p *parameters) address() (string, error) {
	target := p.Address
	if u, err := url.Parse(target); err == nil {
		switch u.Scheme {
		case "dns", "passthrough":
			target = u.Opaque + strings.TrimPrefix(u.Path, "/")
		case "unix", "unix-abstract":
			return "", errLocal
		}
	}
	if ip := net.ParseIP(target); ip != nil {
		return net.JoinHostPort(target, "443"), nil
	}
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		host, port, err = net.SplitHostPort(target + ":443")
	}
	if err == nil && port == "" {
		err = errors.New("missing port after port-separator colon")
	}
	if err != nil {
		return "", fmt.Errorf("parsing scalerAddress: %w", err)
	}
	if host == "" {
		host = "localhost"
	}
	return net.JoinHostPort(host, port), nil
}

type source struct {
	index   int
	kind    autoscalingv2.MetricTargetType
	address string
	ref     *pb.ScaledObjectRef
	link    *link
	asker   *keda.Asker
	release func()

	mu   sync.Mutex // guards the field below
	said *pb.GetMetricSpecResponse
}

// New makes a trigger of type external.
func New(c trigger.Config) (trigger.Source, error) { return build(c) }

func build(c trigger.Config) (*source, error) {
	var p parameters
	single, err := c.Parameters(&p)
	if err != nil {
		return nil, err
	}
	s := &source{index: c.TriggerIndex, kind: single.Kind, ref: ref(c), asker: c.Asker()}
	if s.address, err = p.address(); err != nil {
		return nil, err
	}
	p.TriggerIndex, p.Address = 0, s.address
	s.link, s.release, err = endpoint.Acquire(c.Shared, fmt.Sprintf("external %#v", p), func() (*link, func(), error) {
		return open(&p, c.Environment)
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// ref is what servers are told of the object: its name and all keys of the trigger, those from
// variables with their values.
func ref(c trigger.Config) *pb.ScaledObjectRef {
	metadata := make(map[string]string, len(c.TriggerMetadata))
	for key, value := range c.TriggerMetadata {
		if strings.HasSuffix(key, "FromEnv") {
			if value = c.ResolvedEnv[value]; value == "" {
				continue
			}
		}
		metadata[key] = value
	}
	return &pb.ScaledObjectRef{Name: c.ScalableObjectName, Namespace: c.ScalableObjectNamespace, ScalerMetadata: metadata}
}

// client asks the server for one metric, or for none in particular.
func (s *source) client(metric string) pb.ExternalScalerClient {
	return pb.NewExternalScalerClient(s.asker.Calls(s.link.conn, metric))
}

// Specs implements trigger.Source: it asks the server.
func (s *source) Specs(ctx context.Context) ([]autoscalingv2.MetricSpec, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	said, err := s.ask(ctx)
	if err != nil {
		return nil, err
	}
	return s.specs(said), nil
}

func (s *source) ask(ctx context.Context) (*pb.GetMetricSpecResponse, error) {
	said, err := s.client("").GetMetricSpec(ctx, s.ref)
	if err != nil {
		return nil, fmt.Errorf("asking the scaler at %s for its metrics: %w", s.address, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = said
	return said, nil
}

func (s *source) specs(said *pb.GetMetricSpecResponse) []autoscalingv2.MetricSpec {
	specs := make([]autoscalingv2.MetricSpec, 0, len(said.GetMetricSpecs()))
	for _, m := range said.GetMetricSpecs() {
		if name := s.metric(m.GetMetricName()); m.GetTargetSizeFloat() > 0 {
			specs = append(specs, trigger.SpecMilli(name, s.kind, m.GetTargetSizeFloat()))
		} else {
			specs = append(specs, trigger.Spec(name, s.kind, m.GetTargetSize()))
		}
	}
	return specs
}

// metric is a metric's name outside of the server, which is taken as it is.
func (s *source) metric(name string) string { return fmt.Sprintf("s%d-%s", s.index, name) }

// known returns which metrics the server has, as it said last.
func (s *source) known(ctx context.Context) (*pb.GetMetricSpecResponse, error) {
	s.mu.Lock()
	said := s.said
	s.mu.Unlock()
	if len(said.GetMetricSpecs()) > 0 {
		return said, nil
	}
	return s.ask(ctx)
}

// Read implements trigger.Source.
func (s *source) Read(ctx context.Context) ([]trigger.Reading, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	known, err := s.known(ctx)
	if err != nil {
		return nil, err
	}
	var readings []trigger.Reading
	for _, m := range known.GetMetricSpecs() {
		got, err := s.client(s.metric(m.GetMetricName())).GetMetrics(ctx, &pb.GetMetricsRequest{ScaledObjectRef: s.ref, MetricName: m.GetMetricName()})
		if err != nil {
			return nil, fmt.Errorf("asking the scaler at %s for %s: %w", s.address, m.GetMetricName(), err)
		}
		readings = append(readings, values(s.metric(m.GetMetricName()), got)...)
	}
	metric := ""
	if specs := known.GetMetricSpecs(); len(specs) > 0 {
		metric = s.metric(specs[0].GetMetricName())
	}
	active, err := s.client(metric).IsActive(ctx, s.ref)
	if err != nil {
		return nil, fmt.Errorf("asking the scaler at %s whether it is active: %w", s.address, err)
	}
	for i := range readings {
		readings[i].Active = active.GetResult()
	}
	return readings, nil
}

// values reads an answer. One without values is zero, so that the trigger can still be active.
func values(metric string, got *pb.GetMetricsResponse) (readings []trigger.Reading) {
	for _, v := range got.GetMetricValues() {
		value := float64(v.GetMetricValue())
		if v.GetMetricValueFloat() > 0 {
			value = v.GetMetricValueFloat()
		}
		readings = append(readings, trigger.Reading{Metric: metric, Value: trigger.Quantity(value)})
	}
	if len(readings) == 0 {
		readings = append(readings, trigger.Reading{Metric: metric})
	}
	return readings
}

// Close implements trigger.Source.
func (s *source) Close() error {
	s.release()
	return nil
}
