package node

import (
	"context"

	"github.com/virtual-kubelet/virtual-kubelet/errdefs"
	vk "github.com/virtual-kubelet/virtual-kubelet/node"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/util/workqueue"
)

// podWorkers take pods over from the API side by side.
const podWorkers = 16

// podController builds virtual-kubelet's controller with queues that do not throttle: its default
// limiter lets ten pods a second pass. Its config map, secret and service informers serve a
// resolution of variables that is ours here, so they are never started.
func (n *Node) podController() (*vk.PodController, error) {
	idle := informers.NewSharedInformerFactory(n.config.Client, 0).Core().V1()
	own := informers.NewSharedInformerFactoryWithOptions(n.config.Client, 0, informers.WithTweakListOptions(ofNode(n.config.Name)))
	return vk.NewPodController(vk.PodControllerConfig{
		PodClient:                            n.config.Client.CoreV1(),
		PodInformer:                          podInformer{own.Core().V1().Pods(), n},
		EventRecorder:                        n.events,
		Provider:                             provider{n},
		ConfigMapInformer:                    idle.ConfigMaps(),
		SecretInformer:                       idle.Secrets(),
		ServiceInformer:                      idle.Services(),
		SyncPodsFromKubernetesRateLimiter:    limiter(),
		DeletePodsFromKubernetesRateLimiter:  limiter(),
		SyncPodStatusFromProviderRateLimiter: limiter(),
		SkipDownwardAPIResolution:            true,
	})
}

// limiter paces retries of one pod only.
func limiter() workqueue.TypedRateLimiter[any] {
	const first, top = 5_000_000, 10_000_000_000 // 5 ms to 10 s
	return workqueue.NewTypedItemExponentialFailureRateLimiter[any](first, top)
}

// provider is how virtual-kubelet hands pods over. It accepts at once: what follows is the machine's.
type provider struct{ n *Node }

// CreatePod implements node.PodLifecycleHandler.
func (p provider) CreatePod(_ context.Context, pod *corev1.Pod) error {
	p.n.take(pod, nil)
	return nil
}

// UpdatePod implements node.PodLifecycleHandler.
func (p provider) UpdatePod(_ context.Context, pod *corev1.Pod) error {
	p.n.take(pod, nil)
	return nil
}

// DeletePod implements node.PodLifecycleHandler.
func (p provider) DeletePod(_ context.Context, pod *corev1.Pod) error {
	m := p.n.machine(pod.UID)
	if m == nil {
		return errdefs.NotFoundf("pod %s/%s is not here", pod.Namespace, pod.Name)
	}
	if pod.DeletionTimestamp != nil {
		m.Update(pod)
		return nil
	}
	m.Delete(false)
	return nil
}

// GetPod implements node.PodLifecycleHandler. A former pod of the same name is not the pod asked for.
func (p provider) GetPod(_ context.Context, namespace, name string) (*corev1.Pod, error) {
	if api, err := p.n.pods.Pods(namespace).Get(name); err == nil {
		if m := p.n.machine(api.UID); m != nil {
			return m.Current().DeepCopy(), nil
		}
	}
	return nil, errdefs.NotFoundf("pod %s/%s is not here", namespace, name)
}

// GetPodStatus implements node.PodLifecycleHandler.
func (p provider) GetPodStatus(ctx context.Context, namespace, name string) (*corev1.PodStatus, error) {
	pod, err := p.GetPod(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	if m := p.n.machine(pod.UID); m != nil {
		status := m.Status()
		return &status, nil
	}
	return nil, errdefs.NotFoundf("pod %s/%s is not here", namespace, name)
}

// GetPods implements node.PodLifecycleHandler. Left-over pods were cleared away when the node began,
// so the library has nothing to look for.
func (p provider) GetPods(context.Context) ([]*corev1.Pod, error) { return nil, nil }

// NotifyPods implements node.PodNotifier: statuses have a writer of their own here.
func (p provider) NotifyPods(context.Context, func(*corev1.Pod)) {}
