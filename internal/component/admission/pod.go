package admission

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"knative.dev/pkg/apis"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// templatePath is where a pod's fields are in a Service or Configuration.
const templatePath = "spec.template."

// pods asks the API server, by a dry run, whether it would take a template's pod.
type pods struct{ client kubernetes.Interface }

// The annotation by which a Service asks for a dry run's strictness although it is to be stored.
const (
	dryRunAnnotation = "features.knative.dev/podspec-dryrun"
	dryRunEnabled    = "enabled"
	dryRunStrict     = "strict" // even where somebody else's webhook cannot tell what it would do
)

// check tries the pod of a new or changed template. In a dry run, and where an annotation asks for
// it, every refusal counts; otherwise only an invalid pod does: a quota or a missing ServiceAccount
// may be put right later.
func (p pods) check(r review, namespace string, s *settings.Settings) error {
	template := changedTemplate(r)
	if template == nil || p.client == nil {
		return nil
	}
	rev := &servingv1.Revision{ObjectMeta: template.ObjectMeta, Spec: *template.Spec.DeepCopy()}
	rev.Namespace = namespace
	rev.Spec.SetDefaults(r.ctx)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "dry-run-validation", Namespace: namespace, Labels: template.Labels, Annotations: template.Annotations},
		Spec: render.PodSpec(rev, render.Cluster{
			Deployment: s.Deployment, Defaults: s.Defaults, Features: s.Features,
		}),
	}
	_, err := p.client.CoreV1().Pods(namespace).Create(r.ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case err == nil:
		return nil
	case apierrors.IsInvalid(err):
		return fields(err)
	case demanding(r, err):
		return apis.ErrGeneric("dry run failed with "+err.Error(), "spec.template")
	}
	return nil
}

// demanding tells whether a refusal counts that may be put right later.
func demanding(r review, refusal error) bool {
	mode := ""
	if o, ok := r.now.(metav1.Object); ok {
		mode = strings.ToLower(o.GetAnnotations()[dryRunAnnotation])
	}
	switch {
	case mode == dryRunStrict:
		return true
	case strings.Contains(refusal.Error(), "does not support dry run"):
		return false
	}
	return mode == dryRunEnabled || apis.IsDryRun(r.ctx)
}

// changedTemplate returns the template of a Service, or of a Configuration that is nobody's, when
// the request brings or changes it.
func changedTemplate(r review) *servingv1.RevisionTemplateSpec {
	now := templateOf(r.now)
	if now == nil {
		return nil
	}
	if old := templateOf(r.old); old != nil && equality.Semantic.DeepEqual(now.Spec, old.Spec) {
		return nil
	}
	return now
}

func templateOf(r resource) *servingv1.RevisionTemplateSpec {
	switch o := r.(type) {
	case *servingv1.Service:
		return &o.Spec.Template
	case *servingv1.Configuration:
		if o.Labels[serving.ServiceLabelKey] == "" {
			return &o.Spec.Template
		}
	}
	return nil
}

// fields puts the API server's complaints about a pod into those about its template.
func fields(err error) error {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || status.Status().Details == nil || len(status.Status().Details.Causes) == 0 {
		return apis.ErrGeneric("dry run failed with "+err.Error(), "spec.template")
	}
	var out *apis.FieldError
	for _, cause := range status.Status().Details.Causes {
		path := "spec.template"
		if strings.HasPrefix(cause.Field, "spec.") || strings.HasPrefix(cause.Field, "metadata.") {
			path = templatePath + cause.Field
		}
		out = out.Also(apis.ErrGeneric(fmt.Sprintf("dry run failed with %s", cause.Message), path))
	}
	return out
}
