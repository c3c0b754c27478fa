package deploy_test

import (
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

func TestHTTPDefinitionsAreUpstreams(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/kedacore/http-add-on").Output()
	if err != nil {
		t.Fatalf("asking for upstream's folder: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "config/crd/bases/*.yaml"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%d of upstream's definitions, want 2: %v", len(files), err)
	}
	all := definitions(t)
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
			if diff := cmp.Diff(bare(t, want.Spec), bare(t, got.Spec)); got.Name != want.Name || diff != "" {
				t.Errorf("definition of %q (-upstream +ebb):\n%s", got.Name, diff)
			}
		})
	}
}

func TestHTTPDefinitionsJudgeObjects(t *testing.T) {
	all := definitions(t)
	const (
		route = "{apiVersion: http.keda.sh/v1beta1, kind: InterceptorRoute, metadata: {name: x}, spec: {target: {service: x, port: 80}, scalingMetric: {concurrency: {targetValue: 1}}"
		old   = "{apiVersion: http.keda.sh/v1alpha1, kind: HTTPScaledObject, metadata: {name: x}, spec: {scaleTargetRef: {name: x, service: x, port: 80}"
	)
	for name, tt := range map[string]struct {
		object string
		want   []string
	}{
		"a route as it should be": {route + ", rules: [{hosts: ['*.example.com'], paths: [{value: /a}], headers: [{name: X-A}, {name: X-B, value: z}]}], " +
			"timeouts: {readiness: 3s, request: 0s}, coldStart: {fallback: {service: {name: side, portName: http}}, placeholder: {response: {body: soon}}}}}", nil},
		"a target of nothing":        {"{apiVersion: http.keda.sh/v1beta1, kind: InterceptorRoute, metadata: {name: x}, spec: {target: {service: x, port: 0}, scalingMetric: {concurrency: {targetValue: 0}}}}", []string{"spec.scalingMetric.concurrency.targetValue", "spec.target.port"}},
		"a status that is none":      {route + ", coldStart: {placeholder: {response: {statusCode: 42}}}}}", []string{"spec.coldStart.placeholder.response.statusCode"}},
		"an object as it should be":  {old + ", hosts: [a.example], replicas: {min: 0, max: 3}, scaledownPeriod: 10, scalingMetric: {requestRate: {targetValue: 2, window: 2m}}}}", nil},
		"a field of an object's new": {old + ", host: a.example}}", []string{"unknown spec.host"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := judge(t, all, documents(t, []byte(tt.object))[0])
			slices.Sort(got)
			if len(got) == 0 {
				got = nil
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}
