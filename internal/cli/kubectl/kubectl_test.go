package kubectl

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"ebb.dev/ebb/internal/platform/release"
)

func TestTakeData(t *testing.T) {
	type want struct {
		Data string
		Rest []string
	}
	cases := map[string]struct {
		args []string
		want want
	}{
		"no data flag":                              {[]string{"get", "pods", "-A"}, want{"", []string{"get", "pods", "-A"}}},
		"before the verb":                           {[]string{"--data", "/x", "get", "pods"}, want{"/x", []string{"get", "pods"}}},
		"with an equals sign":                       {[]string{"get", "--data=/x", "pods"}, want{"/x", []string{"get", "pods"}}},
		"behind two dashes it is not ours":          {[]string{"exec", "p", "--", "cmd", "--data", "y"}, want{"", []string{"exec", "p", "--", "cmd", "--data", "y"}}},
		"without a value it is kubectl's to refuse": {[]string{"get", "--data"}, want{"", []string{"get", "--data"}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			data, rest := takeData(c.args)
			if diff := cmp.Diff(c.want, want{data, rest}); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBuildUsesTheFoldersKubeconfig(t *testing.T) {
	var out bytes.Buffer
	args := []string{"version", "--client"}
	command := build("/some/where/kubeconfig", args, genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: &out, ErrOut: &out})
	if got := command.PersistentFlags().Lookup("kubeconfig").DefValue; got != "/some/where/kubeconfig" {
		t.Errorf("default of --kubeconfig is %q", got)
	}
	if err := command.Execute(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "Client Version: "+release.Kubernetes) {
		t.Errorf("kubectl version printed %q", out.String())
	}
}
