package deploy_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
)

// kedaFolder is where the module this repository is built with keeps its files.
func kedaFolder(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/kedacore/keda/v2").Output()
	if err != nil {
		t.Fatalf("asking for upstream's folder: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func TestKedaDefinitionsAreUpstreams(t *testing.T) {
	all := definitions(t)
	files, err := filepath.Glob(filepath.Join(kedaFolder(t), "config/crd/bases/*.yaml"))
	if err != nil || len(files) != 6 {
		t.Fatalf("%d of upstream's definitions, want 6: %v", len(files), err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var want apiextensionsv1.CustomResourceDefinition
		if err := utilyaml.Unmarshal(raw, &want); err != nil {
			t.Fatal(err)
		}
		t.Run(want.Name, func(t *testing.T) {
			got := all[want.Spec.Group+"/"+want.Spec.Names.Kind].crd
			if got.Name != want.Name {
				t.Fatalf("name %q", got.Name)
			}
			if diff := cmp.Diff(bare(t, want.Spec), bare(t, got.Spec)); diff != "" {
				t.Errorf("definition (-upstream +ebb):\n%s", diff)
			}
		})
	}
}

// bare returns a definition without what only people read, and without what is looser here.
func bare(t *testing.T, spec apiextensionsv1.CustomResourceDefinitionSpec) any {
	t.Helper()
	raw, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return strip(out, false)
}

// strip drops descriptions of schemas; names tells that the keys of the node are fields' names.
func strip(node any, names bool) any {
	switch n := node.(type) {
	case []any:
		for i := range n {
			n[i] = strip(n[i], false)
		}
	case map[string]any:
		if _, isText := n["description"].(string); isText && !names {
			delete(n, "description")
		}
		for key, child := range n {
			if key == "metadata" && names {
				if fields, ok := child.(map[string]any)["properties"].(map[string]any); ok && fields["finalizers"] != nil {
					delete(child.(map[string]any), "x-kubernetes-preserve-unknown-fields")
				}
			}
			n[key] = strip(child, key == "properties" && !names)
		}
	}
	return node
}

func TestKedaDefinitionsTakeUpstreamsExamples(t *testing.T) {
	all := definitions(t)
	files, err := filepath.Glob(filepath.Join(kedaFolder(t), "config/samples/*_v1alpha1_*.yaml"))
	if err != nil || len(files) != 6 {
		t.Fatalf("%d of upstream's examples, want 6: %v", len(files), err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range documents(t, raw) {
			problems := judge(t, all, object)
			if object["kind"] == "ScaledJob" { // whose template is left for the reader to fill in
				problems = slices.DeleteFunc(problems, func(p string) bool { return p == "spec.jobTargetRef.template" })
			}
			if len(problems) > 0 {
				t.Errorf("%s: %v", filepath.Base(file), problems)
			}
		}
	}
}

func TestKedaDefinitionsJudgeObjects(t *testing.T) {
	all := definitions(t)
	const (
		job  = "{apiVersion: keda.sh/v1alpha1, kind: ScaledJob, metadata: {name: x}, spec: {triggers: [{type: cron, metadata: {start: a}}], jobTargetRef: {parallelism: 2, template: "
		so   = "{apiVersion: keda.sh/v1alpha1, kind: ScaledObject, metadata: {name: x}, spec: {scaleTargetRef: {name: x}, triggers: [{type: cron, metadata: {start: a}}], "
		auth = "{apiVersion: keda.sh/v1alpha1, kind: TriggerAuthentication, metadata: {name: x}, spec: {podIdentity: {provider: "
	)
	tests := map[string]struct {
		object string
		want   []string
	}{
		"a Job's pod is kept whole": {job + "{metadata: {labels: {a: b}, annotations: {c: d}, creationTimestamp: null}, spec: {restartPolicy: Never, schedulingGates: [{name: g}], " +
			"volumes: [{name: v, ephemeral: {volumeClaimTemplate: {metadata: {labels: {a: b}}, spec: {accessModes: [ReadWriteOnce]}}}}], " +
			"containers: [{name: c, image: i, lifecycle: {preStop: {sleep: {seconds: 1}}}, resizePolicy: [{resourceName: cpu, restartPolicy: NotRequired}]}]}}}}}", nil},
		"a field no pod has":                {job + "{spec: {containers: [{name: c, imagee: i}]}}}}}", []string{"unknown spec.jobTargetRef.template.spec.containers[0].imagee"}},
		"bounds below zero":                 {so + "idleReplicaCount: -1}}", []string{"spec.idleReplicaCount"}},
		"a way to fall back nobody knows":   {so + "fallback: {failureThreshold: 1, replicas: 1, behavior: guess}}}", []string{"spec.fallback.behavior"}},
		"an identity provider nobody knows": {auth + "nobody}}}", []string{"spec.podIdentity.provider"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := judge(t, all, documents(t, []byte(tt.object))[0])
			if len(got) == 0 {
				got = nil
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}
