package deployment_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"ebb.dev/ebb/internal/component/autoscaler"
	"ebb.dev/ebb/internal/component/autoscaler/deployment"
)

// A call is what the API server was asked.
type call struct{ Method, Path, Type, Body string }

// serve answers every call with the same status and body, and keeps the calls.
func serve(t *testing.T, status int, body string) (*deployment.Scaler, *[]call) {
	t.Helper()
	var calls []call
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		calls = append(calls, call{r.Method, r.URL.Path, r.Header.Get("Content-Type"), string(data)})
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if _, err := io.WriteString(w, body); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return deployment.New(client, slog.New(slog.DiscardHandler)), &calls
}

const (
	scaleJSON    = `{"kind":"Scale","apiVersion":"autoscaling/v1","spec":{"replicas":3},"status":{"replicas":1}}`
	missingJSON  = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`
	conflictJSON = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Conflict","code":409}`
	path         = "/apis/apps/v1/namespaces/default/deployments/hello-00001-deployment/scale"
)

var hello = types.NamespacedName{Namespace: "default", Name: "hello-00001"}

func TestScaleWritesTheSubresource(t *testing.T) {
	scaler, calls := serve(t, http.StatusOK, scaleJSON) // the answer is a Scale, whatever the client expects
	if err := scaler.Scale(t.Context(), hello, 4, "because"); err != nil {
		t.Fatal(err)
	}
	want := []call{{http.MethodPatch, path, string(types.MergePatchType), `{"spec":{"replicas":4}}`}}
	if diff := cmp.Diff(want, *calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestReplicasReadsTheSubresource(t *testing.T) {
	scaler, calls := serve(t, http.StatusOK, scaleJSON)
	n, err := scaler.Replicas(t.Context(), hello)
	if err != nil || n != 3 {
		t.Errorf("Replicas() = %d, %v, want 3", n, err)
	}
	if got := (*calls)[0]; got.Method != http.MethodGet || got.Path != path {
		t.Errorf("asked %+v", got)
	}
}

func TestErrorsAreTold(t *testing.T) {
	cases := map[string]struct {
		status int
		body   string
		absent bool
	}{
		"a missing deployment is not found": {http.StatusNotFound, missingJSON, true},
		"a conflict is some error":          {http.StatusConflict, conflictJSON, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			scaler, _ := serve(t, c.status, c.body)
			if err := scaler.Scale(t.Context(), hello, 1, ""); err == nil || errors.Is(err, autoscaler.ErrNotFound) != c.absent {
				t.Errorf("Scale() = %v", err)
			}
			if _, err := scaler.Replicas(t.Context(), hello); err == nil || errors.Is(err, autoscaler.ErrNotFound) != c.absent {
				t.Errorf("Replicas() = %v", err)
			}
		})
	}
}
