package render

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/pkg/kmeta"
	"knative.dev/serving/pkg/apis/autoscaling"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
)

const (
	// ServerlessLabel is on what belongs to a ServerlessService, with its name.
	ServerlessLabel = netapi.GroupName + "/serverlessservice"
	// ServiceTypeLabel tells a ServerlessService's public Service from the private one.
	ServiceTypeLabel = netapi.GroupName + "/serviceType"
	// SliceManager is who EndpointSlices say they are kept by.
	SliceManager = "ebb.dev"

	publicService  = "Public"
	privateService = "Private"
)

// Ports of the gateway's listener that stands for Knative's activator, and of the Service before it.
const (
	ActivatorHTTPPort  = 8012
	ActivatorHTTP2Port = 8013
)

// PrivateServiceName is the name of the Service that leads to a Revision's pods.
func PrivateServiceName(revision string) string { return kmeta.ChildName(revision, "-private") }

// ServerlessService returns the object that shows whether requests for a Revision could go straight
// to its pods (Serve) or must be buffered (Proxy).
func ServerlessService(pa *autoscalingv1alpha1.PodAutoscaler, mode netv1alpha1.ServerlessServiceOperationMode, activators int32) *netv1alpha1.ServerlessService {
	return &netv1alpha1.ServerlessService{
		ObjectMeta: metav1.ObjectMeta{
			Name:            pa.Name,
			Namespace:       pa.Namespace,
			Labels:          with(pa.Labels, nil),
			Annotations:     without(pa.Annotations, func(key string) bool { return key == autoscaling.MetricAnnotationKey }),
			OwnerReferences: ownedBy(pa),
		},
		Spec: netv1alpha1.ServerlessServiceSpec{
			Mode: mode, ObjectRef: pa.Spec.ScaleTargetRef, ProtocolType: pa.Spec.ProtocolType, NumActivators: activators,
		},
	}
}

// serverlessMeta is what the children of a ServerlessService have alike. There are several of them for
// each Revision, so they carry no annotations.
func serverlessMeta(sks *netv1alpha1.ServerlessService, name, kind string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:            name,
		Namespace:       sks.Namespace,
		Labels:          with(sks.Labels, map[string]string{ServerlessLabel: sks.Name, ServiceTypeLabel: kind}),
		OwnerReferences: ownedBy(sks),
	}
}

// PublicService returns the Service named like a Revision: an alias of the gateway, which knows the
// Revision by that host. So it costs no address and no listener, and its requests are counted.
func PublicService(sks *netv1alpha1.ServerlessService, gateway string) *corev1.Service {
	protocol := sks.Spec.ProtocolType
	port := int32(netapi.ServicePort(protocol))
	return &corev1.Service{
		ObjectMeta: serverlessMeta(sks, sks.Name, publicService),
		Spec: corev1.ServiceSpec{
			Type:            corev1.ServiceTypeExternalName,
			ExternalName:    gateway,
			SessionAffinity: corev1.ServiceAffinityNone,
			Ports: []corev1.ServicePort{{
				Name:        netapi.ServicePortName(protocol),
				Protocol:    corev1.ProtocolTCP,
				AppProtocol: netapi.AppProtocol(protocol),
				Port:        port,
				TargetPort:  intstr.FromInt32(port),
			}},
		},
	}
}

// PrivateService returns the Service that selects a Revision's pods. It has no address of its own:
// its name leads to the pods, which listen on port.
func PrivateService(sks *netv1alpha1.ServerlessService, selector map[string]string, port int32) *corev1.Service {
	protocol := sks.Spec.ProtocolType
	return &corev1.Service{
		ObjectMeta: serverlessMeta(sks, PrivateServiceName(sks.Name), privateService),
		Spec: corev1.ServiceSpec{
			Type:            corev1.ServiceTypeClusterIP,
			ClusterIP:       corev1.ClusterIPNone,
			SessionAffinity: corev1.ServiceAffinityNone,
			Selector:        with(selector, nil),
			Ports: []corev1.ServicePort{{
				Name:        netapi.ServicePortName(protocol),
				Protocol:    corev1.ProtocolTCP,
				AppProtocol: netapi.AppProtocol(protocol),
				Port:        netapi.ServiceHTTPPort,
				TargetPort:  intstr.FromInt32(port),
			}},
		},
	}
}

// PublicSlice returns the endpoints of a public Service: where requests for the Revision go, by
// Knative's reading of the mode.
func PublicSlice(sks *netv1alpha1.ServerlessService, endpoints []discoveryv1.Endpoint, port int32) *discoveryv1.EndpointSlice {
	meta := serverlessMeta(sks, sks.Name, publicService)
	meta.Labels[discoveryv1.LabelServiceName] = sks.Name
	meta.Labels[discoveryv1.LabelManagedBy] = SliceManager
	name, protocol := netapi.ServicePortName(sks.Spec.ProtocolType), corev1.ProtocolTCP
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  meta,
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   endpoints,
		Ports: []discoveryv1.EndpointPort{{
			Name: &name, Protocol: &protocol, Port: &port, AppProtocol: netapi.AppProtocol(sks.Spec.ProtocolType),
		}},
	}
}

// ActivatorPort is the port at which the gateway takes requests for Revisions of a protocol.
func ActivatorPort(protocol netapi.ProtocolType) int32 {
	if protocol == netapi.ProtocolH2C {
		return ActivatorHTTP2Port
	}
	return ActivatorHTTPPort
}
