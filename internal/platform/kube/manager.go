package kube

import (
	"fmt"
	"log/slog"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/client-go/rest"
	netapi "knative.dev/networking/pkg/apis/networking"
	"knative.dev/serving/pkg/apis/serving"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"ebb.dev/ebb/internal/platform/telemetry"
)

// Unlimited returns a copy of c without a client-side rate limit: a wake-up must never wait for a
// token, and the API server protects itself by priority and fairness.
func Unlimited(c *rest.Config) *rest.Config {
	out := rest.CopyConfig(c)
	out.QPS, out.Burst, out.RateLimiter = -1, 0, nil
	return out
}

// NewManager returns the one controller-runtime manager of the process.
//
// Its cache holds what belongs to revisions and routes only, without managed fields, of Secrets
// those of certificates, of ConfigMaps those with responses, and of HorizontalPodAutoscalers all: who has one is asked often; clients read Secrets and ServiceAccounts from the API when needed. No server is opened, nobody is
// elected and nothing is synchronised again by the clock.
//
// Statuses that decide nothing are written when they have settled; starts, if not nil, tells of
// objects that are on their way.
func NewManager(c *rest.Config, log *slog.Logger, starts *Starts) (ctrl.Manager, error) {
	ofRevision, err := hasLabel(serving.RevisionLabelKey)
	if err != nil {
		return nil, err
	}
	ofRoute, err := hasLabel(serving.RouteLabelKey)
	if err != nil {
		return nil, err
	}
	ofCertificate, err := hasLabel(netapi.CertificateUIDLabelKey)
	if err != nil {
		return nil, err
	}
	skipNames := true
	quiet := Unlimited(c)
	quiet.WarningHandlerWithContext = rest.NoWarnings{} // they were shown to whoever wrote the manifest
	mgr, err := ctrl.NewManager(quiet, ctrl.Options{
		Scheme:                 Scheme(),
		Logger:                 logr.FromSlogHandler(telemetry.Floor(log.Handler(), slog.LevelWarn)),
		Metrics:                metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress: "0",
		Controller:             config.Controller{SkipNameValidation: &skipNames},
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Pod{}:                            {Label: ofRevision, Transform: slimPod},
				&appsv1.Deployment{}:                     {Label: ofRevision},
				&autoscalingv2.HorizontalPodAutoscaler{}: {Transform: slimHorizontal},
				&corev1.Service{}:                        {Label: ofRoute},
				&corev1.Secret{}:                         {Label: ofCertificate},
				&corev1.ConfigMap{}:                      {Label: labels.SelectorFromSet(labels.Set{responseBody: "true"})},

				CertManagerDefinition(): {Field: fields.OneTermEqualSelector(metav1.ObjectNameField, CertManagerDefinition().Name)},
			},
		},
		NewClient: func(c *rest.Config, o client.Options) (client.Client, error) {
			direct, err := client.New(c, o)
			return newPatient(direct, log, starts), err
		},
		Client: client.Options{Cache: &client.CacheOptions{
			DisableFor: []client.Object{&corev1.Secret{}, &corev1.ServiceAccount{}, &corev1.ConfigMap{}},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("making the controller manager: %w", err)
	}
	return mgr, nil
}

// responseBody marks the ConfigMaps that hold what routes answer while nobody is there.
const responseBody = "http.keda.sh/response-body"

// CertManagerDefinition is the definition of cert-manager's certificates by its name, there where
// cert-manager is.
func CertManagerDefinition() *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: crdKind})
	o.Name = "certificates.cert-manager.io"
	return o
}

func hasLabel(key string) (labels.Selector, error) {
	r, err := labels.NewRequirement(key, selection.Exists, nil)
	if err != nil {
		return nil, fmt.Errorf("selecting by label %s: %w", key, err)
	}
	return labels.NewSelector().Add(*r), nil
}

// slimPod keeps of a pod what conditions are made of: identity, node, ports and status.
func slimPod(in any) (any, error) {
	pod, ok := in.(*corev1.Pod)
	if !ok {
		return in, nil
	}
	slim := &corev1.Pod{
		TypeMeta: pod.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{
			Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
			Labels: pod.Labels, CreationTimestamp: pod.CreationTimestamp,
			DeletionTimestamp: pod.DeletionTimestamp, OwnerReferences: pod.OwnerReferences,
		},
		Status: pod.Status,
	}
	slim.Spec.NodeName = pod.Spec.NodeName
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		slim.Spec.Containers = append(slim.Spec.Containers, corev1.Container{Name: c.Name, Ports: c.Ports})
	}
	return slim, nil
}
