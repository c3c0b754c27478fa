package differential

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
)

func pod(name, app, node string, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": app}},
		Spec:       corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase},
	}
}

func TestWorkload(t *testing.T) {
	covers(t, "kubernetes-workload")
	objects := triggertest.NewObjects()
	foreign := pod("f", "backend", "n9", corev1.PodRunning)
	foreign.Namespace = "elsewhere"
	objects.PutPod(foreign)
	some := func(n int) func(*testing.T) {
		return func(*testing.T) {
			for i := range n {
				objects.PutPod(pod(fmt.Sprint(i), "backend", fmt.Sprint("n", i%2), corev1.PodPending))
			}
		}
	}
	all := func(*testing.T) {
		for i, phase := range []corev1.PodPhase{corev1.PodRunning, corev1.PodUnknown, corev1.PodSucceeded, corev1.PodFailed, corev1.PodPending, ""} {
			objects.PutPod(pod("phase"+fmt.Sprint(i), "backend", "", phase))
		}
		objects.PutPod(pod("other", "frontend", "n7", corev1.PodRunning))
	}
	compare(t, subject{
		Type: "kubernetes-workload", Objects: objects,
		Metadata: map[string]string{"podSelector": "app=backend,app!=other", "value": "5.5", "activationValue": "2.5"},
		Refused:  []string{"podSelector", "value", "value=0", "value=-1", "value=x", "activationValue=x", "podSelector=app in", "groupByNode=perhaps"},
		Try: map[string][]string{
			"podSelector": {"app in (backend, frontend)", "app", "!app", "app=none", "app==backend", "app=back end", "a=b=c"}, "groupByNode": {"false"},
		},
	},
		state{name: "none", want: "0"},
		state{name: "two", set: some(2), want: "2"},
		state{name: "three", set: some(3), want: "3"},
		state{name: "eleven", set: some(11), want: "11"},
		state{name: "nodes", over: map[string]string{"groupByNode": "true"}, want: "2"},
		state{name: "phases", set: all, want: "15"},
		state{name: "all phases of all", over: map[string]string{"podSelector": "app"}, want: "16"},
		state{name: "an outage", set: func(*testing.T) { objects.SetDown(true) }, want: fails},
		state{name: "its end", set: func(*testing.T) { objects.SetDown(false) }, want: "15"},
	)
}

func TestResource(t *testing.T) {
	covers(t, "kubernetes-resource")
	for _, kind := range []string{"ConfigMap", "Secret"} {
		t.Run(kind, func(t *testing.T) {
			objects := triggertest.NewObjects()
			put := func(text string) func(*testing.T) {
				return func(*testing.T) {
					meta := metav1.ObjectMeta{Namespace: "default", Name: "jobs"}
					if kind == "Secret" {
						objects.PutSecret(&corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{"waiting": []byte(text)}})
					} else {
						objects.PutConfigMap(&corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"waiting": text}})
					}
				}
			}
			states := []state{
				{name: "no object", want: fails},
				{name: "none", set: put("0"), want: "0"},
				{name: "two", set: put("2"), want: "2"},
				{name: "three", set: put("3"), want: "3"},
				{name: "no such key", over: map[string]string{"key": "other"}, want: fails},
				{name: "JSON without a place", over: map[string]string{"format": "json"}, want: refused},
				{name: "YAML without a place", over: map[string]string{"format": "yaml"}, want: refused},
				{name: "a place in a number", over: map[string]string{"valueLocation": "a"}, want: refused},
			}
			for i, f := range formatted {
				for _, kind := range []string{"float64", "int64", "quantity"} {
					over := map[string]string{"format": f.format, "valueType": kind, "valueLocation": f.location}
					for j, text := range f.texts {
						states = append(states, state{name: fmt.Sprintf("%s %s %d.%d", f.format, kind, i, j), set: put(text), over: over})
					}
				}
			}
			states = append(states, state{name: "seven", set: put("7"), want: "7"})
			compare(t, subject{
				Type: "kubernetes-resource", Objects: objects,
				Metadata: map[string]string{
					"resourceKind": kind, "resourceName": "jobs", "key": "waiting", "targetValue": "5.5", "activationTargetValue": "2.5",
				},
				Refused: []string{
					"resourceKind", "resourceName", "key", "targetValue", "resourceKind=Pod", "targetValue=0", "targetValue=x", "activationTargetValue=few",
					"format=xml", "valueType=string",
				},
				Try: map[string][]string{"format": {"number"}, "valueType": {"float64", "int64", "quantity"}},
			}, states...)
		})
	}
}

// formatted are texts in which a number may stand, and where.
var formatted = []struct {
	format, location string
	texts            []string
}{
	{"number", "", []string{"2.5", "42.9", "500m", "1Ki", "-4", "1e3", "", "many", "7 jobs", "  7", "7\n", "0x10", "NaN", "Inf", "+3", "1_000", "9223372036854775808", ".5"}},
	{"json", "a.b", []string{
		`{"a": {"b": 15.5}}`, `{"a": {"b": "250m"}}`, `{"a": {"b": "7"}}`, `{"a": {"b": "x"}}`, `{"a": {"b": true}}`, `{"a": {"b": null}}`, `{"a": {"b": [1]}}`,
		`{"a": {"c": 1}}`, `{"a": [{"b": 3}]}`, `{a`, ``, `7`, `{"a": {"b": -3}}`, `{"a": {"b": 1e3}}`, `{"a": {"b": 9007199254740993}}`,
	}},
	{"json", "jobs.#", []string{`{"jobs": [1, 2, 3]}`, `{"jobs": []}`, `{"jobs": {}}`}},
	{"json", "jobs.1", []string{`{"jobs": [1, 2, 3]}`, `{"jobs": {"1": 9}}`}},
	{"yaml", "a.b", []string{
		"a:\n  b: 15.5\n", `a: {b: "250m"}`, `a: {b: "7"}`, `a: {b: x}`, `a: {b: true}`, `a: {b: null}`, `a: {b: [1]}`, `a: {c: 1}`, `a: [{b: 3}]`, "a: b: c", ``, `7`,
		`a: {b: -3}`, `a: {b: 1e3}`, `a: {b: 0x10}`, `a: {b: 010}`, `a: {b: 1_000}`, `a: {b: .inf}`, `a: {b: 2026-01-01}`,
	}},
	{"yaml", "jobs.1", []string{`jobs: [1, 2, 3]`, `jobs: {1: 9}`, `jobs: {"1": 9}`, `jobs: [{a: 1}]`}},
}
