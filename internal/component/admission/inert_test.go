package admission_test

import (
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
)

const many = `
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: hello, namespace: shop}
spec:
  template:
    spec:
      containers:
      - {image: a, ports: [{containerPort: 8080}]}
      - {image: b, readinessProbe: {httpGet: {path: /, port: PORT}}}
`

func TestProbesThatCouldNeverPassAreRefused(t *testing.T) {
	s, _ := server(t, nil, map[string]string{"multi-container-probing": "enabled"})
	for port, want := range map[string]string{
		"8081": "", "web": "spec.template.spec.containers[1].readinessProbe.httpGet.port",
	} {
		req := request(t, admissionv1.Create, "services", strings.Replace(many, "PORT", port, 1), "")
		req.Object.Raw = complete(t, s, req)
		res := ask(t, s, "/resource-validation", req)
		if res.Allowed != (want == "") || want != "" && !strings.Contains(res.Result.Message, want) {
			t.Errorf("port %s: allowed %v, said %+v, want %q", port, res.Allowed, res.Result, want)
		}
	}
}

func TestVolumesThatNoNodeHasAreRefused(t *testing.T) {
	s, _ := server(t, nil, map[string]string{
		"kubernetes.podspec-volumes-csi": "enabled", "kubernetes.podspec-volumes-image": "enabled", "kubernetes.podspec-volumes-hostpath": "enabled",
	})
	for source, want := range map[string]string{
		"csi: {driver: x}":       "spec.template.spec.volumes[0].csi",
		"image: {reference: x}":  "spec.template.spec.volumes[0].image",
		"hostPath: {path: /etc}": "",
	} {
		manifest := strings.Replace(hello, "{image: example.com/hello}]", "{image: example.com/hello, volumeMounts: [{name: v, mountPath: /v}]}], volumes: [{name: v, "+source+"}]", 1)
		req := request(t, admissionv1.Create, "services", manifest, "")
		req.Object.Raw = complete(t, s, req)
		res := ask(t, s, "/resource-validation", req)
		if res.Allowed != (want == "") || want != "" && !strings.Contains(res.Result.Message, want) {
			t.Errorf("%s: allowed %v, said %+v, want %q", source, res.Allowed, res.Result, want)
		}
		stored := string(req.Object.Raw)
		again := strings.Replace(stored, `"name":"hello"`, `"name":"hello","labels":{"a":"b"}`, 1)
		if res := ask(t, s, "/resource-validation", request(t, admissionv1.Update, "services", again, stored)); !res.Allowed {
			t.Errorf("%s: what is stored cannot be labelled: %s", source, res.Result.Message)
		}
	}
}

func TestAnnotationsAboutTheSidecarAreWarnedOf(t *testing.T) {
	s, _ := server(t, nil, nil)
	const key = "queue.sidecar.serving.knative.dev/cpu-resource-request"
	manifest := strings.Replace(hello, "template: {spec", "template: {metadata: {annotations: {"+key+": 10m}}, spec", 1)
	req := request(t, admissionv1.Create, "services", manifest, "")
	req.Object.Raw = complete(t, s, req)
	res := ask(t, s, "/resource-validation", req)
	if !res.Allowed || !slices.ContainsFunc(res.Warnings, func(w string) bool { return strings.Contains(w, key) }) {
		t.Errorf("allowed %v, warnings %q, want one of %s", res.Allowed, res.Warnings, key)
	}
}
