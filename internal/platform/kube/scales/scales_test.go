package scales

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
)

const (
	workers = "/apis/apps/v1/namespaces/here/deployments/workers/scale"
	sets    = "/apis/apps/v1/namespaces/here/statefulsets/workers/scale"
)

// api stands for the API server: it counts what it is asked, and answers writes with a version.
type api struct {
	asked   []string
	version string
	encoder runtime.Encoder
}

func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	a.asked = append(a.asked, r.Method+" "+r.URL.String())
	var body bytes.Buffer
	if err := a.encoder.Encode(&autoscalingv1.Scale{
		TypeMeta:   metav1.TypeMeta{APIVersion: "autoscaling/v1", Kind: "Scale"},
		ObjectMeta: metav1.ObjectMeta{Name: "workers", Namespace: "here", ResourceVersion: a.version},
	}, &body); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(&body), Request: r}, nil
}

// count tells how many requests came since the last call.
func (a *api) count() int {
	n := len(a.asked)
	a.asked = nil
	return n
}

func workersAt(version string, replicas int32) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "here", Name: "workers", UID: "7", ResourceVersion: version},
		Spec:       appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "workers"}}},
		Status:     appsv1.DeploymentStatus{Replicas: replicas - 1},
	}
}

// ask sends a request and returns the scale that is answered.
func ask(t *testing.T, by http.RoundTripper, method, path string, header http.Header) *autoscalingv1.Scale {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "https://api"+path, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	res, err := by.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	object, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
	if err != nil {
		t.Fatalf("%s %s: %v in %s", method, path, err, body)
	}
	scale, ok := object.(*autoscalingv1.Scale)
	if !ok {
		t.Fatalf("%s %s: answered with %T", method, path, object)
	}
	return scale
}

func TestScales(t *testing.T) {
	t.Parallel()
	written := map[string]runtime.Encoder{
		"JSON":     scheme.Codecs.LegacyCodec(autoscalingv1.SchemeGroupVersion),
		"protobuf": protobuf.NewSerializer(scheme.Scheme, scheme.Scheme),
	}
	for name, encoder := range written {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { answersFromMemory(t, encoder) })
		})
	}
}

func answersFromMemory(t *testing.T, encoder runtime.Encoder) {
	client := fake.NewClientset(workersAt("10", 3))
	s, behind := New(), &api{version: "11", encoder: encoder}
	to := s.Wrap(behind)
	go func() {
		if err := s.Run(t.Context(), client); err != nil {
			t.Error(err)
		}
	}()
	if ask(t, to, http.MethodGet, workers, nil); behind.count() != 1 {
		t.Fatal("what is not followed yet was not asked of the API")
	}
	synctest.Wait()
	got := ask(t, to, http.MethodGet, workers, nil)
	want := &autoscalingv1.Scale{
		TypeMeta:   metav1.TypeMeta{APIVersion: "autoscaling/v1", Kind: "Scale"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "here", Name: "workers", UID: "7", ResourceVersion: "10"},
		Spec:       autoscalingv1.ScaleSpec{Replicas: 3},
		Status:     autoscalingv1.ScaleStatus{Replicas: 2, Selector: "app=workers"},
	}
	if have, should := text(t, got), text(t, want); have != should || behind.count() != 0 {
		t.Errorf("answered with\n%s, want\n%s, from memory", have, should)
	}
	for of, want := range map[schema.GroupResource]bool{
		{Group: "apps", Resource: "deployments"}: true, {Group: "apps", Resource: "statefulsets"}: false, {Group: "else", Resource: "deployments"}: false,
	} {
		if n, known := s.Replicas(of, "here", "workers"); known != want || known && n != 3 {
			t.Errorf("of %s: %d replicas, known: %t", of, n, known)
		}
	}
	for _, other := range []struct {
		path   string
		header http.Header
	}{
		{sets, nil},
		{strings.Replace(workers, "workers", "others", 1), nil},
		{strings.Replace(workers, "apps", "else", 1), nil},
		{workers + "?resourceVersion=3", nil},
		{workers, http.Header{"Impersonate-User": {"somebody"}}},
	} {
		if ask(t, to, http.MethodGet, other.path, other.header); behind.count() != 1 {
			t.Errorf("%s %v was not asked of the API", other.path, other.header)
		}
	}

	// The watch is behind a write for as long as it has an older version, and no longer.
	if ask(t, to, http.MethodPut, workers, nil); behind.count() != 1 {
		t.Fatal("a write did not reach the API")
	}
	for _, step := range []struct {
		version string
		memory  bool
	}{{"10", false}, {"11", true}, {"12", true}} {
		if _, err := client.AppsV1().Deployments("here").Update(t.Context(), workersAt(step.version, 4), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		scale := ask(t, to, http.MethodGet, workers, nil)
		if n, known := s.Replicas(schema.GroupResource{Group: "apps", Resource: "deployments"}, "here", "workers"); known != step.memory || known && n != 4 {
			t.Errorf("with version %s in memory: %d replicas, known: %t", step.version, n, known)
		}
		if asked := behind.count(); step.memory != (asked == 0) || step.memory && scale.Spec.Replicas != 4 {
			t.Errorf("with version %s in memory: %d replicas, %d requests to the API", step.version, scale.Spec.Replicas, asked)
		}
	}
}

func text(t *testing.T, scale *autoscalingv1.Scale) string {
	t.Helper()
	out, err := json.Marshal(scale)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
