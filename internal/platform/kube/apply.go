package kube

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"
	"sync"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// FieldOwner is the field manager of everything ebb applies.
const FieldOwner = "ebb"

// hashAnnotation on an applied object tells what was applied last, so that an unchanged manifest
// costs one small read.
const hashAnnotation = "ebb.dev/manifest"

// keepAnnotation on a manifest says that an existing object is its user's: it is only created.
const keepAnnotation = "ebb.dev/keep"

const crdKind = "CustomResourceDefinition"

// Apply makes the API server hold the manifests (YAML documents of the file systems given) and
// returns once every custom resource definition among them is established.
//
// Namespaces and definitions go first, all others after them; each group at once. A manifest with
// the annotation ebb.dev/keep is only created when missing: the object belongs to its user then.
func Apply(ctx context.Context, c *rest.Config, manifests ...fs.FS) error {
	objects, err := decode(manifests)
	if err != nil {
		return err
	}
	return apply(ctx, c, objects)
}

// ApplyObjects is Apply for objects in memory; each must carry its kind.
func ApplyObjects(ctx context.Context, c *rest.Config, objects ...runtime.Object) error {
	var all []*unstructured.Unstructured
	for _, o := range objects {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			return fmt.Errorf("reading %T: %w", o, err)
		}
		all = append(all, &unstructured.Unstructured{Object: content})
	}
	return apply(ctx, c, all)
}

func apply(ctx context.Context, c *rest.Config, objects []*unstructured.Unstructured) error {
	client, err := dynamic.NewForConfig(Unlimited(c))
	if err != nil {
		return fmt.Errorf("making a client for manifests: %w", err)
	}
	a := &applier{client: client, pending: map[string]*unstructured.Unstructured{}}
	first, rest := split(objects)
	if err := a.all(ctx, first); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.all(gctx, rest) })
	g.Go(func() error { return a.established(gctx) })
	return g.Wait()
}

// decode reads all YAML documents, in the order of their file names.
func decode(manifests []fs.FS) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, fsys := range manifests {
		names, err := fs.Glob(fsys, "*.yaml")
		if err != nil {
			return nil, fmt.Errorf("listing manifests: %w", err)
		}
		sort.Strings(names)
		for _, name := range names {
			data, err := fs.ReadFile(fsys, name)
			if err != nil {
				return nil, fmt.Errorf("reading manifest %s: %w", name, err)
			}
			docs, err := documents(data)
			if err != nil {
				return nil, fmt.Errorf("reading manifest %s: %w", name, err)
			}
			out = append(out, docs...)
		}
	}
	return out, nil
}

func documents(data []byte) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	dec := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	for {
		u := &unstructured.Unstructured{}
		if err := dec.Decode(&u.Object); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("decoding document %d: %w", len(out)+1, err)
		}
		if len(u.Object) > 0 {
			out = append(out, u)
		}
	}
}

// split parts what others depend on (namespaces, definitions) from the rest.
func split(objects []*unstructured.Unstructured) (first, rest []*unstructured.Unstructured) {
	for _, o := range objects {
		if k := o.GetKind(); k == "Namespace" || k == crdKind {
			first = append(first, o)
		} else {
			rest = append(rest, o)
		}
	}
	return first, rest
}

type applier struct {
	client dynamic.Interface

	mu      sync.Mutex                            // guards pending
	pending map[string]*unstructured.Unstructured // definitions not known to be served, by name
}

func (a *applier) all(ctx context.Context, objects []*unstructured.Unstructured) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, o := range objects {
		g.Go(func() error {
			if err := a.one(ctx, o.DeepCopy()); err != nil {
				return fmt.Errorf("applying %s %s: %w", o.GetKind(), o.GetName(), err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (a *applier) one(ctx context.Context, o *unstructured.Unstructured) error {
	hash, err := stamp(o)
	if err != nil {
		return err
	}
	r := a.resource(o)
	live, err := r.Get(ctx, o.GetName(), metav1.GetOptions{})
	if o.GetKind() == crdKind && (err != nil || !served(live)) {
		a.mu.Lock()
		a.pending[o.GetName()] = o
		a.mu.Unlock()
	}
	switch {
	case err != nil && !apierrors.IsNotFound(err):
		return err
	case err == nil && (live.GetAnnotations()[hashAnnotation] == hash || keep(o)):
		return nil
	case keep(o):
		if _, err := r.Create(ctx, o, metav1.CreateOptions{FieldManager: FieldOwner}); !apierrors.IsAlreadyExists(err) {
			return err
		}
		return nil
	}
	_, err = r.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: FieldOwner, Force: true})
	return err
}

func (a *applier) resource(o *unstructured.Unstructured) dynamic.ResourceInterface {
	plural, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
	if o.GetNamespace() == "" {
		return a.client.Resource(plural)
	}
	return a.client.Resource(plural).Namespace(o.GetNamespace())
}

func keep(o *unstructured.Unstructured) bool {
	_, ok := o.GetAnnotations()[keepAnnotation]
	return ok
}

// stamp writes the manifest's hash into o and returns it.
func stamp(o *unstructured.Unstructured) (string, error) {
	raw, err := o.MarshalJSON()
	if err != nil {
		return "", fmt.Errorf("encoding manifest: %w", err)
	}
	sum := sha256.Sum256(raw)
	hash := hex.EncodeToString(sum[:12])
	annotations := o.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[hashAnnotation] = hash
	o.SetAnnotations(annotations)
	return hash, nil
}

// established waits until each pending definition is served.
func (a *applier) established(ctx context.Context) error {
	if len(a.pending) == 0 {
		return nil
	}
	plural := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	r := a.client.Resource(plural)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return r.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return r.Watch(ctx, o)
		},
	}
	g, gctx := errgroup.WithContext(ctx)
	_, err := watchtools.UntilWithSync(ctx, lw, &unstructured.Unstructured{}, nil, func(e watch.Event) (bool, error) {
		u, ok := e.Object.(*unstructured.Unstructured)
		if ok && a.pending[u.GetName()] != nil && served(u) {
			delete(a.pending, u.GetName())
			g.Go(func() error { return a.warm(gctx, u) })
		}
		return len(a.pending) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for %d custom resource definitions: %w", len(a.pending), err)
	}
	return g.Wait()
}

// warm asks once for a kind's objects: the API server begins to cache a custom resource at its first
// request, and until then has whoever watches try again a second later.
func (a *applier) warm(ctx context.Context, crd *unstructured.Unstructured) error {
	group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
	plural, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "plural")
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	for _, v := range versions {
		version, ok := v.(map[string]any)
		if !ok {
			continue
		}
		name, _ := version["name"].(string)
		gvr := schema.GroupVersionResource{Group: group, Version: name, Resource: plural}
		if _, err := a.client.Resource(gvr).List(ctx, metav1.ListOptions{Limit: 1}); err != nil {
			return fmt.Errorf("asking for %s: %w", gvr.GroupResource(), err)
		}
	}
	return nil
}

func served(crd *unstructured.Unstructured) bool {
	conditions, _, err := unstructured.NestedSlice(crd.Object, "status", "conditions")
	if err != nil {
		return false
	}
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["type"] == "Established" && m["status"] == "True" {
			return true
		}
	}
	return false
}
