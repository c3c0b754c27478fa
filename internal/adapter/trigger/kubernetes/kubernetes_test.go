package kubernetes

import (
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
)

// put has a text stand under key "waiting" of the object "jobs".
func put(objects *triggertest.Objects, kind, text string) {
	meta := metav1.ObjectMeta{Namespace: "default", Name: "jobs"}
	if kind == secret {
		objects.PutSecret(&corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{"waiting": []byte(text)}})
	} else {
		objects.PutConfigMap(&corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"waiting": text}})
	}
}

func subject(objects *triggertest.Objects, kind string) triggertest.Subject {
	return triggertest.Subject{
		Type: "kubernetes-resource", Build: New, Objects: objects,
		Metadata: map[string]string{
			"resourceKind": kind, "resourceName": "jobs", "key": "waiting", "targetValue": "5", "activationTargetValue": "2",
		},
		Metric: strings.ToLower(kind) + "-jobs-waiting", Target: "5",
		Required: []string{"resourceKind", "resourceName", "key", "targetValue"},
		Wrong: map[string]string{
			"resourceKind": "Pod", "format": "xml", "valueType": "string", "valueLocation": "some.path",
			"targetValue": "0", "activationTargetValue": "few",
		},
		Set:    func(_ *testing.T, n int) { put(objects, kind, strconv.Itoa(n)) },
		Break:  func(*testing.T) { objects.SetDown(true) },
		Repair: func(*testing.T) { objects.SetDown(false) },
		Down:   map[string]string{"resourceName": "none"},
		Within: 300 * time.Millisecond,
	}
}

func TestKubernetesResource(t *testing.T) {
	for _, kind := range []string{configMap, secret} {
		t.Run(kind, func(t *testing.T) {
			objects := triggertest.NewObjects()
			triggertest.Run(t, subject(objects, kind))
			if n := objects.Watchers(); n != 0 {
				t.Errorf("%d watches were left behind", n)
			}
		})
	}
}

func TestParameters(t *testing.T) {
	for name, test := range map[string]struct {
		metadata map[string]string
		asSource bool
		fails    string
	}{
		"JSON needs to be told where":       {metadata: map[string]string{"format": "json"}, fails: "valueLocation is required for json format"},
		"YAML does, too":                    {metadata: map[string]string{"format": "yaml"}, fails: "valueLocation is required for yaml format"},
		"numbers have no place in them":     {metadata: map[string]string{"valueLocation": "a"}, fails: "valueLocation is only supported with json or yaml format"},
		"a target is above zero":            {metadata: map[string]string{"targetValue": "0"}, fails: "targetValue must be a float greater than 0"},
		"it may be zero in a formula":       {metadata: map[string]string{"targetValue": "0"}, asSource: true},
		"all that is optional may be there": {metadata: map[string]string{"format": "json", "valueLocation": "a.b", "valueType": "quantity"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := subject(triggertest.NewObjects(), configMap).Config(t, test.metadata)
			c.AsMetricSource = test.asSource
			_, err := New(c)
			if test.fails == "" && err != nil || test.fails != "" && (err == nil || !strings.Contains(err.Error(), test.fails)) {
				t.Errorf("New() fails with %v; want %q", err, test.fails)
			}
		})
	}
}

// read reads a text as parameters say.
func read(t *testing.T, kind, text string, metadata map[string]string) ([]trigger.Reading, error) {
	t.Helper()
	objects := triggertest.NewObjects()
	put(objects, kind, text)
	source, err := New(subject(objects, kind).Config(t, metadata))
	if err != nil {
		t.Fatal(err)
	}
	return source.Read(t.Context())
}

// formatted are parameters for a format, a place and a type.
func formatted(how string) map[string]string {
	metadata := map[string]string{}
	for i, value := range strings.Fields(how) {
		metadata[[]string{"format", "valueType", "valueLocation"}[i]] = value
	}
	return metadata
}

func TestValues(t *testing.T) {
	for name, test := range map[string]struct {
		how, text string
		want      float64
	}{
		"a number":                        {"number float64", "2.5", 2.5},
		"a number with a name":            {"number float64", "7 jobs", 7},
		"a number with space before it":   {"number float64", "  7", 7},
		"a whole number":                  {"number int64", "42", 42},
		"the whole part of a number":      {"number int64", "42.9", 42},
		"a quantity":                      {"number quantity", "500m", 0.5},
		"a large quantity":                {"number quantity", "1Ki", 1024},
		"less than nothing":               {"number float64", "-4", 0},
		"a number in JSON":                {"json float64 metrics.waiting", `{"metrics": {"waiting": 15.5}}`, 15.5},
		"a whole number in JSON":          {"json int64 metrics.waiting", `{"metrics": {"waiting": 15.5}}`, 15},
		"the length of a list in JSON":    {"json float64 jobs.#", `{"jobs": [1, 2, 3]}`, 3},
		"a quantity in JSON":              {"json quantity a", `{"a": "2k"}`, 2000},
		"a number as a quantity in JSON":  {"json quantity a", `{"a": 3}`, 3},
		"a string as a number in JSON":    {"json float64 a", `{"a": "250m"}`, 0.25},
		"a number in YAML":                {"yaml float64 metrics.waiting", "metrics:\n  waiting: 20\n", 20},
		"a broken number in YAML":         {"yaml float64 a", "a: 1.5", 1.5},
		"a type that YAML does not heed":  {"yaml int64 a", "a: 1.5", 1.5},
		"a string in YAML":                {"yaml float64 a", `a: "7 jobs"`, 7},
		"a quantity in YAML":              {"yaml quantity a", "a: 500m", 0.5},
		"an item of a list in YAML":       {"yaml float64 a.1.b", "a: [{b: 1}, {b: 2}]", 2},
		"keys of other kinds in YAML":     {"yaml float64 a.1", "a: {1: 5, true: 6}", 5},
		"what a path goes beyond in YAML": {"yaml float64 a.b.c", "a: 9", 9},
	} {
		t.Run(name, func(t *testing.T) {
			for _, kind := range []string{configMap, secret} {
				got, err := read(t, kind, test.text, formatted(test.how))
				if err != nil || len(got) != 1 || got[0].Value.AsApproximateFloat64() != test.want {
					t.Errorf("%q in a %s reads as %+v, %v; want %v", test.text, kind, got, err, test.want)
				}
			}
		})
	}
}

func TestWhatIsNoValue(t *testing.T) {
	for name, test := range map[string]struct{ how, text, want string }{
		"a word":                        {"number float64", "hunter2", "parsing value as float64"},
		"a word as whole number":        {"number int64", "hunter2", "parsing value as int64"},
		"a word as quantity":            {"number quantity", "hunter2", "parsing value as quantity"},
		"nothing":                       {"number float64", "", "parsing value as float64"},
		"no JSON":                       {"json float64 a.b", "{hunter2", "path a.b not found in json"},
		"no such path in JSON":          {"json float64 a.b", `{"a": {"c": 1}}`, "path a.b not found in json"},
		"a truth in JSON":               {"json float64 a", `{"a": true}`, "got: 'True'"},
		"an object in JSON":             {"json float64 a", `{"a": {"b": 1}}`, "got: 'JSON'"},
		"null in JSON":                  {"json quantity a", `{"a": null}`, "got: 'Null'"},
		"a string as whole number":      {"json int64 a", `{"a": "5"}`, "got: 'String'"},
		"a string that is no quantity":  {"json float64 a", `{"a": "hunter2"}`, "parsing value as quantity"},
		"no YAML":                       {"yaml float64 a.b", "a:\n  b\n    c: d", "parsing YAML"},
		"YAML that is a word":           {"yaml float64 a", "hunter2", "parsing YAML"},
		"no such path in YAML":          {"yaml float64 a.b", "a: {c: 1}", "path a.b not found in yaml"},
		"an object in YAML":             {"yaml float64 a", "a: {b: 1}", "path a not found in yaml"},
		"a list in YAML":                {"yaml float64 a", "a: [1]", "path a not found in yaml"},
		"beyond a list's end in YAML":   {"yaml float64 a.1", "a: [1]", "path a.1 not found in yaml"},
		"an odd number of an item":      {"yaml float64 a.+0", "a: [1]", "path a.+0 not found in yaml"},
		"a word in YAML":                {"yaml float64 a", "a: hunter2", "got: 'hunter2'"},
		"a truth in YAML":               {"yaml float64 a", "a: true", "got: 'true'"},
		"a word as quantity in YAML":    {"yaml quantity a", "a: hunter2", "parsing value as quantity"},
		"null in YAML":                  {"yaml float64 a", "a: null", "got: '<nil>'"},
		"keys that are not there, ints": {"yaml float64 a.2", "a: {1: 5}", "path a.2 not found in yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := read(t, configMap, test.text, formatted(test.how))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%q reads as %+v, %v; want an error with %q", test.text, got, err, test.want)
			}
			got, err = read(t, secret, test.text, formatted(test.how))
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q in a Secret reads as %+v, %v; want an error that does not tell it", test.text, got, err)
			}
		})
	}
}

func TestWhatIsNotThere(t *testing.T) {
	for _, kind := range []string{configMap, secret} {
		for want, metadata := range map[string]map[string]string{
			"key other not found in " + kind + " default/jobs": {"key": "other"},
			"reading " + kind + " default/other":               {"resourceName": "other"},
		} {
			if _, err := read(t, kind, "7", metadata); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Read() fails with %v; want %q", err, want)
			}
		}
	}
}
