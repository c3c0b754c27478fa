package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	clientgo "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// session is a connection to the cluster the flags name.
type session struct {
	client.Client

	config    *rest.Config
	clientset clientgo.Interface
}

// connect uses the data folder's kubeconfig.
func (o *options) connect() (*session, error) {
	path := o.folder().Kubeconfig()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no cluster in %s yet: start it with `ebb up`, or name another folder with --data", o.folder())
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	cfg.QPS = -1
	cfg.WarningHandler = rest.NoWarnings{}
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), servingv1.AddToScheme(scheme), servingv1beta1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("registering kinds: %w", err)
	}
	c, err := client.NewWithWatch(cfg, client.Options{Scheme: scheme})
	if err != nil {
		return nil, o.unreachable(err)
	}
	cs, err := clientgo.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return &session{Client: c, config: cfg, clientset: cs}, nil
}

// explain adds what to do where nothing listens at the API's address.
func (o *options) explain(err error) error {
	if utilnet.IsConnectionRefused(err) {
		return o.unreachable(err)
	}
	return err
}

// unreachable turns a refused connection into what to do about it.
func (o *options) unreachable(err error) error {
	return fmt.Errorf("reaching the API of %s: %w; is ebb running? `ebb status` tells, `ebb up` starts it", o.folder(), err)
}
