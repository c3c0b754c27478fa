package release

import (
	"os"
	"regexp"
	"testing"

	"k8s.io/component-base/version"
)

func TestKubernetesIsTheOneLinked(t *testing.T) {
	data, err := os.ReadFile("../../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes (v\S+)`).FindStringSubmatch(string(data))
	if m == nil || m[1] != Kubernetes {
		t.Errorf("go.mod requires %v, the release told is %s", m, Kubernetes)
	}
}

func TestStampIsTold(t *testing.T) {
	Stamp()
	got := version.Get()
	if got.GitVersion != Kubernetes || got.Major+"."+got.Minor != Kubernetes[1:5] {
		t.Errorf("the libraries tell %+v", got)
	}
}
