package object

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func slice(namespace, name, service string) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service},
	}}
}

func TestCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		client := fake.NewClientset(
			&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "one"}},
			&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a", Labels: map[string]string{"app": "a"}}},
			&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "a", Labels: map[string]string{"app": "a"}}},
			slice("default", "mine-1", "mine"), slice("default", "mine-2", "mine"), slice("default", "yours-1", "yours"), slice("other", "mine-1", "mine"),
		)
		factory := informers.NewSharedInformerFactory(client, 0)
		a := newAPI(t, secret("mine", "1", "old"))
		c, err := NewCluster(New(t.Context(), a, slog.New(slog.DiscardHandler)), factory.Core().V1().Pods(),
			factory.Core().V1().Nodes(), factory.Discovery().V1().EndpointSlices())
		if err != nil {
			t.Fatal(err)
		}
		factory.Start(ctx.Done())
		factory.WaitForCacheSync(ctx.Done())
		synctest.Wait()
		pods, err := c.Pods("default", labels.SelectorFromSet(labels.Set{"app": "a"}))
		if err != nil || len(pods) != 1 {
			t.Errorf("%d pods, %v", len(pods), err)
		}
		if nodes, err := c.Nodes(labels.Everything()); err != nil || len(nodes) != 1 {
			t.Errorf("%d nodes, %v", len(nodes), err)
		}
		if slices, err := c.EndpointSlices("default", "mine"); err != nil || len(slices) != 2 {
			t.Errorf("%d slices, %v; want the two of the Service", len(slices), err)
		}
		var here, there, nodes, secrets atomic.Int32
		stops := []func(){
			c.WatchPods("default", func() { here.Add(1) }), c.WatchPods("other", func() { there.Add(1) }),
			c.WatchNodes(func() { nodes.Add(1) }), c.WatchSecret("default", "mine", func() { secrets.Add(1) }),
			c.WatchConfigMap("default", "none", func() { t.Error("told of a ConfigMap") }),
		}
		synctest.Wait()
		if have, err := c.Secret(ctx, "default", "mine"); err != nil || string(have.Data["key"]) != "old" {
			t.Errorf("%v, %v", have, err)
		}
		if _, err := c.ConfigMap(ctx, "default", "none"); err == nil {
			t.Error("read a ConfigMap that is not there")
		}
		if err := client.CoreV1().Pods("default").Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "two"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, feed := range a.feeds {
			feed.Modify(loose(t, secret("mine", "2", "new"))) // one of them is the ConfigMap's, which leaves it out
		}
		synctest.Wait()
		if here.Load() != 1 || there.Load() != 0 || nodes.Load() != 1 || secrets.Load() != 1 {
			t.Errorf("told %d, %d, %d, %d times", here.Load(), there.Load(), nodes.Load(), secrets.Load())
		}
		for _, stop := range stops {
			stop()
		}
		if len(c.podsChange.seat)+len(c.nodesChange.seat)+c.store.Len() != 0 {
			t.Error("somebody is told still")
		}
		cancel()
		factory.Shutdown()
	})
}
