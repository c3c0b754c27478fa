package render

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	apisconfig "knative.dev/serving/pkg/apis/config"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"knative.dev/serving/pkg/deployment"

	"ebb.dev/ebb/internal/domain/render/readiness"
)

// podSpec returns the pod that runs a Revision, and what its readiness probes ask beyond Kubernetes'
// fields. Unlike upstream's it has the user's containers only, and the node itself runs their probes.
func podSpec(rev *servingv1.Revision, c Cluster) (corev1.PodSpec, map[string]readiness.Extra) {
	pod := *rev.Spec.PodSpec.DeepCopy()
	pod.TerminationGracePeriodSeconds = clone(rev.Spec.TimeoutSeconds)
	if pod.EnableServiceLinks == nil && c.Defaults != nil {
		pod.EnableServiceLinks = clone(c.Defaults.EnableServiceLinks)
	}
	customPorts := c.Features != nil && c.Features.MultiContainerProbing == apisconfig.Enabled
	extras := make(map[string]readiness.Extra, len(pod.Containers))
	for i := range pod.Containers {
		container := &pod.Containers[i]
		serving := len(pod.Containers) == 1 || len(container.Ports) > 0
		userContainer(container, rev, serving, customPorts)
		extras[container.Name] = ready(container.ReadinessProbe, Port(rev), serving, DetectsHTTP2(rev, c.Features))
	}
	pin(pod.Containers, rev.Status.ContainerStatuses)
	pin(pod.InitContainers, rev.Status.InitContainerStatuses)
	if d := c.Deployment; d != nil {
		if pod.RuntimeClassName == nil {
			pod.RuntimeClassName = d.PodRuntimeClassName(rev.Labels)
		}
		if pod.Affinity == nil && d.DefaultAffinityType == deployment.PreferSpreadRevisionOverNodes {
			pod.Affinity = spread(rev.Name)
		}
	}
	return pod, extras
}

// PodSpec returns the pod a Revision would run as, for checking it before anything exists.
func PodSpec(rev *servingv1.Revision, c Cluster) corev1.PodSpec {
	spec, _ := podSpec(rev, c)
	return spec
}

// DetectsHTTP2 tells whether it has to be found out if a Revision's application speaks HTTP/2: the
// cluster asks for that, and the port's name does not say.
func DetectsHTTP2(rev *servingv1.Revision, f *apisconfig.Features) bool {
	if f == nil || f.AutoDetectHTTP2 != apisconfig.Enabled {
		return false
	}
	ports := rev.Spec.GetContainer().Ports
	return len(ports) == 0 || ports[0].Name == ""
}

// ready brings a readiness probe into a form that the API server takes and returns what it asks
// besides. The probe always is about the pod itself, whatever host it names.
func ready(p *corev1.Probe, port int32, serving, detect bool) readiness.Extra {
	if p == nil {
		return readiness.Extra{}
	}
	extra := readiness.Extra{Aggressive: p.PeriodSeconds == 0}
	switch {
	case p.HTTPGet != nil:
		p.HTTPGet.Host = ""
		p.HTTPGet.Scheme = corev1.URIScheme(strings.ToUpper(string(p.HTTPGet.Scheme)))
		extra.HTTP2 = detect && serving
	case p.TCPSocket != nil:
		p.TCPSocket.Host = ""
	case p.Exec != nil:
		extra.Aggressive = false // a command costs a process each time
		if serving {
			extra.Port = port
		}
	}
	return extra
}

// userContainer completes one container as the runtime contract says: PORT, K_* variables, no
// terminal, probes on the serving port.
func userContainer(c *corev1.Container, rev *servingv1.Revision, serves, customPorts bool) {
	port := Port(rev)
	if serves {
		c.Ports = []corev1.ContainerPort{{Name: servingv1.UserPortName, ContainerPort: port}}
		c.Env = append(c.Env, corev1.EnvVar{Name: "PORT", Value: strconv.Itoa(int(port))})
		aim(c.ReadinessProbe, port, false)
		aim(c.LivenessProbe, port, !customPorts)
		aim(c.StartupProbe, port, false)
	}
	c.Env = append(c.Env,
		corev1.EnvVar{Name: "K_REVISION", Value: rev.Name},
		corev1.EnvVar{Name: "K_CONFIGURATION", Value: rev.Labels[serving.ConfigurationLabelKey]},
		corev1.EnvVar{Name: "K_SERVICE", Value: rev.Labels[serving.ServiceLabelKey]},
	)
	c.Stdin, c.TTY, c.Lifecycle = false, false, nil
	if c.TerminationMessagePolicy == "" {
		c.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	}
}

// aim points a probe without a port (or any, when always) at the serving port.
func aim(p *corev1.Probe, port int32, always bool) {
	if p == nil {
		return
	}
	switch {
	case p.HTTPGet != nil && (always || unset(p.HTTPGet.Port)):
		p.HTTPGet.Port = intstr.FromInt32(port)
	case p.TCPSocket != nil && (always || unset(p.TCPSocket.Port)):
		p.TCPSocket.Port = intstr.FromInt32(port)
	case p.GRPC != nil && p.GRPC.Port == 0:
		p.GRPC.Port = port
	}
}

// unset tells a port left out, or given by the name the serving port does not keep in the pod.
func unset(p intstr.IntOrString) bool {
	return p.Type == intstr.Int && p.IntVal == 0 || p.Type == intstr.String && p.StrVal != servingv1.UserPortName
}

// Port is the port a Revision's application listens on.
func Port(rev *servingv1.Revision) int32 {
	if ports := rev.Spec.GetContainer().Ports; len(ports) > 0 && ports[0].ContainerPort != 0 {
		return ports[0].ContainerPort
	}
	return servingv1.DefaultUserPort
}

// pin replaces images by the digests they were resolved to, which are listed in the same order.
func pin(containers []corev1.Container, resolved []servingv1.ContainerStatus) {
	for i := range containers {
		if i < len(resolved) && resolved[i].ImageDigest != "" {
			containers[i].Image = resolved[i].ImageDigest
		}
	}
}

// spread asks for a Revision's pods on different nodes where there are several.
func spread(revision string) *corev1.Affinity {
	return &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{
			Weight: 100,
			PodAffinityTerm: corev1.PodAffinityTerm{
				TopologyKey:   corev1.LabelHostname,
				LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{serving.RevisionLabelKey: revision}},
			},
		}},
	}}
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}
