package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"ebb.dev/ebb/internal/component/node/logs"
	"ebb.dev/ebb/internal/component/node/object"
	"ebb.dev/ebb/internal/component/node/pod"
	"ebb.dev/ebb/internal/component/node/pod/env"
	"ebb.dev/ebb/internal/component/node/pod/network"
	"ebb.dev/ebb/internal/component/node/pod/probe"
	"ebb.dev/ebb/internal/component/node/pod/security"
	"ebb.dev/ebb/internal/component/node/pod/volume"
	"ebb.dev/ebb/internal/platform/image"
)

// newHost gathers what pods need from the node.
func (n *Node) newHost() *pod.Host {
	c := n.config
	allocatable := n.status.node.Status.Allocatable
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	var servers []string
	if c.DNS.IsValid() {
		servers = []string{c.DNS.String()}
	}
	shared := c.HostAddress
	if !shared.IsValid() {
		shared = c.Address
	}
	return &pod.Host{
		NodeName: c.Name, HostIPs: []string{c.Address.String()}, SharedIPs: []string{shared.String()}, Runtime: c.Runtime, Images: c.Images, Leases: c.Leases,
		Volumes: volume.New(volume.Config{
			Dir: n.podDir(), Objects: n.objects, Tokens: tokens{n.tokens}, Claims: object.Claims{Client: c.Client},
			Field: env.Facts{}.Field,
			Resource: func(p *corev1.Pod, ref *corev1.ResourceFieldSelector) (string, error) {
				return env.ResourceField(p, nil, ref, allocatable)
			},
			CanMount: os.Geteuid() == 0,
		}),
		Objects: n.objects, Services: n.servicesFor, Keychain: n.keychain, Handler: n.handler,
		Profiles:    security.Profiles{Default: c.Seccomp, Dir: filepath.Join(c.DataDir, "seccomp")},
		Cluster:     network.Cluster{Servers: servers, Domain: c.ClusterDomain, HostConf: "/etc/resolv.conf"},
		Allocatable: allocatable, MemoryCapacity: allocatable.Memory().Value(),
		LogDir: n.logDir(), LogTail: logs.Tail, Events: n.events, Observer: c.Observer, Drainer: c.Drainer,
		Dial: probe.RetryDial(dial), Changed: n.writer.changed, Log: c.Log,
	}
}

// tokens gives volumes their tokens.
type tokens struct{ *object.Tokens }

// Token implements volume.Tokens.
func (t tokens) Token(ctx context.Context, p *corev1.Pod, audience string, seconds int64) (volume.Token, error) {
	issued, err := t.Tokens.Token(ctx, p, audience, seconds)
	return volume.Token{Value: issued.Value, Refresh: issued.Refresh}, err
}

// servicesFor are those a pod of the namespace gets variables for.
func (n *Node) servicesFor(namespace string) []*corev1.Service {
	list, err := n.services.Services(namespace).List(labels.Everything())
	if err != nil {
		return nil
	}
	if namespace != corev1.NamespaceDefault {
		if master, err := n.services.Services(corev1.NamespaceDefault).Get("kubernetes"); err == nil {
			list = append(list, master)
		}
	}
	return list
}

// keychain are the pod's pull secrets; those that do not exist are passed over, as everywhere.
func (n *Node) keychain(ctx context.Context, p *corev1.Pod) (authn.Keychain, error) {
	var found []corev1.Secret
	for _, ref := range p.Spec.ImagePullSecrets {
		secret, err := n.config.Client.CoreV1().Secrets(p.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			n.events.Event(p, corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
				"Unable to retrieve some image pull secrets ("+ref.Name+"); attempting to pull the image may not succeed.")
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading pull secret %s: %w", ref.Name, err)
		}
		found = append(found, *secret)
	}
	return image.PullSecrets(found)
}

// handler is the runtime's handler that the pod's RuntimeClass names.
func (n *Node) handler(ctx context.Context, p *corev1.Pod) (string, error) {
	if p.Spec.RuntimeClassName == nil || *p.Spec.RuntimeClassName == "" {
		return "", nil
	}
	class, err := n.config.Client.NodeV1().RuntimeClasses().Get(ctx, *p.Spec.RuntimeClassName, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("reading runtime class %s: %w", *p.Spec.RuntimeClassName, err)
	}
	for _, h := range append([]string{"ebb"}, n.config.Handlers...) {
		if class.Handler == h {
			if h == "ebb" {
				return "", nil
			}
			return h, nil
		}
	}
	return "", fmt.Errorf("runtime class %s: this node has no handler %q", class.Name, class.Handler)
}
