package admission

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"knative.dev/pkg/apis"
	apisconfig "knative.dev/serving/pkg/apis/config"
	"knative.dev/serving/pkg/apis/serving"
)

// sidecarPrefix begins the annotations that size the side-car upstream adds to pods.
const sidecarPrefix = "queue.sidecar." + serving.GroupName + "/"

// inert finds what a new or changed template asks of its pods that the API server would take and
// that could never act. It is refused, since it would only show when the pod does not start.
func inert(r review) *apis.FieldError {
	template := changedTemplate(r)
	if template == nil {
		return nil
	}
	spec := &template.Spec.PodSpec
	var errs *apis.FieldError
	for i := range spec.Volumes {
		errs = errs.Also(inertVolume(&spec.Volumes[i]).ViaFieldIndex("volumes", i))
	}
	for i := range spec.Containers {
		c := &spec.Containers[i]
		if len(spec.Containers) > 1 && len(c.Ports) == 0 {
			errs = errs.Also(namedPorts(c).ViaFieldIndex("containers", i))
		}
	}
	return errs.ViaField("spec", "template", "spec")
}

func inertVolume(v *corev1.Volume) *apis.FieldError {
	kind := ""
	switch {
	case v.CSI != nil:
		kind = "csi"
	case v.Image != nil:
		kind = "image"
	default:
		return nil
	}
	return &apis.FieldError{
		Message: fmt.Sprintf("volumes of kind %s are %v", kind, errUnsupported), Paths: []string{kind},
		Details: "use a claim, an emptyDir, or files of the container's own image",
	}
}

// namedPorts finds probes of a container without ports that name one.
func namedPorts(c *corev1.Container) *apis.FieldError {
	var errs *apis.FieldError
	for field, p := range map[string]*corev1.Probe{
		"livenessProbe": c.LivenessProbe, "readinessProbe": c.ReadinessProbe, "startupProbe": c.StartupProbe,
	} {
		if p == nil {
			continue
		}
		switch {
		case p.HTTPGet != nil && p.HTTPGet.Port.Type == intstr.String:
			errs = errs.Also(namedPort(p.HTTPGet.Port).ViaField(field, "httpGet"))
		case p.TCPSocket != nil && p.TCPSocket.Port.Type == intstr.String:
			errs = errs.Also(namedPort(p.TCPSocket.Port).ViaField(field, "tcpSocket"))
		}
	}
	return errs
}

func namedPort(p intstr.IntOrString) *apis.FieldError {
	return apis.ErrInvalidValue(p.StrVal, "port", "the container has no ports, so the probe must give a number")
}

// idleAnnotations warns of annotations about the side-car that no pod here has: a manifest that
// works elsewhere is no mistake.
func idleAnnotations(r review) []string {
	template := changedTemplate(r)
	if template == nil {
		return nil
	}
	var out []string
	for _, key := range slices.Sorted(maps.Keys(template.Annotations)) {
		if strings.HasPrefix(key, sidecarPrefix) || key == apisconfig.QueueProxyPodInfoFeatureKey {
			out = append(out, fmt.Sprintf("spec.template.metadata.annotations[%s] has no effect: pods have no side-car", key))
		}
	}
	return out
}
