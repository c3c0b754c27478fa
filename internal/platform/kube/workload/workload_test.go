package workload

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	"sigs.k8s.io/yaml"
)

const objects = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: plain, namespace: default}
spec: {template: {metadata: {labels: {app: plain}}, spec: {serviceAccountName: worker, containers: [{name: first}, {name: second, env: [{name: A, value: "1"}]}]}}}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: hello, namespace: default}
spec: {template: {spec: {containerConcurrency: 3, timeoutSeconds: 30, containers: [{image: hello, env: [{name: A, value: "1"}]}]}}}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: borrowed, namespace: default}
spec: {workloadRef: {apiVersion: apps/v1, kind: Deployment, name: plain}}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: dangling, namespace: default}
spec: {workloadRef: {apiVersion: apps/v1, kind: Deployment, name: none}}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: other, namespace: default}
spec: {template: a text}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: empty, namespace: default}
spec: {template: {spec: {containers: []}}}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: wrong, namespace: default}
spec: {template: {spec: {containers: 3}}}
`

var (
	deployment = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}
	service    = schema.GroupVersionKind{Group: "serving.knative.dev", Version: "v1", Kind: "Service"}
	rollout    = schema.GroupVersionKind{Group: "argoproj.io", Version: "v1alpha1", Kind: "Rollout"}
)

func reader(t *testing.T) *Reader {
	t.Helper()
	mapper := meta.NewDefaultRESTMapper(nil)
	lists := map[schema.GroupVersionResource]string{}
	for _, kind := range []schema.GroupVersionKind{deployment, service, rollout} {
		mapper.Add(kind, meta.RESTScopeNamespace)
		lists[kind.GroupVersion().WithResource(strings.ToLower(kind.Kind)+"s")] = kind.Kind + "List"
	}
	var all []runtime.Object
	for text := range strings.SplitSeq(objects, "---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return NewReader(fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), lists, all...), mapper)
}

func TestTemplate(t *testing.T) {
	r := reader(t)
	for what, tt := range map[string]struct {
		kind            schema.GroupVersionKind
		name, container string
		want            string // the container
		none            bool
	}{
		"a deployment's first container":       {kind: deployment, name: "plain", want: "first"},
		"the container that is asked for":      {kind: deployment, name: "plain", container: "second", want: "second"},
		"a Knative service's":                  {kind: service, name: "hello"},
		"that of the workload it refers to":    {kind: rollout, name: "borrowed", want: "first"},
		"something else that is called so":     {kind: rollout, name: "other", none: true},
		"an object without containers, or any": {kind: rollout, name: "empty", none: true},
	} {
		t.Run(what, func(t *testing.T) {
			template, container, err := r.Template(t.Context(), "default", tt.kind, tt.name, tt.container)
			if err != nil || (template == nil) != tt.none || container != tt.want {
				t.Errorf("%v, %q, %v", template, container, err)
			}
		})
	}
	template, _, err := r.Template(t.Context(), "default", deployment, "plain", "")
	if err != nil || template.Spec.ServiceAccountName != "worker" || template.Labels["app"] != "plain" || template.Spec.Containers[1].Env[0].Value != "1" {
		t.Errorf("%v, %v: want all of the template", template, err)
	}
}

func TestWhatHasNoTemplate(t *testing.T) {
	r := reader(t)
	for what, tt := range map[string]struct {
		kind    schema.GroupVersionKind
		name    string
		missing bool
	}{
		"an object that is not there":                 {kind: deployment, name: "none", missing: true},
		"a reference to one that is not there":        {kind: rollout, name: "dangling", missing: true},
		"a kind that is not there":                    {kind: schema.GroupVersionKind{Group: "a", Version: "v1", Kind: "None"}, name: "x"},
		"a template that is not of a template's kind": {kind: rollout, name: "wrong"},
	} {
		t.Run(what, func(t *testing.T) {
			if _, _, err := r.Template(t.Context(), "default", tt.kind, tt.name, ""); err == nil || apierrors.IsNotFound(err) != tt.missing {
				t.Errorf("error %v", err)
			}
		})
	}
}
