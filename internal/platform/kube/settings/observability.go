package settings

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"knative.dev/pkg/observability/metrics"
	"knative.dev/pkg/observability/tracing"
	"knative.dev/serving/pkg/observability"
)

const observabilityName = "config-observability"

// Observability is config-observability: upstream's fields, checked for what can be done here.
type Observability struct{ *observability.Config }

// parseObservability also refuses what upstream would find out when a part starts: here that would
// be a change that silently does nothing.
func parseObservability(m *corev1.ConfigMap) (*Observability, error) {
	c, err := observability.NewFromMap(m.Data)
	if err != nil {
		return nil, err
	}
	return &Observability{c}, errors.Join(
		checkMetrics("metrics", c.Metrics), checkMetrics("request-metrics", c.RequestMetrics), checkTracing(c.Tracing),
	)
}

// LogURL is the place of a revision's logs, empty when no template is set.
func (o *Observability) LogURL(uid string) string {
	return strings.ReplaceAll(o.LoggingURLTemplate, "${REVISION_UID}", uid)
}

// Structured says that the request log has no template of the user's: its lines are JSON.
func (o *Observability) Structured() bool {
	return o.RequestLogTemplate == observability.DefaultRequestLogTemplate
}

func checkMetrics(key string, c metrics.Config) error {
	var err error
	switch c.Protocol {
	case metrics.ProtocolPrometheus:
		err = checkListener(c.Endpoint)
	case metrics.ProtocolGRPC, metrics.ProtocolHTTPProtobuf:
		_, err = Collector(c.Endpoint)
	}
	if err != nil {
		return fmt.Errorf("%s-endpoint: %w", key, err)
	}
	return nil
}

func checkTracing(c tracing.Config) error {
	switch c.Protocol {
	case tracing.ProtocolGRPC, tracing.ProtocolHTTPProtobuf:
		if _, err := Collector(c.Endpoint); err != nil {
			return fmt.Errorf("tracing-endpoint: %w", err)
		}
	}
	return nil
}

// Collector reads the endpoint of an OTLP collector. Without a scheme it is https, as upstream has it.
func Collector(endpoint string) (*url.URL, error) {
	u, err := url.Parse(endpoint)
	if err == nil && u.Opaque != "" {
		u, err = url.Parse("https://" + endpoint)
	}
	if err != nil {
		return nil, err
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return nil, fmt.Errorf("%q is no URL such as http://collector.observability.svc:4317", endpoint)
	}
	return u, nil
}

// lowestPort is the first that upstream lets a Prometheus listener have.
const lowestPort = 1024

// checkListener says whether metrics can be offered at an endpoint: at a port of ebb's node, or of this
// machine's loopback. No other address of this machine is ever opened.
func checkListener(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	host, text, err := net.SplitHostPort(endpoint)
	if err != nil {
		return err
	}
	if port, err := strconv.ParseUint(text, 10, 16); err != nil || port < lowestPort {
		return fmt.Errorf("%q: the port must be a number from %d to 65535", endpoint, lowestPort)
	}
	if ip, err := netip.ParseAddr(host); host != "" && host != "localhost" && (err != nil || !ip.IsUnspecified() && !ip.IsLoopback()) {
		return fmt.Errorf("%q: the host must be left out, which offers metrics inside the cluster, or be a loopback address", endpoint)
	}
	return nil
}
