package env

import (
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Facts are the parts of a pod's status that are known before the API has them.
type Facts struct {
	PodIPs  []string
	HostIPs []string
}

// Field reads one downward API field of the pod.
func (f Facts) Field(pod *corev1.Pod, path string) (string, error) {
	if base, key, ok := subscript(path); ok {
		switch base {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
		return "", fmt.Errorf("field %q has no keys", path)
	}
	if strings.HasPrefix(path, "status.") {
		return f.status(path)
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	}
	return "", fmt.Errorf("field %q is not supported", path)
}

func (f Facts) status(path string) (string, error) {
	switch path {
	case "status.hostIP":
		return first(f.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(f.HostIPs, ","), nil
	case "status.podIP":
		return first(f.PodIPs), nil
	case "status.podIPs":
		return strings.Join(f.PodIPs, ","), nil
	}
	return "", fmt.Errorf("field %q is not supported", path)
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// subscript splits metadata.labels['key'].
func subscript(path string) (base, key string, ok bool) {
	base, rest, found := strings.Cut(path, "['")
	if !found || !strings.HasSuffix(rest, "']") {
		return "", "", false
	}
	return base, strings.TrimSuffix(rest, "']"), true
}

// formatMap is the file form of labels and annotations: key="escaped value", sorted, one a line.
func formatMap(m map[string]string) string {
	lines := make([]string, 0, len(m))
	for _, k := range sortedKeys(m) {
		lines = append(lines, k+"="+strconv.Quote(m[k]))
	}
	return strings.Join(lines, "\n")
}

// ResourceField reads one limit or request of a container, divided and rounded up; unset limits are
// the node's allocatable. c is used when the reference names no container.
func ResourceField(pod *corev1.Pod, c *corev1.Container, ref *corev1.ResourceFieldSelector, allocatable corev1.ResourceList) (string, error) {
	if ref.ContainerName != "" && (c == nil || c.Name != ref.ContainerName) {
		if c = containerByName(pod, ref.ContainerName); c == nil {
			return "", fmt.Errorf("there is no container %q", ref.ContainerName)
		}
	}
	if c == nil {
		return "", fmt.Errorf("resource %q needs a container name", ref.Resource)
	}
	kind, name, ok := strings.Cut(ref.Resource, ".")
	if !ok {
		return "", fmt.Errorf("resource %q is not supported", ref.Resource)
	}
	resourceName := corev1.ResourceName(name)
	var quantity resource.Quantity
	switch kind {
	case "limits":
		q, set := c.Resources.Limits[resourceName]
		if !set || q.IsZero() {
			if q, set = podLimit(pod, resourceName); !set {
				q = allocatable[resourceName]
			}
		}
		quantity = q
	case "requests":
		quantity = c.Resources.Requests[resourceName]
	default:
		return "", fmt.Errorf("resource %q is not supported", ref.Resource)
	}
	return divide(resourceName, quantity, ref.Divisor), nil
}

func podLimit(pod *corev1.Pod, name corev1.ResourceName) (resource.Quantity, bool) {
	if pod.Spec.Resources == nil {
		return resource.Quantity{}, false
	}
	q, ok := pod.Spec.Resources.Limits[name]
	return q, ok && !q.IsZero()
}

func divide(name corev1.ResourceName, q, divisor resource.Quantity) string {
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == corev1.ResourceCPU {
		return strconv.FormatInt(int64(math.Ceil(float64(q.MilliValue())/float64(divisor.MilliValue()))), 10)
	}
	return strconv.FormatInt(int64(math.Ceil(float64(q.Value())/float64(divisor.Value()))), 10)
}

func containerByName(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	return nil
}

// serviceLinks are the variables about services; the API server's own are given even without
// enableServiceLinks, since clients find it by them.
func (s Source) serviceLinks() map[string]string {
	links := s.Pod.Spec.EnableServiceLinks == nil || *s.Pod.Spec.EnableServiceLinks
	out := map[string]string{}
	for pass := range 2 { // the pod's namespace wins over "kubernetes" of the default one
		for _, svc := range s.Services {
			master := svc.Namespace == corev1.NamespaceDefault && svc.Name == "kubernetes"
			own := svc.Namespace == s.Pod.Namespace && links
			if (pass == 0 && master) || (pass == 1 && own) {
				addService(out, svc)
			}
		}
	}
	return out
}

func addService(out map[string]string, svc *corev1.Service) {
	ip := svc.Spec.ClusterIP
	if ip == "" || ip == corev1.ClusterIPNone || len(svc.Spec.Ports) == 0 {
		return
	}
	name := variable(svc.Name)
	out[name+"_SERVICE_HOST"] = ip
	out[name+"_SERVICE_PORT"] = port(svc.Spec.Ports[0].Port)
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if p.Name != "" {
			out[name+"_SERVICE_PORT_"+variable(p.Name)] = port(p.Port)
		}
		protocol := string(p.Protocol)
		if protocol == "" {
			protocol = string(corev1.ProtocolTCP)
		}
		url := strings.ToLower(protocol) + "://" + net.JoinHostPort(ip, port(p.Port))
		if i == 0 {
			out[name+"_PORT"] = url
		}
		prefix := name + "_PORT_" + port(p.Port) + "_" + strings.ToUpper(protocol)
		out[prefix] = url
		out[prefix+"_PROTO"] = strings.ToLower(protocol)
		out[prefix+"_PORT"] = port(p.Port)
		out[prefix+"_ADDR"] = ip
	}
}

func variable(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }

func port(p int32) string { return strconv.Itoa(int(p)) }
