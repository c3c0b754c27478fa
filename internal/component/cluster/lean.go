package cluster

import (
	"context"
	"io"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
)

// leanPlugin is the name of the admission plugin below.
const leanPlugin = "LeanMetadata"

// insiders are this process's own clients.
var insiders = []string{ebbUser, controllersUser, schedulerUser}

// lean takes the record of who set which field off what this process creates, so that the API server
// keeps none from then on. Nobody else applies to such objects (and who does gets a record from then
// on), while for many services the records were a third of the API server's memory, decoded and
// encoded again with each write.
type lean struct{}

var _ admission.MutationInterface = lean{}

func newLean(io.Reader) (admission.Interface, error) { return lean{}, nil }

// Handles implements admission.Interface.
func (lean) Handles(o admission.Operation) bool { return o == admission.Create }

// Admit implements admission.MutationInterface.
func (lean) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetSubresource() != "" || !slices.Contains(insiders, a.GetUserInfo().GetName()) {
		return nil
	}
	applied := func(f metav1.ManagedFieldsEntry) bool { return f.Operation == metav1.ManagedFieldsOperationApply }
	if o, err := meta.Accessor(a.GetObject()); err == nil && !slices.ContainsFunc(o.GetManagedFields(), applied) {
		o.SetManagedFields(nil)
	}
	return nil
}
