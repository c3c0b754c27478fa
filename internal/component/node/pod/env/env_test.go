package env_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"ebb.dev/ebb/internal/component/node/pod/env"
)

// objects are the config map "settings" and the secret "password".
type objects struct{}

func (objects) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	if name != "settings" {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
	}
	return &corev1.ConfigMap{Data: map[string]string{"COLOUR": "blue", "SIZE": "big", "a=b": "never"}}, nil
}

func (objects) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if name != "password" {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
	}
	return &corev1.Secret{Data: map[string][]byte{"PASS": []byte("word")}}, nil
}

func source() env.Source {
	return env.Source{
		Pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart", UID: "u-1", Labels: map[string]string{"tier": "web"}},
			Spec:       corev1.PodSpec{NodeName: "here", ServiceAccountName: "robot"},
		},
		Facts: env.Facts{PodIPs: []string{"10.0.0.9"}, HostIPs: []string{"192.0.2.1"}}, Objects: objects{},
		Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi")},
		Services: []*corev1.Service{
			{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Name: "https", Port: 443}}}},
			{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "my-db"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.7", Ports: []corev1.ServicePort{{Port: 5432}}}},
			{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "none"}, Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 1}}}},
		},
	}
}

func field(path string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
}

func TestBuild(t *testing.T) {
	yes := true
	settings := corev1.LocalObjectReference{Name: "settings"}
	tests := map[string]struct {
		container corev1.Container
		base      []string
		want      []string // those beside services'
		err       bool
	}{
		"references see only what came before": {
			container: corev1.Container{Env: []corev1.EnvVar{{Name: "A", Value: "$(B)-$$(B)"}, {Name: "B", Value: "b"}, {Name: "C", Value: "$(B)$(B) $x $"}}},
			want:      []string{"A=$(B)-$(B)", "B=b", "C=bb $x $"},
		},
		"the pod overrides the image": {
			container: corev1.Container{Env: []corev1.EnvVar{{Name: "PATH", Value: "/mine"}}}, base: []string{"PATH=/usr/bin", "LANG=C"},
			want: []string{"LANG=C", "PATH=/mine"},
		},
		"env overrides envFrom and can refer to it": {
			container: corev1.Container{
				EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: settings}}},
				Env:     []corev1.EnvVar{{Name: "SIZE", Value: "very $(SIZE)"}},
			},
			want: []string{"COLOUR=blue", "SIZE=very big"},
		},
		"a prefix goes before every key": {
			container: corev1.Container{EnvFrom: []corev1.EnvFromSource{{Prefix: "P_", SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "password"}}}}},
			want:      []string{"P_PASS=word"},
		},
		"optional objects may be missing": {
			container: corev1.Container{
				EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "x"}, Optional: &yes}}},
				Env:     []corev1.EnvVar{{Name: "K", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: settings, Key: "x", Optional: &yes}}}},
			},
		},
		"a missing secret is an error": {
			container: corev1.Container{Env: []corev1.EnvVar{{Name: "K", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "x"}, Key: "k"}}}}},
			err:       true,
		},
		"a missing key is an error": {
			container: corev1.Container{Env: []corev1.EnvVar{{Name: "K", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: settings, Key: "x"}}}}},
			err:       true,
		},
		"fields of the pod": {
			container: corev1.Container{Env: []corev1.EnvVar{
				{Name: "N", ValueFrom: field("metadata.name")},
				{Name: "L", ValueFrom: field("metadata.labels['tier']")},
				{Name: "IP", ValueFrom: field("status.podIP")},
				{Name: "HOST", ValueFrom: field("status.hostIP")},
				{Name: "SA", ValueFrom: field("spec.serviceAccountName")},
			}},
			want: []string{"N=cart", "L=web", "IP=10.0.0.9", "HOST=192.0.2.1", "SA=robot"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := source().Build(t.Context(), &tc.container, tc.base)
			if tc.err {
				if !errors.Is(err, env.ErrConfig) {
					t.Fatalf("error = %v, want ErrConfig", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			vars := slices.DeleteFunc(got.Vars, func(v string) bool { return strings.HasPrefix(v, "KUBERNETES_") || strings.HasPrefix(v, "MY_DB_") })
			if len(vars) == 0 {
				vars = nil
			}
			if diff := cmp.Diff(tc.want, vars); diff != "" {
				t.Errorf("variables (-want +got):\n%s", diff)
			}
		})
	}
}

func TestServiceLinks(t *testing.T) {
	for name, on := range map[string]bool{"enabled": true, "disabled": false} {
		t.Run(name, func(t *testing.T) {
			s := source()
			s.Pod.Spec.EnableServiceLinks = &on
			got, err := s.Build(t.Context(), &corev1.Container{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT_HTTPS=443", "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1"} {
				if !slices.Contains(got.Vars, want) {
					t.Errorf("%s is missing", want)
				}
			}
			if has := slices.Contains(got.Vars, "MY_DB_PORT=tcp://10.96.0.7:5432"); has != on {
				t.Errorf("the database's link: %v, want %v", has, on)
			}
			if slices.ContainsFunc(got.Vars, func(v string) bool { return strings.HasPrefix(v, "NONE_") }) {
				t.Error("a headless service has links")
			}
		})
	}
}

func TestResourceField(t *testing.T) {
	c := &corev1.Container{Name: "c", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("100Mi")},
	}}
	tests := map[string]struct {
		resource, divisor, want string
	}{
		"cores are rounded up":                   {"requests.cpu", "", "1"},
		"milli-cores by divisor":                 {"requests.cpu", "1m", "250"},
		"bytes":                                  {"requests.memory", "", "67108864"},
		"mebibytes by divisor":                   {"limits.memory", "1Mi", "100"},
		"an unset limit is the node's":           {"limits.cpu", "", "4"},
		"an unset limit of memory is the node's": {"limits.ephemeral-storage", "", "0"},
		"an unset request is nothing":            {"requests.ephemeral-storage", "", "0"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			ref := &corev1.ResourceFieldSelector{Resource: tc.resource}
			if tc.divisor != "" {
				ref.Divisor = resource.MustParse(tc.divisor)
			}
			got, err := env.ResourceField(source().Pod, c, ref, source().Allocatable)
			if err != nil || got != tc.want {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}
