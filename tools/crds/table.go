package main

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// kind is what a definition needs beyond its Go type: how kubectl names and shows it.
type kind struct {
	pkg, group, version, name string
	plural                    string // when the rules of English fail
	short                     []string
	categories                []string
	labels                    map[string]string
	columns                   []apiextensionsv1.CustomResourceColumnDefinition
	cluster                   bool     // not in a namespace
	whole                     bool     // status is written together with the rest, as one writer has both
	pod                       []string // path to where a pod's fields are inlined
	template                  []string // path to a template whose metadata is kept
	scale                     bool
	marked                    bool // names, columns and rules are upstream's, from the markers beside its types
	job                       bool // spec.jobTargetRef is a Job's
}

const (
	servingPkg     = "knative.dev/serving/pkg/apis/serving/v1"
	servingBetaPkg = "knative.dev/serving/pkg/apis/serving/v1beta1"
	autoscalingPkg = "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	networkingPkg  = "knative.dev/networking/pkg/apis/networking/v1alpha1"
	cachingPkg     = "knative.dev/caching/pkg/apis/caching/v1alpha1"
	kedaPkg        = "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	kedaEventsPkg  = "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	kedaHTTPPkg    = "github.com/kedacore/http-add-on/operator/apis/http/v1alpha1"
	kedaRoutePkg   = "github.com/kedacore/http-add-on/operator/apis/http/v1beta1"
)

var (
	public     = []string{"all", "knative", "serving"}
	internal   = []string{"knative-internal", "networking"}
	scaling    = []string{"knative-internal", "autoscaling"}
	ready      = condition("Ready", "status")
	reason     = condition("Reason", "reason")
	url        = text("URL", ".status.url")
	created    = text("LatestCreated", ".status.latestCreatedRevisionName")
	latest     = text("LatestReady", ".status.latestReadyRevisionName")
	addressed  = map[string]string{"duck.knative.dev/addressable": "true"}
	podspecced = map[string]string{"duck.knative.dev/podspecable": "true"}
)

// kinds is the one table of what the definitions add to upstream's types.
var kinds = []kind{
	{
		pkg: servingPkg, group: "serving.knative.dev", version: "v1", name: "Service", short: []string{"kservice", "ksvc"},
		categories: public, labels: map[string]string{"duck.knative.dev/addressable": "true", "duck.knative.dev/podspecable": "true"},
		columns:  cols(url, created, latest, ready, reason),
		pod:      []string{"spec", "template", "spec"},
		template: []string{"spec", "template"},
	},
	{
		pkg: servingPkg, group: "serving.knative.dev", version: "v1", name: "Configuration", short: []string{"config", "cfg"},
		categories: public, labels: podspecced,
		columns:  cols(created, latest, ready, reason),
		pod:      []string{"spec", "template", "spec"},
		template: []string{"spec", "template"},
	},
	{
		pkg: servingPkg, group: "serving.knative.dev", version: "v1", name: "Revision", short: []string{"rev"},
		categories: public,
		columns: cols(
			text("Config Name", `.metadata.labels['serving\.knative\.dev/configuration']`),
			text("Generation", `.metadata.labels['serving\.knative\.dev/configurationGeneration']`),
			ready, reason,
			number("Actual Replicas", ".status.actualReplicas"), number("Desired Replicas", ".status.desiredReplicas")),
		pod: []string{"spec"},
	},
	{
		pkg: servingPkg, group: "serving.knative.dev", version: "v1", name: "Route", short: []string{"rt"},
		categories: public, labels: addressed,
		columns: cols(url, ready, reason),
	},
	{
		pkg: servingBetaPkg, group: "serving.knative.dev", version: "v1beta1", name: "DomainMapping", short: []string{"dm"},
		categories: public,
		columns:    cols(url, ready, reason),
	},
	{
		pkg: autoscalingPkg, group: "autoscaling.internal.knative.dev", version: "v1alpha1", name: "PodAutoscaler", short: []string{"kpa", "pa"},
		categories: scaling,
		columns:    cols(number("DesiredScale", ".status.desiredScale"), number("ActualScale", ".status.actualScale"), ready, reason),
	},
	{
		pkg: autoscalingPkg, group: "autoscaling.internal.knative.dev", version: "v1alpha1", name: "Metric",
		categories: scaling, whole: true,
		columns: cols(ready, reason),
	},
	{
		pkg: networkingPkg, group: "networking.internal.knative.dev", version: "v1alpha1", name: "Ingress", plural: "ingresses",
		short: []string{"kingress", "king"}, categories: internal,
		columns: cols(ready, reason),
	},
	{
		pkg: networkingPkg, group: "networking.internal.knative.dev", version: "v1alpha1", name: "Certificate", short: []string{"kcert"},
		categories: internal,
		columns:    cols(ready, reason),
	},
	{
		pkg: networkingPkg, group: "networking.internal.knative.dev", version: "v1alpha1", name: "ServerlessService", short: []string{"sks"},
		categories: internal, whole: true,
		columns: cols(
			text("Mode", ".spec.mode"), number("Activators", ".spec.numActivators"),
			text("ServiceName", ".status.serviceName"), text("PrivateServiceName", ".status.privateServiceName"), ready, reason),
	},
	{
		pkg: networkingPkg, group: "networking.internal.knative.dev", version: "v1alpha1", name: "ClusterDomainClaim", short: []string{"cdc"},
		categories: internal, cluster: true,
	},
	{
		pkg: cachingPkg, group: "caching.internal.knative.dev", version: "v1alpha1", name: "Image", short: []string{"img"},
		categories: []string{"knative-internal", "caching"},
		columns:    cols(text("Image", ".spec.image")),
	},
	{pkg: kedaPkg, group: "keda.sh", version: "v1alpha1", name: "ScaledObject", marked: true},
	{pkg: kedaPkg, group: "keda.sh", version: "v1alpha1", name: "ScaledJob", marked: true, job: true},
	{pkg: kedaPkg, group: "keda.sh", version: "v1alpha1", name: "TriggerAuthentication", marked: true},
	{pkg: kedaPkg, group: "keda.sh", version: "v1alpha1", name: "ClusterTriggerAuthentication", marked: true},
	{pkg: kedaEventsPkg, group: "eventing.keda.sh", version: "v1alpha1", name: "CloudEventSource", marked: true},
	{pkg: kedaEventsPkg, group: "eventing.keda.sh", version: "v1alpha1", name: "ClusterCloudEventSource", marked: true},
	{pkg: kedaHTTPPkg, group: "http.keda.sh", version: "v1alpha1", name: "HTTPScaledObject", marked: true},
	{pkg: kedaRoutePkg, group: "http.keda.sh", version: "v1beta1", name: "InterceptorRoute", marked: true},
}

// podFields are the fields of a pod that Serving takes; whatever else a manifest has is an unknown
// field, and refused. True keeps a field's content as it is: its own schema would be larger than
// all the rest, and admission checks it against the features that allow it.
var podFields = map[string]bool{
	"affinity": true, "automountServiceAccountToken": false, "containers": false, "dnsConfig": true,
	"dnsPolicy": false, "enableServiceLinks": false, "hostAliases": true, "hostIPC": false,
	"hostNetwork": false, "hostPID": false, "imagePullSecrets": false, "initContainers": true,
	"nodeSelector": false, "priorityClassName": false, "runtimeClassName": false, "schedulerName": false,
	"securityContext": true, "serviceAccountName": false, "shareProcessNamespace": false,
	"tolerations": true, "topologySpreadConstraints": true, "volumes": false,
}

// containerFields are the fields of a container that Serving takes, or must see to refuse them with
// a reason.
var containerFields = map[string]bool{
	"args": false, "command": false, "env": false, "envFrom": false, "image": false, "imagePullPolicy": false,
	"lifecycle": true, "livenessProbe": false, "name": false, "ports": false, "readinessProbe": false,
	"resources": false, "securityContext": false, "startupProbe": false, "stdin": false, "stdinOnce": false,
	"terminationMessagePath": false, "terminationMessagePolicy": false, "tty": false,
	"volumeDevices": true, "volumeMounts": false, "workingDir": false,
}

// volumeFields are the kinds of volumes Serving takes.
var volumeFields = map[string]bool{
	"configMap": false, "csi": true, "emptyDir": true, "ephemeral": true, "hostPath": true, "image": true,
	"name": false, "persistentVolumeClaim": true, "projected": false, "secret": false,
}

// revisionFields are what a Revision adds to a pod.
var revisionFields = []string{"containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds", "idleTimeoutSeconds"}

func cols(c ...apiextensionsv1.CustomResourceColumnDefinition) []apiextensionsv1.CustomResourceColumnDefinition {
	return c
}

func text(name, path string) apiextensionsv1.CustomResourceColumnDefinition {
	return apiextensionsv1.CustomResourceColumnDefinition{Name: name, Type: "string", JSONPath: path}
}

func number(name, path string) apiextensionsv1.CustomResourceColumnDefinition {
	return apiextensionsv1.CustomResourceColumnDefinition{Name: name, Type: "integer", JSONPath: path}
}

func condition(name, field string) apiextensionsv1.CustomResourceColumnDefinition {
	return text(name, ".status.conditions[?(@.type=='Ready')]."+field)
}
