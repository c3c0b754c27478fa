package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// The resources the benchmarks touch.
var (
	services    = schema.GroupVersionResource{Group: "serving.knative.dev", Version: "v1", Resource: "services"}
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	configMaps  = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

	plainServices  = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	endpointSlices = schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}
)

// namespace is where everything is made.
const namespace = "default"

// access is how the Kubernetes of a data folder is reached, without a limit of the client's own, so
// that the server is measured and not the client.
func access(data string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(data, "kubeconfig"))
	if err != nil {
		return nil, fmt.Errorf("reading kubeconfig: %w", err)
	}
	config.QPS, config.WarningHandlerWithContext = -1, rest.NoWarnings{}
	return config, nil
}

func (i *installation) client() (dynamic.Interface, error) {
	config, err := access(i.data)
	if err != nil {
		return nil, err
	}
	return dynamic.NewForConfig(config)
}

// knative is a Service's manifest.
func knative(name, image string, annotations map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "serving.knative.dev/v1", "kind": "Service",
		"metadata": map[string]any{"name": name, "namespace": namespace},
		"spec": map[string]any{"template": map[string]any{
			"metadata": map[string]any{"annotations": annotations},
			"spec":     map[string]any{"containers": []any{map[string]any{"image": image}}},
		}},
	}}
}

// conditioned tells whether an object's newest generation has a condition that is true.
func conditioned(o *unstructured.Unstructured, condition string) bool {
	observed, _, _ := unstructured.NestedInt64(o.Object, "status", "observedGeneration")
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, item := range list {
		c, ok := item.(map[string]any)
		if ok && c["type"] == condition {
			return c["status"] == "True" && observed == o.GetGeneration()
		}
	}
	return false
}

// creation makes an object and gives the time until it has a condition.
func creation(ctx context.Context, of dynamic.ResourceInterface, o *unstructured.Unstructured, condition string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	one := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", o.GetName()).String()}
	list, err := of.List(ctx, one)
	if err != nil {
		return 0, err
	}
	one.ResourceVersion = list.GetResourceVersion()
	w, err := of.Watch(ctx, one)
	if err != nil {
		return 0, err
	}
	defer w.Stop()
	began := time.Now()
	if _, err := of.Create(ctx, o, metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	if err := follow(ctx, w, func(_ watch.EventType, o *unstructured.Unstructured) bool { return conditioned(o, condition) }); err != nil {
		return 0, fmt.Errorf("waiting for %s %s to be %s: %w", o.GetKind(), o.GetName(), condition, err)
	}
	return time.Since(began), nil
}

// follow reads a watch until done says so.
func follow(ctx context.Context, w watch.Interface, done func(watch.EventType, *unstructured.Unstructured) bool) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case e, ok := <-w.ResultChan():
			if !ok {
				return errors.New("the watch ended")
			}
			o, ok := e.Object.(*unstructured.Unstructured)
			if !ok || e.Type == watch.Error {
				return fmt.Errorf("the watch failed: %v", e.Object)
			}
			if done(e.Type, o) {
				return nil
			}
		}
	}
}

// image builds the hello, leaves it in the registry and unpacked, and gives its name.
func (i *installation) image(ctx context.Context) (string, error) {
	if _, err := i.do(ctx, "", "deploy", helloFolder, "--name", "source"); err != nil {
		return "", err
	}
	image, err := i.do(ctx, "", "kubectl", "get", "ksvc", "source", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
	if err != nil {
		return "", err
	}
	_, err = i.do(ctx, "", "delete", "source")
	return image, err
}

// zeroAtFirst lets services start without an instance.
func zeroAtFirst(ctx context.Context, client dynamic.Interface) error {
	patch := []byte(`{"data":{"allow-zero-initial-scale":"true"}}`)
	_, err := client.Resource(configMaps).Namespace("knative-serving").Patch(ctx, "config-autoscaler", types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// furnish starts an ebb on an empty folder and readies what services need: the image that is their
// code, and a client to make them with. The caller ends the ebb.
func (r *run) furnish(ctx context.Context, name string) (_ *installation, image string, _ dynamic.Interface, err error) {
	i, err := r.install(name)
	if err != nil {
		return nil, "", nil, err
	}
	if _, err := i.up(ctx); err != nil {
		return nil, "", nil, err
	}
	defer func() {
		if err != nil {
			_ = i.down() // what failed is the news
		}
	}()
	if image, err = i.image(ctx); err != nil {
		return nil, "", nil, err
	}
	client, err := i.client()
	return i, image, client, err
}
