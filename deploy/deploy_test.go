package deploy_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"ebb.dev/ebb/deploy"
)

// definition is one custom resource definition, ready to judge objects.
type definition struct {
	crd        apiextensionsv1.CustomResourceDefinition
	structural *schema.Structural
	validator  validation.SchemaValidator
}

// definitions reads the embedded definitions by group and kind.
func definitions(t *testing.T) map[string]definition {
	t.Helper()
	out := map[string]definition{}
	manifests, err := deploy.Manifests()
	if err != nil {
		t.Fatal(err)
	}
	for _, fsys := range manifests {
		names, err := fs.Glob(fsys, "*.yaml")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			raw, err := fs.ReadFile(fsys, name)
			if err != nil {
				t.Fatal(err)
			}
			var crd apiextensionsv1.CustomResourceDefinition
			if err := utilyaml.Unmarshal(raw, &crd); err != nil || crd.Kind != "CustomResourceDefinition" {
				continue // several documents, or another kind
			}
			out[crd.Spec.Group+"/"+crd.Spec.Names.Kind] = newDefinition(t, crd)
		}
	}
	return out
}

func newDefinition(t *testing.T, crd apiextensionsv1.CustomResourceDefinition) definition {
	t.Helper()
	var internal apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(crd.Spec.Versions[0].Schema.OpenAPIV3Schema, &internal, nil); err != nil {
		t.Fatal(err)
	}
	structural, err := schema.NewStructural(&internal)
	if err != nil {
		t.Fatalf("%s is not structural: %v", crd.Name, err)
	}
	if errs := schema.ValidateStructural(field.NewPath("schema"), structural); len(errs) > 0 {
		t.Fatalf("%s is not structural: %v", crd.Name, errs.ToAggregate())
	}
	validator, _, err := validation.NewSchemaValidator(&internal)
	if err != nil {
		t.Fatal(err)
	}
	return definition{crd, structural, validator}
}

// judge returns what the definitions have against an object: fields they do not know, and values
// they refuse.
func judge(t *testing.T, all map[string]definition, object map[string]any) []string {
	t.Helper()
	group, _, _ := strings.Cut(object["apiVersion"].(string), "/")
	d, ok := all[group+"/"+object["kind"].(string)]
	if !ok {
		t.Fatalf("no definition for %v %v", object["apiVersion"], object["kind"])
	}
	problems := []string{}
	pruned := runtime.DeepCopyJSON(object)
	for _, path := range pruning.PruneWithOptions(pruned, d.structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}) {
		problems = append(problems, "unknown "+path)
	}
	for _, err := range validation.ValidateCustomResource(nil, object, d.validator) {
		problems = append(problems, err.Field)
	}
	return problems
}

func documents(t *testing.T, raw []byte) []map[string]any {
	t.Helper()
	var out []map[string]any
	dec := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(raw), 4096)
	for {
		var object map[string]any
		if err := dec.Decode(&object); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, object)
	}
}

func TestDefinitionsTakeWhatServingTakes(t *testing.T) {
	all := definitions(t)
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range documents(t, raw) {
			if problems := judge(t, all, object); len(problems) > 0 {
				t.Errorf("%s: %s: %v", file, object["kind"], problems)
			}
		}
	}
}

func TestDefinitionsRefuseMistakesByField(t *testing.T) {
	all := definitions(t)
	const head = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: x}\nspec: {template: {spec: "
	tests := map[string]struct {
		spec string
		want []string
	}{
		"a field nobody knows":                     {"{containers: [{image: i, portz: 1}]}", []string{"unknown spec.template.spec.containers[0].portz"}},
		"a port of letters":                        {"{containers: [{image: i, ports: [{containerPort: abc}]}]}", []string{"spec.template.spec.containers[0].ports[0].containerPort"}},
		"a pod's field that Serving does not take": {"{containers: [{image: i}], restartPolicy: Never}", []string{"unknown spec.template.spec.restartPolicy"}},
		"an amount that is none":                   {"{containers: [{image: i, resources: {limits: {cpu: lots}}}]}", []string{"spec.template.spec.containers[0].resources.limits.cpu"}},
		"a hook, left to admission to refuse":      {"{containers: [{image: i, lifecycle: {preStop: {exec: {command: [x]}}}}]}", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := judge(t, all, documents(t, []byte(head+tt.spec+"}}"))[0])
			if len(got) == 0 {
				got = nil
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDefinitionsShowWhatUpstreamShows(t *testing.T) {
	all := definitions(t)
	tests := map[string]struct {
		short   []string
		columns []string
	}{
		"serving.knative.dev/Service":       {[]string{"kservice", "ksvc"}, []string{"URL", "LatestCreated", "LatestReady", "Ready", "Reason"}},
		"serving.knative.dev/Configuration": {[]string{"config", "cfg"}, []string{"LatestCreated", "LatestReady", "Ready", "Reason"}},
		"serving.knative.dev/Revision":      {[]string{"rev"}, []string{"Config Name", "Generation", "Ready", "Reason", "Actual Replicas", "Desired Replicas"}},
		"serving.knative.dev/Route":         {[]string{"rt"}, []string{"URL", "Ready", "Reason"}},
		"serving.knative.dev/DomainMapping": {[]string{"dm"}, []string{"URL", "Ready", "Reason"}},
	}
	for kind, tt := range tests {
		d := all[kind].crd
		if diff := cmp.Diff(tt.short, d.Spec.Names.ShortNames); diff != "" {
			t.Errorf("%s: short names (-want +got):\n%s", kind, diff)
		}
		var columns []string
		for _, c := range d.Spec.Versions[0].AdditionalPrinterColumns {
			columns = append(columns, c.Name)
		}
		if diff := cmp.Diff(tt.columns, columns); diff != "" {
			t.Errorf("%s: columns (-want +got):\n%s", kind, diff)
		}
		if diff := cmp.Diff([]string{"all", "knative", "serving"}, d.Spec.Names.Categories); diff != "" {
			t.Errorf("%s: categories (-want +got):\n%s", kind, diff)
		}
	}
}
