package credential

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	kubetesting "k8s.io/client-go/testing"

	"ebb.dev/ebb/internal/platform/kube/object"
)

// rig is a Resolver on a fake cluster.
type rig struct {
	*Resolver

	api     *dynamicfake.FakeDynamicClient
	store   *object.Store
	minted  []authenticationv1.TokenRequestSpec
	tokenOf func(authenticationv1.TokenRequestSpec) string
	reads   map[string]int // by verb and resource
}

func newRig(t *testing.T, o Options, objects ...runtime.Object) *rig {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), kedav1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	r := &rig{api: dynamicfake.NewSimpleDynamicClient(scheme, objects...), reads: map[string]int{}}
	r.api.PrependReactor("*", "*", func(a kubetesting.Action) (bool, runtime.Object, error) {
		r.reads[a.GetVerb()+" "+a.GetResource().Resource]++
		return false, nil, nil
	})
	r.tokenOf = func(s authenticationv1.TokenRequestSpec) string {
		return jwt(t, map[string]any{"sub": "system:serviceaccount:default:worker", "aud": s.Audiences, "exp": time.Now().Add(time.Hour).Unix()})
	}
	core := fake.NewClientset()
	core.PrependReactor("create", "serviceaccounts", func(a kubetesting.Action) (bool, runtime.Object, error) {
		create, ok := a.(kubetesting.CreateAction)
		if !ok || a.GetSubresource() != "token" {
			return false, nil, nil
		}
		request, ok := create.GetObject().(*authenticationv1.TokenRequest)
		if !ok {
			return true, nil, errors.New("not a token request")
		}
		r.minted = append(r.minted, request.Spec)
		expiry := time.Duration(*request.Spec.ExpirationSeconds) * time.Second
		return true, &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{
			Token: r.tokenOf(request.Spec), ExpirationTimestamp: metav1.NewTime(time.Now().Add(expiry)),
		}}, nil
	})
	r.store = object.New(t.Context(), r.api, slog.New(slog.DiscardHandler))
	var err error
	if r.Resolver, err = New(r.store, core.CoreV1(), o); err != nil {
		t.Fatal(err)
	}
	return r
}

func jwt(t *testing.T, claims map[string]any) string {
	t.Helper()
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(`{"alg":"none"}`)) + "." + e(body) + "." + e([]byte("signature"))
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, ResourceVersion: "1", Generation: 1}
}

func secret(namespace, name string, data map[string]string) *corev1.Secret {
	s := &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: meta(namespace, name), Data: map[string][]byte{}}
	for k, v := range data {
		s.Data[k] = []byte(v)
	}
	return s
}

func configMap(namespace, name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: meta(namespace, name), Data: data}
}

func account(namespace, name string, annotations map[string]string) *corev1.ServiceAccount {
	s := &corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: meta(namespace, name)}
	s.Annotations = annotations
	return s
}

func local(namespace, name string, spec kedav1alpha1.TriggerAuthenticationSpec) *kedav1alpha1.TriggerAuthentication {
	return &kedav1alpha1.TriggerAuthentication{
		TypeMeta:   metav1.TypeMeta{APIVersion: "keda.sh/v1alpha1", Kind: "TriggerAuthentication"},
		ObjectMeta: meta(namespace, name), Spec: spec,
	}
}

func global(name string, spec kedav1alpha1.TriggerAuthenticationSpec) *kedav1alpha1.ClusterTriggerAuthentication {
	return &kedav1alpha1.ClusterTriggerAuthentication{
		TypeMeta:   metav1.TypeMeta{APIVersion: "keda.sh/v1alpha1", Kind: "ClusterTriggerAuthentication"},
		ObjectMeta: meta("", name), Spec: spec,
	}
}

func ref(name string) *kedav1alpha1.AuthenticationRef {
	return &kedav1alpha1.AuthenticationRef{Name: name}
}

// update puts a newer version of an object there.
func (r *rig) update(t *testing.T, resource schema.GroupVersionResource, o interface {
	runtime.Object
	metav1.Object
}, version string,
) {
	t.Helper()
	o.SetResourceVersion(version)
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.api.Tracker().Update(resource, &unstructured.Unstructured{Object: fields}, o.GetNamespace()); err != nil {
		t.Fatal(err)
	}
}

// pod is a template with one container of that environment.
func pod(env []corev1.EnvVar, from ...corev1.EnvFromSource) *corev1.PodTemplateSpec {
	return &corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Env: env, EnvFrom: from}}}}
}

// safe is a Safe in memory.
type safe struct {
	name   string
	reads  int
	signs  []kedav1alpha1.SecretKeyRef
	answer func(ctx context.Context, q Question) (Answer, error)
}

func (s *safe) Name() string { return s.name }
func (s *safe) Asked(spec *kedav1alpha1.TriggerAuthenticationSpec) bool {
	return spec.HashiCorpVault != nil
}

func (s *safe) Signs(*kedav1alpha1.TriggerAuthenticationSpec) []kedav1alpha1.SecretKeyRef {
	return s.signs
}

func (s *safe) Read(ctx context.Context, q Question) (Answer, error) {
	s.reads++
	return s.answer(ctx, q)
}
