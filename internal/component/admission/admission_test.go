package admission_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/yaml"

	"ebb.dev/ebb/internal/component/admission"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// server answers reviews over HTTPS; refuse is what the API server says to the template's pod, and
// features are the keys of config-features.
func server(t *testing.T, refuse error, features map[string]string) (*httptest.Server, *fake.Clientset) {
	t.Helper()
	defaults, err := settings.Parse(t.Context(), map[string]*corev1.ConfigMap{
		"config-features": {ObjectMeta: metav1.ObjectMeta{Name: "config-features", Namespace: settings.Namespace}, Data: features},
	})
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset()
	client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &corev1.Pod{}, refuse
	})
	h := &admission.Handler{}
	h.Use(admission.Config{Settings: settings.Fixed(defaults), Client: client})
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	return s, client
}

// ask sends one review.
func ask(t *testing.T, s *httptest.Server, path string, req *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	req.UID = "u"
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: req,
	})
	if err != nil {
		t.Fatal(err)
	}
	post, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	post.Header.Set("Content-Type", "application/json")
	res, err := s.Client().Do(post)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(res.Body).Decode(&review); err != nil || review.Response == nil {
		t.Fatalf("status %d, review %+v: %v", res.StatusCode, review, err)
	}
	return review.Response
}

func request(t *testing.T, op admissionv1.Operation, resource, now, old string) *admissionv1.AdmissionRequest {
	t.Helper()
	return &admissionv1.AdmissionRequest{
		Operation: op, Namespace: "shop", Name: "hello",
		Resource: metav1.GroupVersionResource{Group: "serving.knative.dev", Version: "v1", Resource: resource},
		UserInfo: authenticationv1.UserInfo{Username: "ada"},
		Object:   raw(t, now), OldObject: raw(t, old),
	}
}

func raw(t *testing.T, text string) runtime.RawExtension {
	t.Helper()
	if text == "" {
		return runtime.RawExtension{}
	}
	out, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return runtime.RawExtension{Raw: out}
}

const hello = `
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: hello, namespace: shop}
spec: {template: {spec: {containers: [{image: example.com/hello}]}}}
`

// complete sends a manifest through the mutating webhook.
func complete(t *testing.T, s *httptest.Server, req *admissionv1.AdmissionRequest) []byte {
	t.Helper()
	res := ask(t, s, "/defaulting", req)
	if !res.Allowed {
		t.Fatalf("refused: %s", res.Result.Message)
	}
	if len(res.Patch) == 0 {
		return req.Object.Raw
	}
	patch, err := jsonpatch.DecodePatch(res.Patch)
	if err != nil {
		t.Fatal(err)
	}
	out, err := patch.Apply(req.Object.Raw)
	if err != nil {
		t.Fatalf("the patch %s does not fit: %v", res.Patch, err)
	}
	return out
}

const mapping = "{apiVersion: serving.knative.dev/v1beta1, kind: DomainMapping, metadata: {name: shop.example.com, namespace: shop}, " +
	"spec: {ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: hello}}}"

func TestDefaultingOfADomainMapping(t *testing.T) {
	s, _ := server(t, nil, nil)
	out := complete(t, s, request(t, admissionv1.Create, "domainmappings", mapping, ""))
	var dm servingv1beta1.DomainMapping
	if err := json.Unmarshal(out, &dm); err != nil {
		t.Fatal(err)
	}
	if dm.Spec.Ref.Namespace != "shop" || dm.Annotations["serving.knative.dev/creator"] != "ada" {
		t.Errorf("not completed: %s", out)
	}
}

func TestDefaulting(t *testing.T) {
	s, client := server(t, nil, nil)
	out := complete(t, s, request(t, admissionv1.Create, "services", hello, ""))
	var svc servingv1.Service
	if err := json.Unmarshal(out, &svc); err != nil {
		t.Fatal(err)
	}
	spec := svc.Spec.Template.Spec
	if *spec.TimeoutSeconds != 300 || spec.Containers[0].Name != "user-container" || *svc.Spec.Traffic[0].Percent != 100 {
		t.Errorf("not completed: %s", out)
	}
	if svc.Annotations["serving.knative.dev/creator"] != "ada" || svc.Annotations["serving.knative.dev/lastModifier"] != "ada" {
		t.Errorf("annotations %v, want ada as author", svc.Annotations)
	}
	if strings.Contains(string(out), "null") || strings.Contains(string(out), `"status"`) {
		t.Errorf("empty fields are added: %s", out)
	}
	if len(client.Actions()) > 0 {
		t.Errorf("defaulting does %v", client.Actions())
	}

	again := request(t, admissionv1.Update, "services", string(out), string(out))
	again.UserInfo.Username = "bob"
	if res := ask(t, s, "/defaulting", again); len(res.Patch) > 0 {
		t.Errorf("a completed object is changed again: %s", res.Patch)
	}
	changed := request(t, admissionv1.Update, "services", strings.ReplaceAll(string(out), "example.com/hello", "example.com/other"), string(out))
	changed.UserInfo.Username = "bob"
	if out := string(complete(t, s, changed)); !strings.Contains(out, `lastModifier":"bob`) || !strings.Contains(out, `creator":"ada`) {
		t.Errorf("authors after a change: %s", out)
	}
}

func TestSameManifestTwiceUnderTheNameOfItsRevision(t *testing.T) {
	s, _ := server(t, nil, nil)
	manifest := strings.Replace(hello, "template: {spec:", "template: {metadata: {name: hello-one}, spec:", 1)
	stored := string(complete(t, s, request(t, admissionv1.Create, "services", manifest, "")))
	// kubectl keeps what others wrote into maps, and sends lists as the manifest has them.
	manifest = strings.Replace(manifest, "namespace: shop", "namespace: shop, annotations: {serving.knative.dev/creator: ada, serving.knative.dev/lastModifier: ada}", 1)
	same := complete(t, s, request(t, admissionv1.Update, "services", manifest, stored))
	if res := ask(t, s, "/resource-validation", request(t, admissionv1.Update, "services", string(same), stored)); !res.Allowed {
		t.Errorf("the same manifest is refused: %s", res.Result.Message)
	}
	other := strings.Replace(manifest, "example.com/hello", "example.com/other", 1)
	changed := complete(t, s, request(t, admissionv1.Update, "services", other, stored))
	if res := ask(t, s, "/resource-validation", request(t, admissionv1.Update, "services", string(changed), stored)); res.Allowed {
		t.Error("another template under the same name is allowed")
	}
}

func TestDefaultingLeavesBrokenTypesToTheSchema(t *testing.T) {
	s, _ := server(t, nil, nil)
	broken := strings.Replace(hello, "containers: [", "timeoutSeconds: soon, containers: [", 1)
	if res := ask(t, s, "/defaulting", request(t, admissionv1.Create, "services", broken, "")); !res.Allowed || len(res.Patch) > 0 {
		t.Errorf("response %+v, want it passed on unchanged", res)
	}
}

func TestValidation(t *testing.T) {
	invalid := apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "x", field.ErrorList{
		field.Invalid(field.NewPath("spec", "containers").Index(0).Child("resources", "requests"), "2", "must be less than or equal to cpu limit of 1"),
	})
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "x", errQuota)
	with := func(old, now string) string { return strings.Replace(hello, old, now, 1) }
	tests := map[string]struct {
		resource, now, old string
		refuse             error
		dryRun             bool
		want               string // part of the refusal; empty when allowed
	}{
		"a good one": {now: hello},
		"a timeout beyond the limit": {
			now:  with("spec: {containers", "spec: {timeoutSeconds: 9999, containers"),
			want: "validation failed: expected 0 <= 9999 <= 600: spec.template.spec.timeoutSeconds",
		},
		"a scaler that nobody here is": {
			now:  with("template: {spec", `template: {metadata: {annotations: {autoscaling.knative.dev/class: mine.example.com}}, spec`),
			want: `spec.template.metadata.annotations[autoscaling.knative.dev/class]: class "mine.example.com" is not supported by ebb yet`,
		},
		"a domain": {resource: "domainmappings", now: mapping},
		"a domain of one word": {
			resource: "domainmappings", now: strings.Replace(mapping, "shop.example.com", "shop", 1),
			want: "should be a domain with at least two segments separated by dots: metadata.name",
		},
		"a domain inside the cluster": {
			resource: "domainmappings", now: strings.Replace(mapping, "shop.example.com", "shop.svc.cluster.local", 1),
			want: "must not be a subdomain of cluster local domain",
		},
		"a domain for another namespace's service": {
			resource: "domainmappings", now: strings.Replace(mapping, "name: hello}", "name: hello, namespace: bank}", 1),
			want: `parent namespace: "shop" does not match ref: "bank"`,
		},
		"a feature that is off": {
			now:  with("spec: {containers", "spec: {hostNetwork: true, containers"),
			want: "spec.template.spec.hostNetwork",
		},
		"traffic that does not sum up": {
			now:  strings.Replace(hello, "spec: {template", "spec: {traffic: [{latestRevision: true, percent: 30}], template", 1),
			want: "Traffic targets sum to 30, want 100: spec.traffic",
		},
		"a scale that is no number": {
			now:  strings.Replace(hello, "template: {", `template: {metadata: {annotations: {autoscaling.knative.dev/min-scale: "-1"}}, `, 1),
			want: "autoscaling.knative.dev/min-scale",
		},
		"a pod that would be invalid": {
			now: hello, refuse: invalid,
			want: "validation callback failed: dry run failed with Invalid value: \"2\": must be less than or equal to cpu limit of 1: spec.template.spec.containers[0].resources.requests",
		},
		"a pod over quota may be put right": {now: hello, refuse: forbidden},
		"nor when an annotation asks": {
			now:    with("namespace: shop}", `namespace: shop, annotations: {features.knative.dev/podspec-dryrun: "Enabled"}}`),
			refuse: forbidden, want: "validation callback failed",
		},
		"a webhook that cannot be tried does not count": {now: hello, refuse: apierrors.NewBadRequest("x does not support dry run"), dryRun: true},
		"but does where the annotation is strict": {
			now:    with("namespace: shop}", `namespace: shop, annotations: {features.knative.dev/podspec-dryrun: strict}}`),
			refuse: apierrors.NewBadRequest("x does not support dry run"), want: "validation callback failed",
		},
		"but not in a dry run": {now: hello, refuse: forbidden, dryRun: true, want: "validation callback failed"},
		"a named revision with another spec": {
			old:  with("template: {", "template: {metadata: {name: hello-blue}, "),
			now:  strings.Replace(with("template: {", "template: {metadata: {name: hello-blue}, "), "example.com/hello", "example.com/x", 1),
			want: "spec.template.metadata.name",
		},
		"a revision never changes": {
			resource: "revisions",
			old:      "{metadata: {name: r}, spec: {containers: [{image: a}]}}",
			now:      "{metadata: {name: r}, spec: {containers: [{image: b}]}}",
			want:     "Immutable fields changed",
		},
		"what cannot be read": {now: with("image: example.com/hello", "securityContext: 7"), want: "decoding request failed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, _ := server(t, tt.refuse, nil)
			op, resource := admissionv1.Create, tt.resource
			if tt.old != "" {
				op = admissionv1.Update
			}
			if resource == "" {
				resource = "services"
			}
			req := request(t, op, resource, tt.now, tt.old)
			if tt.old == "" && tt.want != "decoding request failed" {
				req.Object.Raw = complete(t, s, req)
			}
			req.DryRun = &tt.dryRun
			res := ask(t, s, "/resource-validation", req)
			switch {
			case tt.want == "" && !res.Allowed:
				t.Errorf("refused: %s", res.Result.Message)
			case tt.want != "" && (res.Allowed || !strings.Contains(res.Result.Message, tt.want)):
				t.Errorf("allowed %v, said %+v, want %q", res.Allowed, res.Result, tt.want)
			}
		})
	}
}

var errQuota = apierrors.NewBadRequest("exceeded quota")

func TestPodsAreTriedOnlyWhenTheTemplateChanges(t *testing.T) {
	s, client := server(t, nil, nil)
	known := string(complete(t, s, request(t, admissionv1.Create, "services", hello, "")))
	moved := strings.Replace(known, `"latestRevision":true`, `"latestRevision":false,"revisionName":"hello-1"`, 1)
	if res := ask(t, s, "/resource-validation", request(t, admissionv1.Update, "services", moved, known)); !res.Allowed {
		t.Fatalf("refused: %s", res.Result.Message)
	}
	if len(client.Actions()) > 0 {
		t.Errorf("a change of traffic does %v", client.Actions())
	}
	fresh := request(t, admissionv1.Create, "services", hello, "")
	fresh.Object.Raw = complete(t, s, fresh)
	ask(t, s, "/resource-validation", fresh)
	if len(client.Actions()) != 1 {
		t.Fatalf("a new template does %v, want one dry run", client.Actions())
	}
	create, ok := client.Actions()[0].(clienttesting.CreateActionImpl)
	if !ok || len(create.CreateOptions.DryRun) != 1 {
		t.Errorf("%v is no dry run", client.Actions()[0])
	}
}

func TestSettingsAreChecked(t *testing.T) {
	s, _ := server(t, nil, nil)
	tests := map[string]struct {
		now  string
		want string
	}{
		"good ones":      {`{metadata: {name: config-autoscaler}, data: {stable-window: 30s}}`, ""},
		"a short window": {`{metadata: {name: config-autoscaler}, data: {stable-window: 1s}}`, "stable-window = 1s"},
		"a bad template": {`{metadata: {name: config-network}, data: {domain-template: "{{.Nope}}"}}`, "config-network"},
		"somebody's own": {`{metadata: {name: mine}, data: {stable-window: 1s}}`, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			res := ask(t, s, "/config-validation", request(t, admissionv1.Update, "configmaps", tt.now, ""))
			if res.Allowed != (tt.want == "") || tt.want != "" && !strings.Contains(res.Result.Message, tt.want) {
				t.Errorf("allowed %v, said %+v, want %q", res.Allowed, res.Result, tt.want)
			}
		})
	}
}

func TestHandlerRefusesUntilItIsReady(t *testing.T) {
	s := httptest.NewTLSServer(&admission.Handler{})
	defer s.Close()
	res, err := s.Client().Post(s.URL+"/defaulting", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d", res.StatusCode)
	}
}
