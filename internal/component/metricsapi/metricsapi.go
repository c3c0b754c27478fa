// Package metricsapi serves metrics.k8s.io/v1beta1: what nodes and pods use now, for `kubectl top` and
// the HorizontalPodAutoscaler.
//
// Nothing is measured while nobody asks. Nodes and containers count the CPU time they have used, so a
// rate needs two readings; the Meter keeps those of recent requests and takes a second one of its own
// when there are none.
package metricsapi

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	genericfilters "k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	serverfilters "k8s.io/apiserver/pkg/server/filters"
	"k8s.io/apiserver/pkg/util/compatibility"
	restclient "k8s.io/client-go/rest"
	openapi "k8s.io/kube-openapi/pkg/common"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/metrics/pkg/apis/metrics"
	"k8s.io/metrics/pkg/apis/metrics/install"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// Group and Version are what the handler serves.
const (
	Group   = metrics.GroupName
	Version = "v1beta1"
)

// Source reads the counters of one node and its pods; a node's /stats/summary is one.
type Source interface {
	Summary(ctx context.Context) (*stats.Summary, error)
}

// Objects finds the pods and nodes a request selects, from memory. Listers of informers do.
type Objects interface {
	Pods(namespace string, selector labels.Selector) ([]*corev1.Pod, error)
	Nodes(selector labels.Selector) ([]*corev1.Node, error)
}

// Config says where the figures and the objects they belong to come from.
type Config struct {
	Sources []Source
	Objects Objects
	Log     *slog.Logger
}

// New returns the handler. It does not ask who calls: it must be reachable by an API server only,
// which has authorized the request.
func New(cfg Config) (http.Handler, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	codecs := serializer.NewCodecFactory(scheme)

	server, err := newServer(codecs)
	if err != nil {
		return nil, fmt.Errorf("making the metrics API: %w", err)
	}
	meter := NewMeter(cfg.Sources, cfg.Log)
	info := genericapiserver.NewDefaultAPIGroupInfo(Group, scheme, metav1.ParameterCodec, codecs)
	info.VersionedResourcesStorageMap[Version] = map[string]rest.Storage{
		"pods":  &podStorage{storage{meter: meter, objects: cfg.Objects, resource: v1beta1.Resource("pods")}},
		"nodes": &nodeStorage{storage{meter: meter, objects: cfg.Objects, resource: v1beta1.Resource("nodes")}},
	}
	if err := server.InstallAPIGroup(&info); err != nil {
		return nil, fmt.Errorf("installing the metrics API: %w", err)
	}
	installSchemas(server.Handler.NonGoRestfulMux)
	return server.Handler, nil
}

// newServer is upstream's API machinery without listeners, storage or checks of the caller.
func newServer(codecs serializer.CodecFactory) (*genericapiserver.GenericAPIServer, error) {
	c := genericapiserver.NewConfig(codecs)
	c.ExternalAddress = "localhost:443"
	c.LoopbackClientConfig = &restclient.Config{}
	c.EffectiveVersion = compatibility.DefaultBuildEffectiveVersion()
	// Schemas are there to apply objects by; these are only read, and openapi.json describes them.
	c.SkipOpenAPIInstallation = true
	c.OpenAPIV3Config = &openapi.OpenAPIV3Config{
		IgnorePrefixes: []string{"/apis/" + Group},
		GetDefinitions: func(openapi.ReferenceCallback) map[string]openapi.OpenAPIDefinition { return nil },
	}
	c.EnableIndex, c.EnableProfiling, c.EnableMetrics = false, false, false
	c.BuildHandlerChainFunc = func(h http.Handler, c *genericapiserver.Config) http.Handler {
		h = genericfilters.WithCacheControl(h)
		h = genericfilters.WithRequestInfo(h, c.RequestInfoResolver)
		return serverfilters.WithPanicRecovery(h, c.RequestInfoResolver)
	}
	return c.Complete(nil).New("ebb-metrics", genericapiserver.NewEmptyDelegate())
}
