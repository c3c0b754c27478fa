package controller

import (
	"context"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"

	"ebb.dev/ebb/internal/domain/activation"
)

// Targets read and write how many replicas there are of what a ScaledObject names.
type Targets interface {
	// Resolve tells which kind and resource a reference means. It does not look for the object.
	Resolve(ref *kedav1alpha1.ScaleTarget) (kedav1alpha1.GroupVersionKindResource, error)
	// Horizontal tells whether a HorizontalPodAutoscaler can scale a kind; if not, none is made.
	Horizontal(kind kedav1alpha1.GroupVersionKindResource) bool
	// Replicas returns how many replicas an object is to have. The error is a *TargetError if the
	// object is the reason.
	Replicas(ctx context.Context, of activation.Target) (int32, error)
	// SetReplicas has an object have n replicas.
	SetReplicas(ctx context.Context, of activation.Target, n int32) error
}

// A TargetError says that an object cannot be scaled.
type TargetError struct {
	// Missing says that there is no such object; otherwise it has no number of replicas.
	Missing bool
	Err     error
}

// Error implements error.
func (e *TargetError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *TargetError) Unwrap() error { return e.Err }
