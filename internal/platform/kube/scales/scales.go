// Package scales answers clients of this process that ask how many replicas a Deployment or StatefulSet
// has, from memory: a HorizontalPodAutoscaler asks every 15 seconds, and whoever decides about replicas
// at each decision, which for thousands of objects is most of what an idle cluster would do.
//
// An answer is as old as a watch is late, milliseconds; after a scale was written by this process, the API
// itself is asked until the watch has caught up, so nobody sees replicas as they were before his own write.
// What is not in memory is asked of the API as well.
package scales

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/informers/apps/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/transport"
)

// The resources that are followed.
const (
	deployments  = "deployments"
	statefulSets = "statefulsets"
)

// Scales follows Deployments and StatefulSets while Run runs. Its methods may be called from many
// goroutines.
type Scales struct {
	wanted chan struct{} // closed when the first scale is asked for
	once   sync.Once     // closes it

	mu       sync.Mutex // guards the rest; short
	followed map[string]cache.SharedIndexInformer
	written  map[key]uint64 // versions that memory is behind
}

// key names an object.
type key struct{ resource, namespace, name string }

// entry is what a Scale is made of.
type entry struct {
	metav1.ObjectMeta

	version    uint64
	want, have int32
	selector   string
}

// New returns a Scales that knows nothing yet.
func New() *Scales {
	return &Scales{wanted: make(chan struct{}), followed: map[string]cache.SharedIndexInformer{}, written: map[key]uint64{}}
}

// Run follows until ctx ends, from when the first scale is asked for.
func (s *Scales) Run(ctx context.Context, client kubernetes.Interface) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.wanted:
	}
	followed := map[string]cache.SharedIndexInformer{
		deployments:  v1.NewDeploymentInformer(client, metav1.NamespaceAll, 0, cache.Indexers{}),
		statefulSets: v1.NewStatefulSetInformer(client, metav1.NamespaceAll, 0, cache.Indexers{}),
	}
	var running sync.WaitGroup
	for resource, informer := range followed {
		if err := informer.SetTransform(slim); err != nil {
			return fmt.Errorf("following %s: %w", resource, err)
		}
		running.Go(func() { informer.RunWithContext(ctx) })
	}
	s.mu.Lock()
	s.followed = followed
	s.mu.Unlock()
	running.Wait()
	return nil
}

// slim keeps of an object what its Scale is made of.
func slim(in any) (any, error) {
	switch o := in.(type) {
	case *appsv1.Deployment:
		return summary(&o.ObjectMeta, o.Spec.Replicas, o.Status.Replicas, o.Spec.Selector)
	case *appsv1.StatefulSet:
		return summary(&o.ObjectMeta, o.Spec.Replicas, o.Status.Replicas, o.Spec.Selector)
	default:
		return in, nil
	}
}

func summary(of *metav1.ObjectMeta, want *int32, have int32, selector *metav1.LabelSelector) (*entry, error) {
	e := &entry{version: version(of.ResourceVersion), have: have, ObjectMeta: metav1.ObjectMeta{
		Namespace: of.Namespace, Name: of.Name, UID: of.UID, ResourceVersion: of.ResourceVersion, CreationTimestamp: of.CreationTimestamp,
	}}
	if want != nil {
		e.want = *want
	}
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return nil, fmt.Errorf("reading the selector of %s/%s: %w", of.Namespace, of.Name, err)
	}
	e.selector = parsed.String()
	return e, nil
}

// Wrap returns a way to the API that answers what it can and passes on the rest.
func (s *Scales) Wrap(next http.RoundTripper) http.RoundTripper { return way{s, next} }

type way struct {
	scales *Scales
	next   http.RoundTripper
}

// WrappedRoundTripper shows the transport below, as client-go's helpers expect.
func (w way) WrappedRoundTripper() http.RoundTripper { return w.next }

// RoundTrip implements http.RoundTripper.
func (w way) RoundTrip(r *http.Request) (*http.Response, error) {
	of, ok := parse(r.URL.Path)
	switch {
	case !ok || r.Header.Get(transport.ImpersonateUserHeader) != "":
	case r.Method != http.MethodGet:
		res, err := w.next.RoundTrip(r)
		if err != nil || res.StatusCode != http.StatusOK {
			return res, err
		}
		return w.scales.wrote(of, res)
	case r.URL.RawQuery == "":
		if found := w.scales.find(of); found != nil {
			return found.answer(r)
		}
	}
	return w.next.RoundTrip(r)
}

// parse reads the path of the scale of an object that may be followed.
func parse(path string) (of key, ok bool) {
	rest, under := strings.CutPrefix(path, "/apis/apps/v1/namespaces/")
	parts := strings.Split(rest, "/")
	if !under || len(parts) != len([]string{"namespace", "resource", "name", "scale"}) || parts[3] != "scale" {
		return key{}, false
	}
	return key{parts[1], parts[0], parts[2]}, parts[1] == deployments || parts[1] == statefulSets
}

// Replicas tells how many replicas an object is to have, if that is in memory and not behind a write.
func (s *Scales) Replicas(of schema.GroupResource, namespace, name string) (n int32, known bool) {
	if of.Group != appsv1.GroupName || of.Resource != deployments && of.Resource != statefulSets {
		return 0, false
	}
	found := s.find(key{of.Resource, namespace, name})
	if found == nil {
		return 0, false
	}
	return found.want, true
}

// find returns what is in memory of an object; nil if that is nothing, or behind a write.
func (s *Scales) find(of key) *entry {
	s.once.Do(func() { close(s.wanted) })
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.memory(of)
	if found != nil && found.version < s.written[of] {
		return nil
	}
	delete(s.written, of)
	return found
}

// memory returns what is in memory of an object; s.mu is held.
func (s *Scales) memory(of key) *entry {
	informer := s.followed[of.resource]
	if informer == nil || !informer.HasSynced() {
		return nil
	}
	object, _, err := informer.GetStore().GetByKey(of.namespace + "/" + of.name)
	if err != nil {
		return nil // a thread-safe store in memory has no errors
	}
	found, _ := object.(*entry)
	return found
}

// wrote notes the version that a scale was written as, and returns the response to be read anew.
func (s *Scales) wrote(of key, r *http.Response) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err = errors.Join(err, r.Body.Close()); err != nil {
		return nil, fmt.Errorf("reading what became of the scale of %s %s/%s: %w", of.resource, of.namespace, of.name, err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	object, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
	if scale, ok := object.(*autoscalingv1.Scale); err == nil && ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.written[of] = max(s.written[of], version(scale.ResourceVersion))
	}
	return r, nil
}

// version reads a resource version; 0 if it is none, as that of no object.
func version(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// encoder writes what a client of scales reads with the least effort; it takes whatever form it is given.
var encoder = protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)

// answer is the API's to a request for the scale.
func (e *entry) answer(r *http.Request) (*http.Response, error) {
	var body bytes.Buffer
	err := encoder.Encode(&autoscalingv1.Scale{
		TypeMeta: metav1.TypeMeta{APIVersion: autoscalingv1.SchemeGroupVersion.String(), Kind: "Scale"},
		ObjectMeta: metav1.ObjectMeta{
			Name: e.Name, Namespace: e.Namespace, UID: e.UID, ResourceVersion: e.ResourceVersion, CreationTimestamp: e.CreationTimestamp,
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: e.want},
		Status: autoscalingv1.ScaleStatus{Replicas: e.have, Selector: e.selector},
	}, &body)
	if err != nil {
		return nil, fmt.Errorf("writing the scale of %s/%s: %w", e.Namespace, e.Name, err)
	}
	return &http.Response{
		StatusCode: http.StatusOK, Status: "200 OK", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {runtime.ContentTypeProtobuf}}, Body: io.NopCloser(&body), ContentLength: int64(body.Len()),
	}, nil
}
