package admission

import (
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/autoscaling"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/domain/scale"
)

// errUnsupported marks what upstream takes and ebb does not act upon yet. It is refused, since an
// object that nobody looks after would only seem to work.
var errUnsupported = errors.New("not supported by ebb yet")

// unsupported finds the first thing in an object that nothing here would act upon.
func unsupported(r resource) error {
	switch o := r.(type) {
	case *servingv1.Service:
		return unsupportedClass("spec.template.metadata.annotations", o.Spec.Template.ObjectMeta)
	case *servingv1.Configuration:
		return unsupportedClass("spec.template.metadata.annotations", o.Spec.Template.ObjectMeta)
	case *servingv1.Revision:
		return unsupportedClass("metadata.annotations", o.ObjectMeta)
	default:
		return nil
	}
}

func unsupportedClass(path string, meta metav1.ObjectMeta) error {
	class := meta.Annotations[autoscaling.ClassAnnotationKey]
	if class == "" || class == string(scale.KPA) || class == string(scale.HPA) {
		return nil
	}
	return fmt.Errorf("%s[%s]: class %q is %w: leave it out, or use %q", path, autoscaling.ClassAnnotationKey, class, errUnsupported, scale.KPA)
}
