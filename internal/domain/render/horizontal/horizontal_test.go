package horizontal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

var deployments = kedav1alpha1.GroupVersionKindResource{Group: "apps", Version: "v1", Kind: "Deployment", Resource: "deployments"}

func object() *kedav1alpha1.ScaledObject {
	return &kedav1alpha1.ScaledObject{
		ObjectMeta: metav1.ObjectMeta{
			Name: "orders", Namespace: "shop", UID: "so-uid",
			Labels: map[string]string{kedav1alpha1.ScaledObjectOwnerAnnotation: "orders", "team": "blue", "secret": "x"},
		},
		Spec: kedav1alpha1.ScaledObjectSpec{ScaleTargetRef: &kedav1alpha1.ScaleTarget{Name: "worker"}},
	}
}

func external(name, value string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: name},
		Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: new(resource.MustParse(value))},
	}}
}

func cpu() autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name:   corev1.ResourceCPU,
		Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: new(int32(60))},
	}}
}

func memoryOf(container string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ContainerResourceMetricSourceType, ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
		Name: corev1.ResourceMemory, Container: container,
		Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: new(resource.MustParse("100Mi"))},
	}}
}

func TestObject(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*kedav1alpha1.ScaledObject)
		specs  []autoscalingv2.MetricSpec
		golden string
	}{
		"with nothing said, upstream's name, labels and bounds": {
			specs: []autoscalingv2.MetricSpec{external("s0-cron", "1")}, golden: "plain.yaml",
		},
		"metrics are in the order of their types, externals with the selector": {
			specs:  []autoscalingv2.MetricSpec{cpu(), external("s1-redis-jobs", "5"), memoryOf("main"), external("s3-cron", "1")},
			golden: "metrics.yaml",
		},
		"a formula stands for all but the pods' resources": {
			change: func(so *kedav1alpha1.ScaledObject) {
				so.Spec.Advanced = &kedav1alpha1.AdvancedConfig{ScalingModifiers: kedav1alpha1.ScalingModifiers{
					Formula: "a + b", Target: "2.5", MetricType: autoscalingv2.ValueMetricType,
				}}
			},
			specs:  []autoscalingv2.MetricSpec{cpu(), external("s1-redis-jobs", "5"), memoryOf("main")},
			golden: "formula.yaml",
		},
		"configured name, bounds, behaviour, paused directions, annotations and excluded labels show": {
			change: func(so *kedav1alpha1.ScaledObject) {
				so.Annotations = map[string]string{
					kedav1alpha1.ScaledObjectExcludedLabelsAnnotation: "secret,other",
					kedav1alpha1.PausedScaleInAnnotation:              "true",
					kedav1alpha1.PausedScaleOutAnnotation:             "yes",
				}
				so.Labels["app.kubernetes.io/part-of"] = "the-shop"
				so.Spec.MinReplicaCount, so.Spec.MaxReplicaCount = new(int32(2)), new(int32(9))
				so.Spec.Advanced = &kedav1alpha1.AdvancedConfig{HorizontalPodAutoscalerConfig: &kedav1alpha1.HorizontalPodAutoscalerConfig{
					Name: strings.Repeat("n", 61) + "-.tail",
					Behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{
						ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: new(int32(30))},
					},
				}}
			},
			specs: []autoscalingv2.MetricSpec{external("s0-cron", "1")}, golden: "full.yaml",
		},
	} {
		t.Run(name, func(t *testing.T) {
			so := object()
			if tt.change != nil {
				tt.change(so)
			}
			before := so.DeepCopy()
			metrics, err := Assemble(so, tt.specs)
			if err != nil {
				t.Fatal(err)
			}
			got := Object(so, deployments, metrics.Specs)
			raw, err := os.ReadFile(filepath.Join("testdata", tt.golden))
			if err != nil {
				t.Fatal(err)
			}
			var want autoscalingv2.HorizontalPodAutoscaler
			if err := yaml.UnmarshalStrict(raw, &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&want, got); diff != "" {
				t.Errorf("object (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, so); diff != "" {
				t.Errorf("the scaled object was changed:\n%s", diff)
			}
			if Differs(got, &want) {
				t.Error("it differs from itself")
			}
		})
	}
}

func TestAssembleNames(t *testing.T) {
	so := object()
	specs := []autoscalingv2.MetricSpec{external("s0-cron", "1"), cpu()}
	m, err := Assemble(so, specs)
	if err != nil {
		t.Fatal(err)
	}
	want := Metrics{Specs: m.Specs, External: []string{"s0-cron"}, Resource: []string{"cpu"}}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
	if specs[0].External.Metric.Selector != nil {
		t.Error("the trigger's spec was changed")
	}
	so.Spec.Advanced = &kedav1alpha1.AdvancedConfig{ScalingModifiers: kedav1alpha1.ScalingModifiers{Formula: "a", Target: "3"}}
	m, err = Assemble(so, specs)
	if err != nil || m.Composite != "composite-metric" || cmp.Diff([]string{"s0-cron"}, m.External) != "" {
		t.Errorf("with a formula %+v, %v", m, err)
	}
}

func TestAssembleRefuses(t *testing.T) {
	modifiers := object()
	modifiers.Spec.Advanced = &kedav1alpha1.AdvancedConfig{ScalingModifiers: kedav1alpha1.ScalingModifiers{
		Formula: "a", Target: "3", MetricType: autoscalingv2.UtilizationMetricType,
	}}
	for name, tt := range map[string]struct {
		so    *kedav1alpha1.ScaledObject
		specs []autoscalingv2.MetricSpec
		want  string
	}{
		"no metrics": {object(), nil, "no metric specs returned from scalers for ScaledObject shop/orders"},
		"one name twice": {
			object(),
			[]autoscalingv2.MetricSpec{external("s0-x", "1"), external("s0-x", "2")},
			"metricName s0-x defined multiple times in ScaledObject orders",
		},
		"a formula as utilization": {
			modifiers,
			[]autoscalingv2.MetricSpec{external("s0-x", "1")},
			"error metric target type is Utilization, but it needs to be AverageValue or Value for external metrics",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Assemble(tt.so, tt.specs); err == nil || err.Error() != tt.want {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
}

func TestDiffers(t *testing.T) {
	for name, tt := range map[string]struct {
		have func(*autoscalingv2.HorizontalPodAutoscaler)
		want bool
	}{
		"defaults the API server filled in are none": {func(h *autoscalingv2.HorizontalPodAutoscaler) {
			h.Spec.Behavior = filled(h.Spec.Behavior)
		}, false},
		"labels and annotations of others are none": {func(h *autoscalingv2.HorizontalPodAutoscaler) {
			h.Labels["theirs"], h.Annotations["theirs"] = "x", "y"
		}, false},
		"a lost label": {func(h *autoscalingv2.HorizontalPodAutoscaler) { delete(h.Labels, "team") }, true},
		"a former annotation value": {func(h *autoscalingv2.HorizontalPodAutoscaler) {
			h.Annotations[kedav1alpha1.PausedScaleInAnnotation] = "false"
		}, true},
		"a metric more": {func(h *autoscalingv2.HorizontalPodAutoscaler) {
			h.Spec.Metrics = append(h.Spec.Metrics, external("s1-gone", "1"))
		}, true},
		"another bound": {func(h *autoscalingv2.HorizontalPodAutoscaler) { h.Spec.MaxReplicas = 3 }, true},
		"no behaviour":  {func(h *autoscalingv2.HorizontalPodAutoscaler) { h.Spec.Behavior = nil }, true},
		"another owner": {func(h *autoscalingv2.HorizontalPodAutoscaler) { h.OwnerReferences[0].UID = "former" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			so := object()
			so.Annotations = map[string]string{kedav1alpha1.PausedScaleInAnnotation: "true"}
			m, err := Assemble(so, []autoscalingv2.MetricSpec{external("s0-cron", "1")})
			if err != nil {
				t.Fatal(err)
			}
			want := Object(so, deployments, m.Specs)
			have := want.DeepCopy()
			tt.have(have)
			if got := Differs(want, have); got != tt.want {
				t.Errorf("differs: %v, want %v", got, tt.want)
			}
		})
	}
	so := object()
	with, without := Object(so, deployments, nil), Object(so, deployments, nil)
	with.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{}
	if !Differs(without, with) {
		t.Error("a behaviour that is no longer wanted stays")
	}
}
