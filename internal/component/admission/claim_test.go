package admission_test

import (
	"encoding/json"
	"maps"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func TestNewScaledObjectsAreMarked(t *testing.T) {
	s := kedaServer(t, nil)
	for manifest, want := range map[string]map[string]string{
		"{metadata: {name: orders}}": {"scaledobject.keda.sh/name": "orders"},
		"{metadata: {name: orders, labels: {a: b, scaledobject.keda.sh/name: former}}}": {"a": "b", "scaledobject.keda.sh/name": "orders"},
		"{metadata: {name: orders, labels: {scaledobject.keda.sh/name: orders}}}":       {"scaledobject.keda.sh/name": "orders"},
		"{metadata: {generateName: orders-}}":                                           nil,
	} {
		sent, err := yaml.YAMLToJSON([]byte(manifest))
		if err != nil {
			t.Fatal(err)
		}
		answer := ask(t, s, "/keda-claim", request(t, admissionv1.Create, "", manifest, ""))
		after := sent
		if len(answer.Patch) > 0 {
			patch, err := jsonpatch.DecodePatch(answer.Patch)
			if err != nil {
				t.Fatal(err)
			}
			if after, err = patch.Apply(sent); err != nil {
				t.Fatal(err)
			}
		}
		var got metav1.PartialObjectMetadata
		if err := json.Unmarshal(after, &got); err != nil {
			t.Fatal(err)
		}
		if !answer.Allowed || !maps.Equal(got.Labels, want) {
			t.Errorf("%s: allowed %t, became %s", manifest, answer.Allowed, after)
		}
	}
}
