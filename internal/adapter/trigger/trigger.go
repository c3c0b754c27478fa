// Package trigger is the family of sources of demand: each tells how much work waits somewhere, and
// says so when that may have changed. KEDA calls them scalers; types, parameters, metric names and
// values are KEDA's.
//
// A Source is made once for each trigger of a ScaledObject or ScaledJob and asked from then on.
// Making one checks its parameters and does no I/O: a server that is down is an error of Read, and
// the next Read may succeed. What several Sources need of one server (connections, pollers,
// subscriptions) they share by Environment.Shared.
//
// Implementations live in folders of their own, all pass triggertest.Run, and are listed in all.
package trigger

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/kedacore/keda/v2/pkg/scalers/scalersconfig"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
	"ebb.dev/ebb/internal/platform/telemetry/keda"
)

// ErrMetricType says that a trigger was given a metricType it cannot have.
var ErrMetricType = errors.New("'Utilization' metric type is unsupported for external metrics, allowed values are 'Value' or 'AverageValue'")

// A Build makes a Source. It checks the parameters and does no I/O.
type Build func(Config) (Source, error)

// Config is a trigger as its object has it, with everything it refers to resolved.
//
// Parameters are read by the embedded ScalerConfig's TypedConfig into a struct with `keda` tags, so
// that names, order of look-up, defaults and messages are upstream's.
type Config struct {
	scalersconfig.ScalerConfig
	Environment
	// Metric names the first of the Source's Specs, once it told them; nil if nobody wants to know.
	Metric func() string
}

// Environment is what all Sources of a process have.
type Environment struct {
	// Dial opens connections. It knows the cluster's names as well as the machine's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS is what each client's configuration is cloned from: the oldest version and the authorities
	// that are trusted. Nil means Go's defaults.
	TLS *tls.Config
	// NoKeepAlive has each HTTP request have a connection of its own.
	NoKeepAlive bool
	// Objects are the cluster's, for triggers that count or read them.
	Objects Objects
	// Routes are those to Services, for triggers that count their requests.
	Routes Routes
	// Shared holds what Sources have in common.
	Shared *endpoint.Pool
	// Requests counts what is asked of servers; nil if nothing does.
	Requests *keda.Requests
	Log      *slog.Logger
}

// A Source tells how much work waits. Its methods may be called from several goroutines at once.
type Source interface {
	// Specs are the metrics it provides, named s<index>-…, with their targets, as they stand in a
	// HorizontalPodAutoscaler. Sources that are told them by a server (external) ask it; all others
	// answer from memory.
	Specs(ctx context.Context) ([]autoscalingv2.MetricSpec, error)
	// Read asks the source once for all its metrics. Resource metrics are not read: the
	// HorizontalPodAutoscaler does that itself, and Read returns none.
	Read(ctx context.Context) ([]Reading, error)
	// Close lets go of what the Source holds. No other method may be called afterwards.
	Close() error
}

// A Reading is the value of one metric at the moment it was asked for.
type Reading struct {
	Metric string // as in Specs
	Value  resource.Quantity
	// Active tells that work waits: the value is above the activation threshold.
	Active bool
}

// A Pusher is a Source that says when to read it again, without taking any work away.
type Pusher interface {
	Source
	// Watch has wake called after each change that may alter a Reading, until stop is called. It
	// returns at once; wake does not block and comes from any goroutine, at most a few hundred times
	// a second. A hint that was lost (a broken connection) is made up for by a wake once it is whole
	// again. stop returns when no wake comes any more, or soon after.
	Watch(mode Mode, wake func()) (stop func())
}

// A Mode says which changes matter to the one who watches.
type Mode int

// The modes.
const (
	// Idle: nothing waits and nothing runs; any sign of work matters at once.
	Idle Mode = iota
	// Active: work was there at the last Read; more of it matters soon, less of it can wait.
	Active
)

// A Respecifier is a Source whose Specs change by themselves.
type Respecifier interface {
	Source
	// WatchSpecs has changed called after Specs would answer otherwise, until stop is called.
	WatchSpecs(changed func()) (stop func())
}

// External returns how the trigger's value is compared with its target; AverageValue when the
// trigger does not say.
func (c *Config) External() (autoscalingv2.MetricTargetType, error) {
	switch c.MetricType {
	case autoscalingv2.UtilizationMetricType:
		return "", ErrMetricType
	case "":
		return autoscalingv2.AverageValueMetricType, nil
	default:
		return c.MetricType, nil
	}
}

// Name returns the name of a metric of the trigger with that index: "s0-redis-list".
func Name(index int, metric string) string { return fmt.Sprintf("s%d-%s", index, normal(metric)) }

// Spec returns an external metric with a whole number as target.
func Spec(name string, kind autoscalingv2.MetricTargetType, target int64) autoscalingv2.MetricSpec {
	return spec(name, kind, *resource.NewQuantity(target, resource.DecimalSI))
}

// SpecMilli returns an external metric with a target of up to three decimals.
func SpecMilli(name string, kind autoscalingv2.MetricTargetType, target float64) autoscalingv2.MetricSpec {
	return spec(name, kind, Quantity(target))
}

// Timeout is how long one HTTP request of the trigger may take.
func (c *Config) Timeout() time.Duration {
	if c.GlobalHTTPTimeout > 0 {
		return c.GlobalHTTPTimeout
	}
	return 3 * time.Second
}

// HTTP returns what the trigger's client needs to ask over HTTP. A timeout of 0 is everybody's.
func (c *Config) HTTP(timeout time.Duration) endpoint.HTTPConfig {
	if timeout <= 0 {
		timeout = c.Timeout()
	}
	return endpoint.HTTPConfig{Dial: c.Dial, TLS: c.TLS, NoKeepAlive: c.NoKeepAlive, Timeout: timeout, Asked: c.Asker().HTTP}
}

// Asker is the trigger in the eyes of whoever counts what it asks.
func (c *Config) Asker() *keda.Asker {
	return &keda.Asker{
		Object: types.NamespacedName{Namespace: c.ScalableObjectNamespace, Name: c.ScalableObjectName}, Kind: c.ScalableObjectType,
		Type: c.TriggerType, Name: c.TriggerName, Metric: c.Metric, Requests: c.Requests,
	}
}
