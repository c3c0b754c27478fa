package metricsapi

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"
)

// objects is what a test's cluster holds.
type objects struct {
	pods  []*corev1.Pod
	nodes []*corev1.Node
}

func (o objects) Pods(namespace string, s labels.Selector) (out []*corev1.Pod, _ error) {
	for _, p := range o.pods {
		if (namespace == "" || p.Namespace == namespace) && s.Matches(labels.Set(p.Labels)) {
			out = append(out, p)
		}
	}
	return out, nil
}

func (o objects) Nodes(s labels.Selector) (out []*corev1.Node, _ error) {
	for _, n := range o.nodes {
		if s.Matches(labels.Set(n.Labels)) {
			out = append(out, n)
		}
	}
	return out, nil
}

func pod(namespace, name string, uid types.UID, l map[string]string, running ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uid, Labels: l}}
	p.Status.Phase = corev1.PodRunning
	for _, c := range running {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: c, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}})
	}
	return p
}

func newTestServer(t *testing.T) *rest.Config {
	t.Helper()
	handler, err := New(Config{
		Sources: []Source{&busy{started: time.Now().Add(-time.Hour), milli: 250}},
		Objects: objects{
			pods: []*corev1.Pod{
				pod("default", "p", "uid-p", map[string]string{"app": "a"}, "c"),
				pod("default", "half", "uid-p", map[string]string{"app": "half"}, "c", "starting"),
				pod("default", "unmeasured", "uid-q", map[string]string{"app": "b"}, "c"),
			},
			nodes: []*corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "here"}}, {ObjectMeta: metav1.ObjectMeta{Name: "elsewhere"}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL, QPS: -1}
}

func TestPodsAreFoundBySelector(t *testing.T) {
	cases := map[string]struct {
		namespace string
		options   metav1.ListOptions
		want      []string
	}{
		"everywhere":              {"", metav1.ListOptions{}, []string{"p"}},
		"by label":                {"default", metav1.ListOptions{LabelSelector: "app=a"}, []string{"p"}},
		"by name":                 {"default", metav1.ListOptions{FieldSelector: "metadata.name=p"}, []string{"p"}},
		"in another namespace":    {"other", metav1.ListOptions{}, nil},
		"with a container amiss":  {"default", metav1.ListOptions{LabelSelector: "app=half"}, nil},
		"not measured yet":        {"default", metav1.ListOptions{LabelSelector: "app=b"}, nil},
		"by a name there is none": {"default", metav1.ListOptions{FieldSelector: "metadata.name=x"}, nil},
	}
	for _, contentType := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		cfg := newTestServer(t)
		cfg.ContentType = contentType
		client, err := metricsclient.NewForConfig(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range cases {
			t.Run(name+" in "+contentType, func(t *testing.T) {
				list, err := client.MetricsV1beta1().PodMetricses(c.namespace).List(t.Context(), c.options)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for i := range list.Items {
					got = append(got, list.Items[i].Name)
				}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestUsageIsTold(t *testing.T) {
	client, err := metricsclient.NewForConfig(newTestServer(t))
	if err != nil {
		t.Fatal(err)
	}
	p, err := client.MetricsV1beta1().PodMetricses("default").Get(t.Context(), "p", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cpu, memory := p.Containers[0].Usage.Cpu().MilliValue(), p.Containers[0].Usage.Memory().String()
	if cpu < 249 || cpu > 251 || memory != "64Mi" || p.Window.Duration < shortWindow {
		t.Errorf("the pod uses %dm and %s over %v", cpu, memory, p.Window.Duration)
	}
	nodes, err := client.MetricsV1beta1().NodeMetricses().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 || nodes.Items[0].Name != "here" {
		t.Errorf("nodes: %v, %v", nodes, err)
	}
	if _, err := client.MetricsV1beta1().NodeMetricses().Get(t.Context(), "elsewhere", metav1.GetOptions{}); err == nil {
		t.Error("a node without figures was found")
	}
}

func TestDiscoveryAndTables(t *testing.T) {
	cfg := newTestServer(t)
	d, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	resources, err := d.ServerResourcesForGroupVersion(v1beta1.SchemeGroupVersion.String())
	if err != nil || len(resources.APIResources) != 2 {
		t.Errorf("discovery: %v, %v", resources, err)
	}
	if paths, err := d.OpenAPIV3().Paths(); err != nil || paths["apis/metrics.k8s.io/v1beta1"] == nil {
		t.Errorf("schemas: %v, %v", paths, err)
	}
	for _, path := range []string{"/apis/metrics.k8s.io/v1beta1/pods", "/apis/metrics.k8s.io/v1beta1/nodes/here"} {
		answer, err := d.RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if table := string(answer); !strings.Contains(table, `"kind":"Table"`) || !strings.Contains(table, `"64Mi"`) {
			t.Errorf("table of %s: %s", path, answer)
		}
	}
}
