// Package cluster runs a real Kubernetes control plane inside this process: etcd, kube-apiserver,
// kube-controller-manager and kube-scheduler, linked as libraries.
//
// State lives in a data folder and is continued by the next start on it. The API answers on loopback
// for the host and on a listener handed in for pods; etcd is reached by a Unix socket in the folder,
// and the other two listen nowhere. Aggregated APIs and webhooks may be served by handlers of this
// process (Local), which needs no port either.
//
// A process can run one Cluster at a time: Kubernetes keeps metrics and configuration in globals.
package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"k8s.io/client-go/rest"

	"ebb.dev/ebb/internal/component/cluster/pki"
	"ebb.dev/ebb/internal/platform/config"
	"ebb.dev/ebb/internal/platform/release"
)

// Config says where a Cluster keeps its state and how it is reached.
type Config struct {
	Folder config.Folder
	ID     config.Identity
	// APIAddress is the loopback address and port of the API, such as 127.0.0.1:6443.
	APIAddress string
	// NodeListener answers pods at the node address; it must have the port of APIAddress, since the
	// Service kubernetes.default leads there. Nil serves the host only.
	NodeListener net.Listener
	// Locals are aggregated APIs and admission webhooks served by this process.
	Locals []Local
	// Dial reaches nodes, pods and Services; nil dials from the host.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Transport wraps what every client in this process sends by; nil leaves it as it is.
	Transport func(http.RoundTripper) http.RoundTripper
	// Kinds is closed when the kinds that the cluster is to have from its start are defined; garbage
	// collection begins then. Nil begins at once.
	Kinds <-chan struct{}
	Log   *slog.Logger
}

// Local is a Service whose requests a handler of this process answers.
//
// APIServices and webhook configurations name it as they name any Service; a Service object need not
// exist for webhooks, and Cluster makes one for APIServices. Use CABundle as their caBundle.
type Local struct {
	Namespace string
	Name      string
	Handler   http.Handler
	// APIs lists the API groups and versions to register for it, none for webhooks.
	APIs []GroupVersion
}

// GroupVersion is an API group at a version, and how it ranks in discovery.
type GroupVersion struct {
	Group, Version string
	// GroupPriority and VersionPriority are as in an APIService; higher comes first.
	GroupPriority, VersionPriority int32
}

// Cluster is a running control plane.
type Cluster struct {
	cfg   Config
	log   *slog.Logger
	files files
	creds credentials

	etcd    *store
	server  *apiServer
	locals  *locals
	stopAPI context.CancelFunc
	stopAll context.CancelFunc // controller-manager, scheduler, renewal

	stopping atomic.Bool
	parts    sync.WaitGroup // everything but the API server
	api      sync.WaitGroup
	done     chan error
	ready    chan struct{} // closed when the API can be used
	whole    chan struct{} // closed when other clients can use it, local APIs included
}

// Start begins everything and returns once the API listens. Ready tells when it can be used.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Cluster{cfg: cfg, log: cfg.Log, done: make(chan error, 1), ready: make(chan struct{}), whole: make(chan struct{})}
	if err := c.start(ctx); err != nil {
		return nil, fmt.Errorf("starting cluster: %w", err)
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) (err error) {
	quiet := calmLog(c.log, &c.stopping)
	release.Stamp()
	if err := setFeatures(); err != nil {
		return err
	}
	host, err := listenAPI(ctx, c.cfg.APIAddress)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, host.Close())
		}
	}()
	if c.files, err = prepareFiles(c.cfg, time.Now()); err != nil {
		return err
	}
	if c.creds, err = newCredentials(c.cfg.Folder); err != nil {
		return err
	}
	if c.locals, err = serveLocals(c.cfg.Locals, c.files.localCert); err != nil {
		return err
	}
	clientLogger = zap.NewNop()
	if c.etcd, err = startStore(ctx, c.cfg.Folder, quiet); err != nil {
		return errors.Join(err, c.locals.close())
	}
	if err := c.launch(ctx, host); err != nil {
		c.etcd.stop()
		return errors.Join(err, c.locals.close())
	}
	return nil
}

// launch starts the API server and, once that is ready, its clients.
func (c *Cluster) launch(ctx context.Context, host net.Listener) error {
	listener, err := mergeListeners(host, c.cfg.NodeListener)
	if err != nil {
		return err
	}
	// The parts end by Stop, in order, not with the context of Start.
	base := context.WithoutCancel(ctx)
	apiCtx, stopAPI := context.WithCancel(base)
	allCtx, stopAll := context.WithCancel(base)
	c.stopAPI, c.stopAll = stopAPI, stopAll
	if c.server, err = newAPIServer(apiCtx, c, listener); err != nil {
		stopAPI()
		stopAll()
		return err
	}
	if err := c.creds.forget(); err != nil {
		c.log.Warn("removing the token file", "error", err)
	}
	c.api.Go(func() { c.report(apiCtx, "kube-apiserver", c.server.run(apiCtx)) })
	c.parts.Go(func() { c.follow(allCtx) })
	return nil
}

// follow waits for the API and then runs what needs it.
func (c *Cluster) follow(ctx context.Context) {
	if c.server.waitUsable(ctx) != nil {
		return // stopped before
	}
	close(c.ready)
	c.parts.Go(func() { c.report(ctx, "kube-controller-manager", c.runControllers(ctx)) })
	c.parts.Go(func() { c.report(ctx, "kube-scheduler", c.runScheduler(ctx)) })
	c.parts.Go(func() { c.renew(ctx) })
	if err := c.registerLocals(ctx); err != nil {
		c.report(ctx, "registering local APIs", err)
		return
	}
	if c.server.waitReady(ctx) == nil {
		close(c.whole)
	}
}

// report hands the first unexpected end of a part to Done.
func (c *Cluster) report(ctx context.Context, part string, err error) {
	if ctx.Err() != nil {
		if err != nil && !errors.Is(err, context.Canceled) {
			c.log.Debug("part ended", "part", part, "error", err)
		}
		return
	}
	if err == nil {
		err = errors.New("ended by itself")
	}
	select {
	case c.done <- fmt.Errorf("running %s: %w", part, err):
	default:
	}
}

// Ready returns once clients of this process can use the API for everything that is its own.
func (c *Cluster) Ready(ctx context.Context) error { return c.wait(ctx, c.ready) }

// Whole returns once other clients can too, which need the default roles, and the APIs of all Locals
// are served. Until then discovery is incomplete, which holds up garbage collection and the end of
// namespaces; so their handlers must answer by then.
func (c *Cluster) Whole(ctx context.Context) error { return c.wait(ctx, c.whole) }

func (c *Cluster) wait(ctx context.Context, event <-chan struct{}) error {
	select {
	case <-event:
		return nil
	case err := <-c.done:
		c.done <- err
		return err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the API: %w; not ready: %s", context.Cause(ctx), c.missing(ctx))
	}
}

// missing says what a start waits for.
func (c *Cluster) missing(ctx context.Context) string {
	if checks := c.server.pending(ctx); checks != "" {
		return checks
	}
	return "local APIs"
}

// Done yields an error when a part of the control plane ends without being told to.
func (c *Cluster) Done() <-chan error { return c.done }

// Kubeconfig is the path of the administrator's kubeconfig.
func (c *Cluster) Kubeconfig() string { return c.cfg.Folder.Kubeconfig() }

// RESTConfig is for clients in this process: loopback, all rights, no rate limit. Each call's result
// has a connection pool of its own.
func (c *Cluster) RESTConfig() *rest.Config { return c.clientConfig(c.creds.ebb) }

// CA signs every certificate of the cluster; CABundle is its certificate in PEM.
func (c *Cluster) CA() *pki.Authority { return c.files.ca }

// CABundle is the cluster authority's certificate in PEM.
func (c *Cluster) CABundle() []byte { return c.files.ca.PEM() }

// NodeTLS is for the node's own API: its serving certificate for the node's name and address, with
// client certificates verified against the cluster's authority (the API server shows APIServerUser).
func (c *Cluster) NodeTLS(name string, addresses ...netip.Addr) (*tls.Config, error) {
	return nodeTLS(c.files.ca, name, addresses)
}

// Stop ends controllers, scheduler, API and store, in that order; state is kept.
func (c *Cluster) Stop(ctx context.Context) error {
	c.stopping.Store(true)
	c.stopAll()
	err := waitFor(ctx, &c.parts, "controllers and scheduler")
	c.stopAPI()
	err = errors.Join(err, waitFor(ctx, &c.api, "the API server"))
	c.etcd.stop()
	return errors.Join(err, c.locals.close())
}

// Version is that of the Kubernetes linked in.
func Version() string { return release.Kubernetes }

func waitFor(ctx context.Context, wg *sync.WaitGroup, what string) error {
	ended := make(chan struct{})
	go func() {
		wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stopping %s: %w", what, context.Cause(ctx))
	}
}
