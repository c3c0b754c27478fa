package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	ctrladmission "sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// claim puts the label on a new ScaledObject that its controller would otherwise put there by a write of
// its own.
func claim(_ context.Context, req ctrladmission.Request) ctrladmission.Response {
	var fields map[string]any
	if err := unmarshal(req.Object.Raw, &fields); err != nil {
		return ctrladmission.Errored(http.StatusBadRequest, err)
	}
	name, _, _ := unstructured.NestedString(fields, "metadata", "name") // of another type it is refused elsewhere
	if name == "" {
		return ctrladmission.Allowed("") // it is yet to be generated
	}
	if err := unstructured.SetNestedField(fields, name, "metadata", "labels", kedav1alpha1.ScaledObjectOwnerAnnotation); err != nil {
		return ctrladmission.Errored(http.StatusBadRequest, err)
	}
	after, err := json.Marshal(fields)
	if err != nil {
		return ctrladmission.Errored(http.StatusInternalServerError, fmt.Errorf("encoding the marked object: %w", err))
	}
	return ctrladmission.PatchResponseFromRaw(req.Object.Raw, after)
}
