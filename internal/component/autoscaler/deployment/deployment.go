// Package deployment scales revisions by the scale subresource of their Deployments.
package deployment

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"ebb.dev/ebb/internal/component/autoscaler"
	"ebb.dev/ebb/internal/domain/render"
)

// A Scaler scales the Deployments of revisions, called as render.DeploymentName says. It writes
// nothing but /scale, so it needs no rights beyond that.
type Scaler struct {
	client kubernetes.Interface
	log    *slog.Logger
}

var _ autoscaler.Scaler = (*Scaler)(nil)

// New returns a scaler that uses client, which should not limit its own rate.
func New(client kubernetes.Interface, log *slog.Logger) *Scaler {
	return &Scaler{client: client, log: log}
}

// Scale implements autoscaler.Scaler by one patch, which the API server turns into nothing if the
// number is there already.
func (s *Scaler) Scale(ctx context.Context, revision types.NamespacedName, replicas int32, reason string) error {
	name := render.DeploymentName(revision.Name)
	patch := `{"spec":{"replicas":` + strconv.Itoa(int(replicas)) + `}}`
	_, err := s.client.AppsV1().Deployments(revision.Namespace).Patch(
		ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "ebb-autoscaler"}, "scale")
	if err != nil {
		return describe(fmt.Sprintf("scaling deployment %s/%s to %d", revision.Namespace, name, replicas), err)
	}
	s.log.Debug("scaled", "revision", revision, "replicas", replicas, "reason", reason)
	return nil
}

// Replicas implements autoscaler.Scaler.
func (s *Scaler) Replicas(ctx context.Context, revision types.NamespacedName) (int32, error) {
	name := render.DeploymentName(revision.Name)
	now, err := s.client.AppsV1().Deployments(revision.Namespace).GetScale(ctx, name, metav1.GetOptions{})
	if err != nil {
		return 0, describe(fmt.Sprintf("reading the scale of deployment %s/%s", revision.Namespace, name), err)
	}
	return now.Spec.Replicas, nil
}

// describe tells what was being done when err happened, and turns a missing Deployment into
// autoscaler.ErrNotFound.
func describe(doing string, err error) error {
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%s: %w: %w", doing, autoscaler.ErrNotFound, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
