package credential

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func named(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }

func TestEnvironment(t *testing.T) {
	secretKey := func(name, key string, optional *bool) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: named(name), Key: key, Optional: optional}}
	}
	mapKey := func(name, key string, optional *bool) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: named(name), Key: key, Optional: optional}}
	}
	for name, tt := range map[string]struct {
		pod       *corev1.PodTemplateSpec
		container string
		options   Options
		want      map[string]string
		err       string
	}{
		"plain values, in their order": {
			pod:  pod([]corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)2"}, {Name: "C", Value: "$(D)"}, {Name: "D", Value: "4"}, {Name: "E"}}),
			want: map[string]string{"A": "1", "B": "12", "C": "$(D)", "D": "4", "E": ""},
		},
		"keys of Secrets and ConfigMaps": {
			pod: pod([]corev1.EnvVar{
				{Name: "PW", ValueFrom: secretKey("mine", "pw", nil)},
				{Name: "HOST", ValueFrom: mapKey("settings", "host", nil)},
				{Name: "URL", Value: "$(PW)@$(HOST)"},
				{Name: "NOKEY", ValueFrom: secretKey("mine", "none", nil)},
			}),
			want: map[string]string{"PW": "local", "HOST": "db", "URL": "local@db", "NOKEY": ""},
		},
		"whole objects, with prefixes, that single values override": {
			pod: pod([]corev1.EnvVar{{Name: "S_pw", Value: "over"}},
				corev1.EnvFromSource{Prefix: "S_", SecretRef: &corev1.SecretEnvSource{LocalObjectReference: named("mine")}},
				corev1.EnvFromSource{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: named("settings")}}),
			want: map[string]string{"S_pw": "over", "host": "db"},
		},
		"optional objects that are not there": {
			pod: pod([]corev1.EnvVar{{Name: "A", ValueFrom: secretKey("none", "k", new(true))}, {Name: "B", ValueFrom: mapKey("none", "k", new(true))}},
				corev1.EnvFromSource{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: named("none"), Optional: new(true)}},
				corev1.EnvFromSource{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: named("none"), Optional: new(true)}}),
			want: map[string]string{},
		},
		"fields of the pod are left out": {
			pod: pod([]corev1.EnvVar{
				{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}}, {Name: "A", Value: "1"},
			}),
			want: map[string]string{"A": "1"},
		},
		"no Secrets where access is restricted": {
			options: Options{RestrictSecretAccess: true},
			pod: pod([]corev1.EnvVar{{Name: "PW", ValueFrom: secretKey("mine", "pw", nil)}, {Name: "A", Value: "1"}},
				corev1.EnvFromSource{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: named("mine")}}),
			want: map[string]string{"A": "1"},
		},
		"Secrets of the namespace that is open": {
			options: Options{RestrictSecretAccess: true, ClusterObjectNamespace: "default"},
			pod:     pod([]corev1.EnvVar{{Name: "PW", ValueFrom: secretKey("mine", "pw", nil)}}),
			want:    map[string]string{"PW": "local"},
		},
		"a Secret that is not there": {
			pod: pod([]corev1.EnvVar{{Name: "PW", ValueFrom: secretKey("none", "pw", nil)}}),
			err: "resolving variable PW of container main: secrets default/none does not exist; create it or mark the reference as optional",
		},
		"a container that is not there": {pod: pod(nil), container: "side", err: "couldn't find container with name side on Target object"},
		"no container":                  {pod: &corev1.PodTemplateSpec{}, err: "target object doesn't have containers"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tt.options, secret("default", "mine", map[string]string{"pw": "local"}), configMap("default", "settings", map[string]string{"host": "db"}))
			got, err := r.Resolve(t.Context(), Request{Namespace: "default", Pod: tt.pod, Container: tt.container})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got.Env); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestExpand(t *testing.T) {
	env := map[string]string{"A": "1", "LONG_NAME": "long", "EMPTY": ""}
	for in, want := range map[string]string{
		"":                    "",
		"plain":               "plain",
		"$(A)":                "1",
		"x$(A)y$(LONG_NAME)z": "x1ylongz",
		"$(EMPTY)":            "",
		"$(NONE)":             "$(NONE)",
		"$$(A)":               "$(A)",
		"$$$(A)":              "$1",
		"$A":                  "$A",
		"$(A":                 "$(A",
		"cost: 5$":            "cost: 5$",
		"$(A$(A))":            "$(A$(A))",
	} {
		if got := expand(in, env); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}
