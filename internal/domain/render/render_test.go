package render_test

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	apisconfig "knative.dev/serving/pkg/apis/config"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"knative.dev/serving/pkg/deployment"
	"sigs.k8s.io/yaml"

	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/domain/render/readiness"
)

var update = flag.Bool("update", false, "write the golden files")

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// golden compares an object's YAML with a file of testdata.
func golden(t *testing.T, name string, object any) {
	t.Helper()
	got, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name+".yaml")
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// service is a Service as admission leaves it.
func service(t *testing.T, change func(*servingv1.Service)) *servingv1.Service {
	t.Helper()
	svc := &servingv1.Service{ObjectMeta: metav1.ObjectMeta{
		Name: "hello", Namespace: "shop", UID: "service-uid", Generation: 3,
		Labels: map[string]string{"team": "green"},
		Annotations: map[string]string{
			"serving.knative.dev/creator":          "ada",
			"serving.knative.dev/lastModifier":     "bob",
			"serving.knative.dev/rollout-duration": "60s",
			corev1.LastAppliedConfigAnnotation:     "{}",
			"example.com/note":                     "kept",
		},
	}}
	svc.Spec.Template.Annotations = map[string]string{"autoscaling.knative.dev/min-scale": "2", "example.com/pod": "kept"}
	svc.Spec.Template.Labels = map[string]string{"tier": "web"}
	svc.Spec.Template.Spec.Containers = []corev1.Container{{Image: "example.com/hello:v1", Env: []corev1.EnvVar{{Name: "TARGET", Value: "World"}}}}
	if change != nil {
		change(svc)
	}
	svc.SetDefaults(t.Context())
	return svc
}

func revisionOf(svc *servingv1.Service) *servingv1.Revision {
	cfg := render.Configuration(svc, nil)
	cfg.UID, cfg.Generation = "configuration-uid", svc.Generation
	rev := render.Revision(cfg, noon)
	rev.UID = "revision-uid"
	for _, c := range rev.Spec.Containers {
		rev.Status.ContainerStatuses = append(rev.Status.ContainerStatuses, servingv1.ContainerStatus{Name: c.Name, ImageDigest: "example.com/hello@sha256:abc"})
	}
	return rev
}

func cluster(t *testing.T) render.Cluster {
	t.Helper()
	d, err := deployment.NewConfigFromMap(map[string]string{deployment.QueueSidecarImageKey: "none"})
	if err != nil {
		t.Fatal(err)
	}
	defaults, err := apisconfig.NewDefaultsConfigFromMap(nil)
	if err != nil {
		t.Fatal(err)
	}
	features, err := apisconfig.NewFeaturesConfigFromMap(nil)
	if err != nil {
		t.Fatal(err)
	}
	return render.Cluster{Deployment: d, Defaults: defaults, Features: features}
}

func TestServiceBecomesConfigurationAndRoute(t *testing.T) {
	svc := service(t, nil)
	golden(t, "configuration", render.Configuration(svc, nil))
	golden(t, "route", render.Route(svc))
}

func TestConfigurationBecomesRevision(t *testing.T) {
	golden(t, "revision", revisionOf(service(t, nil)))
}

func TestRevisionBecomesDeployment(t *testing.T) {
	tests := map[string]func(*servingv1.Service){
		"deployment": nil,
		"deployment-probes": func(svc *servingv1.Service) {
			c := &svc.Spec.Template.Spec.Containers[0]
			c.Ports = []corev1.ContainerPort{{Name: "h2c", ContainerPort: 9000}}
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready"}}}
			c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}}}
			c.StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{}}}
		},
		"deployment-helper": func(svc *servingv1.Service) {
			containers := &svc.Spec.Template.Spec.Containers
			(*containers)[0].Ports = []corev1.ContainerPort{{ContainerPort: 8888}}
			*containers = append(*containers, corev1.Container{Name: "helper", Image: "example.com/helper:v1"})
			svc.Spec.Template.Annotations["serving.knative.dev/progress-deadline"] = "90s"
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			d, err := render.Deployment(revisionOf(service(t, change)), cluster(t), 2)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, d)
		})
	}
}

func TestRouteBecomesIngress(t *testing.T) {
	route := render.Route(service(t, nil))
	route.UID = "route-uid"
	golden(t, "ingress", render.Ingress(route, render.IngressPlan{
		Class: "some.class", Rollout: "{}", Option: netv1alpha1.HTTPOptionEnabled, TagHeader: true,
		Hosts: []render.Host{
			{
				Public: []string{"hello.shop.localhost", "hello.shop.127.0.0.1.sslip.io"}, Local: []string{"hello.shop.svc.cluster.local", "hello.shop.svc", "hello.shop"},
				Backends: []render.Backend{{Revision: "hello-00001", Percent: 99, H2C: true}, {Revision: "hello-00002", Percent: 1}},
			},
			{Tag: "inner", Local: []string{"inner-hello.shop.svc.cluster.local"}, Backends: []render.Backend{{Revision: "hello-00002", Percent: 100}}},
		},
	}))
}

func TestDeploymentHashChangesOnlyWithWhatRuns(t *testing.T) {
	const label = "serving.knative.dev/deployment-hash"
	hash := func(change func(*servingv1.Revision), replicas int32) string {
		rev := revisionOf(service(t, nil))
		if change != nil {
			change(rev)
		}
		d, err := render.Deployment(rev, cluster(t), replicas)
		if err != nil {
			t.Fatal(err)
		}
		return d.Labels[label]
	}
	base := hash(nil, 1)
	same := map[string]string{
		"other replicas": hash(nil, 7),
		"another route":  hash(func(r *servingv1.Revision) { r.Annotations["serving.knative.dev/routes"] = "a,b" }, 1),
		"reserve":        hash(func(r *servingv1.Revision) { r.SetRoutingState(servingv1.RoutingStateReserve, noon.Add(time.Hour)) }, 1),
		"other scale":    hash(func(r *servingv1.Revision) { r.Annotations["autoscaling.knative.dev/max-scale"] = "9" }, 1),
	}
	for name, got := range same {
		if got != base {
			t.Errorf("%s: the hash changed", name)
		}
	}
	if hash(func(r *servingv1.Revision) { r.Spec.Containers[0].Args = []string{"x"} }, 1) == base {
		t.Error("another argument: the hash stayed")
	}
}

func TestRevisionHasAPodAutoscalerAndRouteAService(t *testing.T) {
	golden(t, "podautoscaler", render.PodAutoscaler(revisionOf(service(t, nil)), v1alpha1.ReachabilityReachable, "kpa.autoscaling.knative.dev"))
	route := render.Route(service(t, nil))
	route.UID = "route-uid"
	golden(t, "placeholder", render.Placeholder(route, "now-hello", "gateway.ebb-system.svc.cluster.local"))
}

func TestPodAutoscalerHasWhatToolsLookFor(t *testing.T) {
	rev := revisionOf(service(t, func(svc *servingv1.Service) {
		maps.Copy(svc.Spec.Template.Annotations, map[string]string{
			"autoscaling.knative.dev/class": "hpa.autoscaling.knative.dev", "autoscaling.knative.dev/target": "50",
			"autoscaling.knative.dev/window": "20s",
		})
	}))
	pa := render.PodAutoscaler(rev, v1alpha1.ReachabilityReachable, "kpa.autoscaling.knative.dev")
	pa.UID = "autoscaler-uid"
	golden(t, "horizontalpodautoscaler", render.HorizontalPodAutoscaler(pa, 2, 0))
	golden(t, "metric", render.Metric(pa, time.Minute, 6*time.Second, render.PrivateServiceName(rev.Name)))
	golden(t, "image", render.Images(rev)[0])
	sks := render.ServerlessService(pa, netv1alpha1.SKSOperationModeProxy, 3)
	sks.UID = "serverless-uid"
	golden(t, "serverlessservice", sks)
	golden(t, "service-public", render.PublicService(sks, "gateway.ebb-system.svc.cluster.local"))
	golden(t, "service-private", render.PrivateService(sks, map[string]string{"serving.knative.dev/revisionUID": "revision-uid"}, 8080))
	golden(t, "endpointslice", render.PublicSlice(sks, []discoveryv1.Endpoint{{Addresses: []string{"10.64.255.1"}}}, render.ActivatorPort(sks.Spec.ProtocolType)))
}

func TestMetricsOfAHorizontalPodAutoscaler(t *testing.T) {
	tests := map[string]struct{ metric, target, want string }{
		"a share of CPU":             {"cpu", "74.5", "Resource cpu 75%"},
		"mebibytes":                  {"memory", "200", "Resource memory 200Mi"},
		"anything else":              {"queue-length", "12", "Pods queue-length 12"},
		"no target, so Kubernetes'":  {"cpu", "", ""},
		"no metric, so the CPU":      {"", "80", "Resource cpu 80%"},
		"requests a second by a pod": {"rps", "10", "Pods rps 10"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rev := revisionOf(service(t, func(svc *servingv1.Service) {
				notes := svc.Spec.Template.Annotations
				notes["autoscaling.knative.dev/class"] = "hpa.autoscaling.knative.dev"
				if tt.metric != "" {
					notes["autoscaling.knative.dev/metric"] = tt.metric
				}
				if tt.target != "" {
					notes["autoscaling.knative.dev/target"] = tt.target
				}
			}))
			h := render.HorizontalPodAutoscaler(render.PodAutoscaler(rev, "", ""), 0, 0)
			if *h.Spec.MinReplicas != 1 || h.Spec.MaxReplicas != math.MaxInt32 {
				t.Errorf("bounds %d to %d", *h.Spec.MinReplicas, h.Spec.MaxReplicas)
			}
			got := ""
			for _, m := range h.Spec.Metrics {
				switch {
				case m.Pods != nil:
					got = fmt.Sprintf("%s %s %s", m.Type, m.Pods.Metric.Name, m.Pods.Target.AverageValue)
				case m.Resource.Target.AverageUtilization != nil:
					got = fmt.Sprintf("%s %s %d%%", m.Type, m.Resource.Name, *m.Resource.Target.AverageUtilization)
				default:
					got = fmt.Sprintf("%s %s %s", m.Type, m.Resource.Name, m.Resource.Target.AverageValue)
				}
			}
			if got != tt.want {
				t.Errorf("aims at %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRoutesAreListedSorted(t *testing.T) {
	notes := map[string]string{"serving.knative.dev/routes": "b,c"}
	tests := map[string]struct {
		route  string
		listed bool
		want   string
	}{
		"a new one":     {"a", true, "a,b,c"},
		"a known one":   {"c", true, "b,c"},
		"one that left": {"b", false, "c"},
		"a stranger":    {"x", false, "b,c"},
	}
	for name, tt := range tests {
		if got := render.WithRoute(notes, tt.route, tt.listed); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestTemplateMayNameItsRevision(t *testing.T) {
	cfg := render.Configuration(service(t, func(s *servingv1.Service) { s.Spec.Template.Name = "hello-blue" }), nil)
	if got := render.RevisionName(cfg); got != "hello-blue" {
		t.Errorf("name %q", got)
	}
}

func TestReadinessProbesBecomeWhatAPodMayHave(t *testing.T) {
	base := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Host: "elsewhere", Scheme: "http", Port: intstr.FromInt32(8077)}}
	command := corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/ready"}}}
	tests := map[string]struct {
		probe  corev1.Probe
		detect bool
		want   string // the annotation
	}{
		"without period":           {corev1.Probe{ProbeHandler: base}, false, `{"user-container":{"aggressive":true}}`},
		"with a period":            {corev1.Probe{ProbeHandler: base, PeriodSeconds: 3}, false, ""},
		"a command, and listening": {corev1.Probe{ProbeHandler: command}, false, `{"user-container":{"port":8080}}`},
		"HTTP/2 to be found out":   {corev1.Probe{ProbeHandler: base, PeriodSeconds: 3}, true, `{"user-container":{"http2":true}}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := cluster(t)
			if tt.detect {
				c.Features.AutoDetectHTTP2 = apisconfig.Enabled
			}
			rev := revisionOf(service(t, func(svc *servingv1.Service) {
				svc.Spec.Template.Spec.Containers[0].ReadinessProbe = tt.probe.DeepCopy()
			}))
			d, err := render.Deployment(rev, c, 1)
			if err != nil {
				t.Fatal(err)
			}
			if got := d.Spec.Template.Annotations[readiness.Annotation]; got != tt.want {
				t.Errorf("annotation %q, want %q", got, tt.want)
			}
			if get := d.Spec.Template.Spec.Containers[0].ReadinessProbe.HTTPGet; get != nil && (get.Host != "" || get.Scheme != corev1.URISchemeHTTP || get.Port.IntVal != 8077) {
				t.Errorf("request %+v, want HTTP to the pod's own port 8077", get)
			}
		})
	}
}

func TestHTTP2IsFoundOutWhereNothingSaysIt(t *testing.T) {
	for port, want := range map[string]bool{"": true, "h2c": false, "http1": false} {
		rev := revisionOf(service(t, func(svc *servingv1.Service) {
			svc.Spec.Template.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: port, ContainerPort: 8080}}
		}))
		c := cluster(t)
		if render.DetectsHTTP2(rev, c.Features) {
			t.Errorf("port %q: found out although the cluster does not ask for it", port)
		}
		c.Features.AutoDetectHTTP2 = apisconfig.Enabled
		if got := render.DetectsHTTP2(rev, c.Features); got != want {
			t.Errorf("port %q: %v, want %v", port, got, want)
		}
	}
}

func TestClusterSettingsReachThePod(t *testing.T) {
	settings := func(keys map[string]string) render.Cluster {
		c := cluster(t)
		keys[deployment.QueueSidecarImageKey] = "none"
		d, err := deployment.NewConfigFromMap(keys)
		if err != nil {
			t.Fatal(err)
		}
		c.Deployment = d
		return c
	}
	const classes = "plain: {}\nstrong: {selector: {tier: web}}\nother: {selector: {tier: batch}}\n"
	tests := map[string]struct {
		keys    map[string]string
		change  func(*servingv1.Service)
		class   string
		spreads bool
	}{
		"nothing set":                  {map[string]string{}, nil, "", true},
		"no affinity":                  {map[string]string{"default-affinity-type": "none"}, nil, "", false},
		"the class whose labels match": {map[string]string{"runtime-class-name": classes}, nil, "strong", true},
		"the class for all": {map[string]string{"runtime-class-name": classes}, func(svc *servingv1.Service) {
			svc.Spec.Template.Labels = nil
		}, "plain", true},
		"what the revision itself says": {map[string]string{"runtime-class-name": classes}, func(svc *servingv1.Service) {
			mine := "mine"
			svc.Spec.Template.Spec.RuntimeClassName, svc.Spec.Template.Spec.Affinity = &mine, &corev1.Affinity{}
		}, "mine", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			spec := render.PodSpec(revisionOf(service(t, tt.change)), settings(tt.keys))
			class := ""
			if spec.RuntimeClassName != nil {
				class = *spec.RuntimeClassName
			}
			spreads := spec.Affinity != nil && spec.Affinity.PodAntiAffinity != nil
			if class != tt.class || spreads != tt.spreads {
				t.Errorf("class %q, spread %v, want %q, %v", class, spreads, tt.class, tt.spreads)
			}
		})
	}
}
