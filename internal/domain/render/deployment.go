package render

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"knative.dev/pkg/kmeta"
	"knative.dev/serving/pkg/apis/autoscaling"
	apisconfig "knative.dev/serving/pkg/apis/config"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"knative.dev/serving/pkg/deployment"

	"ebb.dev/ebb/internal/domain/render/readiness"
)

const (
	appLabel                   = "app"
	defaultContainerAnnotation = "kubectl.kubernetes.io/default-container"
)

// Cluster is what the cluster's settings add to a pod.
type Cluster struct {
	Deployment *deployment.Config
	Defaults   *apisconfig.Defaults
	Features   *apisconfig.Features
}

// DeploymentName is the name of a Revision's Deployment.
func DeploymentName(revision string) string { return kmeta.ChildName(revision, "-deployment") }

// Deployment returns the Deployment that runs a Revision with so many replicas to begin with. A
// label carries the hash of all but the replicas, which are the autoscaler's from then on.
func Deployment(rev *servingv1.Revision, c Cluster, replicas int32) (*appsv1.Deployment, error) {
	labels := RevisionChildLabels(rev)
	spec, extras := podSpec(rev, c)
	annotations, err := podAnnotations(rev, extras)
	if err != nil {
		return nil, err
	}
	none := intstr.FromInt32(0)
	keepNone := int32(0)
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{
			Name:            DeploymentName(rev.Name),
			Namespace:       rev.Namespace,
			Labels:          labels,
			Annotations:     without(rev.Annotations, notForPods),
			OwnerReferences: ownedBy(rev),
		},
		Spec: appsv1.DeploymentSpec{
			Selector:                &metav1.LabelSelector{MatchLabels: map[string]string{serving.RevisionUID: string(rev.UID)}},
			ProgressDeadlineSeconds: progressDeadline(rev, c.Deployment),
			RevisionHistoryLimit:    &keepNone,
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: &none},
			},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: with(labels, nil), Annotations: annotations},
				Spec:       spec,
			},
		},
	}
	sum, err := hash(d)
	if err != nil {
		return nil, err
	}
	d.Labels[serving.RevisionDeploymentHashLabelKey] = sum
	d.Spec.Replicas = &replicas
	return d, nil
}

// RevisionChildLabels are the labels of what belongs to a Revision.
func RevisionChildLabels(rev *servingv1.Revision) map[string]string {
	labels := without(rev.Labels, func(key string) bool {
		return key == serving.RouteLabelKey || key == serving.RoutingStateLabelKey
	})
	labels[serving.RevisionLabelKey] = rev.Name
	labels[serving.RevisionUID] = string(rev.UID)
	if _, ok := labels[appLabel]; !ok {
		labels[appLabel] = rev.Name
	}
	return labels
}

// routing tells the annotations that change with a Revision's routes, not with what it runs.
func routing(key string) bool {
	switch key {
	case serving.RevisionLastPinnedAnnotationKey, serving.RevisionPreservedAnnotationKey,
		serving.RoutingStateModifiedAnnotationKey, serving.RoutesAnnotationKey:
		return true
	}
	return false
}

// notForPods tells the annotations that must not roll pods when they change.
func notForPods(key string) bool {
	return routing(key) || len(key) > len(autoscaling.GroupName) && key[:len(autoscaling.GroupName)] == autoscaling.GroupName
}

func podAnnotations(rev *servingv1.Revision, extras map[string]readiness.Extra) (map[string]string, error) {
	annotations := without(rev.Annotations, notForPods)
	if c := rev.Spec.GetContainer(); c.Name != "" {
		annotations[defaultContainerAnnotation] = c.Name
	}
	value, err := readiness.Encode(extras)
	if value != "" {
		annotations[readiness.Annotation] = value
	}
	return annotations, err
}

func progressDeadline(rev *servingv1.Revision, c *deployment.Config) *int32 {
	deadline := c.ProgressDeadline
	if _, v, ok := serving.ProgressDeadlineAnnotation.Get(rev.Annotations); ok {
		if d, err := time.ParseDuration(v); err == nil { // admission refuses others
			deadline = d
		}
	}
	seconds := int32(deadline.Seconds())
	return &seconds
}

// hash names the Deployment's content; a change of it means that pods must be replaced.
func hash(d *appsv1.Deployment) (string, error) {
	raw, err := json.Marshal(struct {
		Labels, Annotations map[string]string
		Spec                appsv1.DeploymentSpec
	}{d.Labels, d.Annotations, d.Spec})
	if err != nil {
		return "", fmt.Errorf("hashing deployment %s: %w", d.Name, err)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8]), nil
}
