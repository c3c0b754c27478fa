package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

func TestDeployJudgesItsFlags(t *testing.T) {
	for name, c := range map[string]struct {
		given    deployment
		wantName string
		want     string // in the error; empty for none
	}{
		"the folder names the service": {given: deployment{path: "/src/Hello_Go"}, wantName: "hello-go"},
		"the image names the service":  {given: deployment{image: "ghcr.io/you/app:v1@sha256:ab"}, wantName: "app"},
		"neither folder nor image":     {want: "one of them"},
		"both folder and image":        {given: deployment{path: ".", image: "a"}, want: "one of them"},
		"a name no service can have":   {given: deployment{path: "x", name: "Not_A_Name"}, want: "--name"},
		"a variable without a value":   {given: deployment{path: "x", env: []string{"A"}}, want: "NAME=value"},
		"a variable to remove":         {given: deployment{path: "/x", env: []string{"A-"}}, wantName: "x"},
		"a variable of no name":        {given: deployment{path: "x", env: []string{"=1"}}, want: "NAME=value"},
	} {
		t.Run(name, func(t *testing.T) {
			d := c.given
			err := d.check()
			if c.want == "" && (err != nil || d.name != c.wantName) {
				t.Errorf("name %q, %v; want %q", d.name, err, c.wantName)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error = %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestDeployChangesOnlyWhatTheFlagsSay(t *testing.T) {
	service := &servingv1.Service{}
	service.Spec.Template.Spec.Containers = []corev1.Container{{
		Name: "kept", Image: "old", Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "2"}, {Name: "C", Value: "3"}},
	}}
	(&deployment{image: "new", env: []string{"A=9", "B-", "D=x=y"}}).shape(service)
	want := []corev1.Container{{
		Name: "kept", Image: "new", Env: []corev1.EnvVar{{Name: "C", Value: "3"}, {Name: "A", Value: "9"}, {Name: "D", Value: "x=y"}},
	}}
	if diff := cmp.Diff(want, service.Spec.Template.Spec.Containers); diff != "" {
		t.Errorf("containers (-want +got):\n%s", diff)
	}
}

func TestTablesShowTheNamespaceOnlyForAll(t *testing.T) {
	rows := func() [][]string { return [][]string{{"two", "b"}, {"one", "z"}, {"one", "a"}} }
	for name, c := range map[string]struct {
		listing listing
		rows    [][]string
		want    string
	}{
		"of one namespace": {listing{namespace: "one"}, rows()[1:], "NAME\na\nz\n"},
		"of all":           {listing{all: true}, rows(), "NAMESPACE   NAME\none         a\none         z\ntwo         b\n"},
		"of some names":    {listing{namespace: "one", names: []string{"z", "q"}}, rows()[1:], "NAME\nz\n"},
		"of nothing":       {listing{namespace: "one"}, nil, "none in namespace one\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			c.listing.out = &out
			if err := c.listing.table("NAME", c.rows); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, out.String()); diff != "" {
				t.Errorf("table (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadinessGivesTheReasonWhileNotTrue(t *testing.T) {
	for name, c := range map[string]struct {
		condition              *apis.Condition
		wantStatus, wantReason string
	}{
		"unknown yet": {nil, "Unknown", "not looked at yet"},
		"ready":       {&apis.Condition{Status: corev1.ConditionTrue, Reason: "Old"}, "True", ""},
		"failed":      {&apis.Condition{Status: corev1.ConditionFalse, Reason: "ExitCode5", Message: "bye"}, "False", "ExitCode5: bye"},
		"on its way":  {&apis.Condition{Status: corev1.ConditionUnknown, Reason: "Deploying"}, "Unknown", "Deploying"},
	} {
		t.Run(name, func(t *testing.T) {
			status, reason := readiness(c.condition)
			if status != c.wantStatus || reason != c.wantReason {
				t.Errorf("readiness = %q, %q; want %q, %q", status, reason, c.wantStatus, c.wantReason)
			}
		})
	}
}

func TestWrongUseExitsWithTwo(t *testing.T) {
	for _, args := range [][]string{{"deploy"}, {"get", "nothings"}, {"up", "--no-such-flag"}, {"nonsense"}} {
		if code := Main(append(args, "--data", t.TempDir())); code != exitUsage {
			t.Errorf("ebb %v exited with %d, want %d", args, code, exitUsage)
		}
	}
}
