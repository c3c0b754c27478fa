package kube

import (
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
)

const (
	namespaceYAML = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"
	roleYAML      = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: reader}\n"
	keptYAML      = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: shop, annotations: {ebb.dev/keep: \"\"}}\n"
)

func TestDecodeReadsEveryDocument(t *testing.T) {
	objects, err := decode([]fs.FS{fstest.MapFS{
		"b.yaml": {Data: []byte("# nothing\n---\n" + roleYAML + "---\n" + keptYAML)},
		"a.yaml": {Data: []byte(namespaceYAML)},
		"note":   {Data: []byte("not a manifest")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range objects {
		got = append(got, o.GetKind()+" "+o.GetName())
	}
	if diff := cmp.Diff([]string{"Namespace shop", "ClusterRole reader", "ConfigMap c"}, got); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	first, rest := split(objects)
	if len(first) != 1 || len(rest) != 2 {
		t.Errorf("%d first, %d then; want the namespace first", len(first), len(rest))
	}
	if _, err := decode([]fs.FS{fstest.MapFS{"x.yaml": {Data: []byte("a: [")}}}); err == nil {
		t.Error("a broken manifest is read")
	}
}

// verbs applies the manifests to a fake API and returns what was asked of it.
func verbs(t *testing.T, client *fake.FakeDynamicClient, manifest string) []string {
	t.Helper()
	client.ClearActions()
	objects, err := documents([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	a := &applier{client: client, pending: map[string]*unstructured.Unstructured{}}
	if err := a.all(t.Context(), objects); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, action := range client.Actions() {
		out = append(out, action.GetVerb())
	}
	return out
}

func TestApplyWritesOnlyWhatChanged(t *testing.T) {
	client := fake.NewSimpleDynamicClient(runtime.NewScheme())
	// The fake applies no patch to what is missing, so it is told to take it as a creation.
	client.PrependReactor("patch", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		patch, ok := action.(clienttesting.PatchAction)
		if !ok {
			return false, nil, nil
		}
		o := &unstructured.Unstructured{}
		if err := o.UnmarshalJSON(patch.GetPatch()); err != nil {
			return true, nil, err
		}
		tracker := client.Tracker()
		_ = tracker.Delete(action.GetResource(), action.GetNamespace(), o.GetName())
		return true, o, tracker.Create(action.GetResource(), o, action.GetNamespace())
	})
	steps := []struct {
		what, manifest string
		want           []string
	}{
		{"a new one is applied", roleYAML, []string{"get", "patch"}},
		{"the same is left", roleYAML, []string{"get"}},
		{"a changed one is applied", roleYAML + "rules: []\n", []string{"get", "patch"}},
		{"a kept one is created", keptYAML, []string{"get", "create"}},
		{"and never written again", keptYAML + "data: {a: b}\n", []string{"get"}},
	}
	for _, step := range steps {
		if diff := cmp.Diff(step.want, verbs(t, client, step.manifest)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.what, diff)
		}
	}
}

func TestServedNeedsTheCondition(t *testing.T) {
	crd := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"conditions": []any{
		map[string]any{"type": "NamesAccepted", "status": "True"},
	}}}}
	if served(crd) {
		t.Error("a definition that is not established counts as served")
	}
	conditions := []any{map[string]any{"type": "Established", "status": "True"}}
	if err := unstructured.SetNestedSlice(crd.Object, conditions, "status", "conditions"); err != nil {
		t.Fatal(err)
	}
	if !served(crd) {
		t.Error("an established definition does not count as served")
	}
}

func TestSchemeKnowsServing(t *testing.T) {
	s := Scheme()
	for _, gvk := range []schema.GroupVersionKind{
		{Group: "serving.knative.dev", Version: "v1", Kind: "Service"},
		{Group: "serving.knative.dev", Version: "v1beta1", Kind: "DomainMapping"},
		{Group: "autoscaling.internal.knative.dev", Version: "v1alpha1", Kind: "PodAutoscaler"},
		{Group: "networking.internal.knative.dev", Version: "v1alpha1", Kind: "ServerlessService"},
		{Group: "apps", Version: "v1", Kind: "Deployment"},
	} {
		if !s.Recognizes(gvk) {
			t.Errorf("scheme does not know %s", gvk)
		}
	}
}
