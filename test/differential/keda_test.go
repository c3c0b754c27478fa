package differential

import (
	"context"
	"errors"
	"fmt"

	"github.com/kedacore/keda/v2/pkg/scalers"
	"github.com/kedacore/keda/v2/pkg/scalers/scalersconfig"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/adapter/trigger"
)

// upstream makes KEDA's scaler of a trigger's type.
func upstream(ctx context.Context, c *scalersconfig.ScalerConfig, objects client.Client) (scalers.Scaler, error) {
	switch c.TriggerType {
	case "cpu":
		return scalers.NewCPUMemoryScaler(corev1.ResourceCPU, c)
	case "memory":
		return scalers.NewCPUMemoryScaler(corev1.ResourceMemory, c)
	case "kubernetes-resource":
		return scalers.NewKubernetesResourceScaler(objects, c)
	case "kubernetes-workload":
		return scalers.NewKubernetesWorkloadScaler(objects, c)
	case "metrics-api":
		return scalers.NewMetricsAPIScaler(c, objects)
	case "redis":
		return scalers.NewRedisScaler(ctx, false, false, c)
	case "redis-cluster":
		return scalers.NewRedisScaler(ctx, true, false, c)
	case "redis-sentinel":
		return scalers.NewRedisScaler(ctx, false, true, c)
	case "redis-streams":
		return scalers.NewRedisStreamsScaler(ctx, false, false, c)
	case "redis-cluster-streams":
		return scalers.NewRedisStreamsScaler(ctx, true, false, c)
	case "redis-sentinel-streams":
		return scalers.NewRedisStreamsScaler(ctx, false, true, c)
	}
	if build, ok := connected[c.TriggerType]; ok {
		return build(ctx, c)
	}
	if build, ok := plain[c.TriggerType]; ok {
		return build(c)
	}
	return nil, fmt.Errorf("KEDA's scaler of type %s is not linked", c.TriggerType)
}

// connected are the constructors that may connect.
var connected = map[string]func(context.Context, *scalersconfig.ScalerConfig) (scalers.Scaler, error){
	"apache-kafka": scalers.NewApacheKafkaScaler,
	"kafka":        scalers.NewKafkaScaler,
	"mongodb":      scalers.NewMongoDBScaler,
	"postgresql":   scalers.NewPostgreSQLScaler,
}

var plain = map[string]func(*scalersconfig.ScalerConfig) (scalers.Scaler, error){
	"activemq":       scalers.NewActiveMQScaler,
	"artemis-queue":  scalers.NewArtemisQueueScaler,
	"beanstalkd":     scalers.NewBeanstalkdScaler,
	"cron":           scalers.NewCronScaler,
	"etcd":           scalers.NewEtcdScaler,
	"external":       scalers.NewExternalScaler,
	"graphite":       scalers.NewGraphiteScaler,
	"mysql":          scalers.NewMySQLScaler,
	"nats-jetstream": scalers.NewNATSJetStreamScaler,
	"nsq":            scalers.NewNSQScaler,
	"prometheus":     scalers.NewPrometheusScaler,
	"rabbitmq":       scalers.NewRabbitMQScaler,
	"external-push": func(c *scalersconfig.ScalerConfig) (scalers.Scaler, error) {
		return scalers.NewExternalPushScaler(c)
	},
}

// A scaler is KEDA's, with the methods that a trigger has.
type scaler struct {
	scalers.Scaler
	ctx context.Context // the test's, for Close
}

var errSilent = errors.New("it does not say its metrics")

// Specs does as a trigger's. That a server could not be asked for them shows by their absence only.
func (s scaler) Specs(ctx context.Context) ([]autoscalingv2.MetricSpec, error) {
	specs := s.GetMetricSpecForScaling(ctx)
	if specs == nil {
		return nil, errSilent
	}
	return specs, nil
}

// Read does as a trigger's. Resource metrics are always active, which nobody asks for.
func (s scaler) Read(ctx context.Context) (readings []trigger.Reading, err error) {
	for _, spec := range s.GetMetricSpecForScaling(ctx) {
		if spec.External == nil {
			continue
		}
		values, active, err := s.GetMetricsAndActivity(ctx, spec.External.Metric.Name)
		if err != nil {
			return nil, err
		}
		for _, v := range values {
			readings = append(readings, trigger.Reading{Metric: v.MetricName, Value: v.Value, Active: active})
		}
	}
	return readings, nil
}

// Close does as a trigger's.
func (s scaler) Close() error { return s.Scaler.Close(s.ctx) }

// A cluster is the objects a trigger looks at, as KEDA's scalers read them.
type cluster struct {
	client.Client
	objects trigger.Objects
}

var errKind = errors.New("nothing is known of objects of that kind")

// Get implements client.Reader.
func (c cluster) Get(ctx context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	switch into := into.(type) {
	case *corev1.ConfigMap:
		got, err := c.objects.ConfigMap(ctx, key.Namespace, key.Name)
		if err == nil {
			got.DeepCopyInto(into)
		}
		return err
	case *corev1.Secret:
		got, err := c.objects.Secret(ctx, key.Namespace, key.Name)
		if err == nil {
			got.DeepCopyInto(into)
		}
		return err
	default:
		return errKind
	}
}

// List implements client.Reader.
func (c cluster) List(_ context.Context, into client.ObjectList, options ...client.ListOption) error {
	var o client.ListOptions
	o.ApplyOptions(options)
	switch into := into.(type) {
	case *corev1.PodList:
		pods, err := c.objects.Pods(o.Namespace, o.LabelSelector)
		for _, pod := range pods {
			into.Items = append(into.Items, *pod)
		}
		return err
	case *discoveryv1.EndpointSliceList:
		wanted, exact := o.LabelSelector.RequiresExactMatch(discoveryv1.LabelServiceName)
		if !exact {
			return errKind
		}
		slices, err := c.objects.EndpointSlices(o.Namespace, wanted)
		for _, slice := range slices {
			into.Items = append(into.Items, *slice)
		}
		return err
	default:
		return errKind
	}
}
