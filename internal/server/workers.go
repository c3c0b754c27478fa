package server

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"

	"ebb.dev/ebb/internal/adapter/runtime/container"
	triggers "ebb.dev/ebb/internal/adapter/trigger/all"
	"ebb.dev/ebb/internal/component/admission"
	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/component/controller/all"
	"ebb.dev/ebb/internal/component/dns"
	"ebb.dev/ebb/internal/component/node"
	"ebb.dev/ebb/internal/component/proxy"
	"ebb.dev/ebb/internal/platform/config"
	"ebb.dev/ebb/internal/platform/kube"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// startWorkers starts what runs on Kubernetes: controllers, node, Services and names.
func (s *Server) startWorkers(ctx context.Context) error {
	s.claimPorts(ctx)
	if err := s.startObserving(ctx); err != nil {
		return err
	}
	if err := s.applySystem(ctx); err != nil {
		return err
	}
	close(s.defined)
	if err := s.openAuthority(ctx); err != nil {
		return err
	}
	s.makeGateway()
	s.useInformers()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.startControllers(gctx) })
	g.Go(func() error { return s.startServices(gctx) })
	if err := g.Wait(); err != nil {
		return err
	}
	if err := s.startNode(ctx); err != nil {
		return err
	}
	if err := s.cluster.Whole(ctx); err != nil {
		return err
	}
	return s.startControl(ctx)
}

// startControllers runs Serving's controllers and the admission in front of them.
func (s *Server) startControllers(ctx context.Context) error {
	current, err := settings.Open(context.WithoutCancel(ctx), s.client, s.log.With("part", "settings"))
	if err != nil {
		return err
	}
	s.observe(current)
	if err := s.useAdmission(ctx, current); err != nil {
		return err
	}
	if err := s.followAuthority(ctx); err != nil {
		return err
	}
	if err := admission.Register(ctx, s.rest, admission.ByService(systemNamespace, "admission", s.cluster.CABundle())); err != nil {
		return err
	}
	manager, err := kube.NewManager(s.rest, s.log.With("part", "controllers"), &kube.Starts{Gate: &s.gate, AtMost: coldPatience})
	if err != nil {
		return err
	}
	config := controller.Config{
		Manager: manager, Settings: current, Images: s.images, Fleet: s.fleet, Scaler: revisions{s.autoscaler},
		Book: controller.NewBook(s.publish), Busy: s.gate.Busy, Gateway: innerGatewayHost, PublicGateway: outerGatewayHost, Activator: s.id.NodeIP(),
		PublicPort: int(s.publicPort()), PublicTLSPort: int(s.publicTLSPort()), Authority: s.authority,
		HostAliases: map[string][]string{routeDomain: {aliasDomain}}, Log: s.log.With("part", "controllers"),
	}
	if err := s.useTriggers(ctx, manager, &config); err != nil {
		return err
	}
	if err := all.Setup(context.WithoutCancel(ctx), config); err != nil {
		return err
	}
	return s.runManager(ctx, manager)
}

// useAdmission has objects judged from now on.
func (s *Server) useAdmission(ctx context.Context, current *settings.Store) error {
	neighbours, follow, err := admission.Watch(ctx, s.rest)
	if err != nil {
		return err
	}
	s.background("admission", follow)
	builtIn := triggers.Builders()
	s.admission.Use(admission.Config{
		Settings: current, Client: s.client, Neighbours: neighbours,
		BuiltIn:    func(kind string) bool { _, ok := builtIn[kind]; return ok },
		Registerer: s.keda.Webhooks,
	})
	return nil
}

// runManager starts the controllers and returns when the gateway knows all routes there are.
func (s *Server) runManager(ctx context.Context, manager ctrl.Manager) error {
	pods, err := manager.GetCache().GetInformer(ctx, &corev1.Pod{}, ctrlcache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watching instances: %w", err)
	}
	if _, err := pods.AddEventHandler(watcher{s.fleet, s.roster}.follow()); err != nil {
		return fmt.Errorf("watching instances: %w", err)
	}
	secrets, err := manager.GetCache().GetInformer(ctx, &corev1.Secret{}, ctrlcache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watching certificates: %w", err)
	}
	if _, err := secrets.AddEventHandler(s.keys.Marked()); err != nil {
		return fmt.Errorf("watching certificates: %w", err)
	}
	s.background("controllers", manager.Start)
	select {
	case <-s.published:
		return nil
	case err := <-s.failed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the first route table: %w", context.Cause(ctx))
	}
}

// startServices runs the Services' proxy and the cluster's names.
func (s *Server) startServices(ctx context.Context) error {
	factory := s.informers
	p, err := proxy.New(proxy.Config{
		Net: s.net, Client: s.client, Informers: factory, NodeName: s.id.Node, NodeIP: s.id.NodeIP(),
		LoadBalancers: s.id.LoadBalancerCIDR(), Local: s.gatewayInboxes(), Events: s.recorder("services"), Registerer: s.metricsRegistry, Log: s.log.With("part", "services"),
	})
	if err != nil {
		return err
	}
	names, err := dns.New(dns.Config{
		Net: s.net, Address: netip.AddrPortFrom(s.id.DNSIP(), 53), Informers: factory, Domain: clusterDomain,
		Reverse: []netip.Prefix{s.id.PodCIDR(), s.id.ServiceCIDR(), s.id.LoadBalancerCIDR()},
		Gateway: s.id.GatewayIP(), RouteDomains: []string{routeDomain, aliasDomain}, RouteHost: s.gateway.Public, Registerer: s.metricsRegistry, Log: s.log.With("part", "names"),
	})
	if err != nil {
		return err
	}
	if err := s.roster.Watch(factory); err != nil {
		return err
	}
	// Only informers somebody asked for by now are started; the metrics API asks when the node runs.
	factory.Core().V1().Pods().Informer()
	factory.Core().V1().Nodes().Informer()
	core := factory.Core().V1() // what metrics are shown of is watched from the start, too
	s.measured.pods.Store(&listers{core.Pods().Lister(), core.Nodes().Lister()})
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.onStop("informers", func(context.Context) error { stop(); factory.Shutdown(); return nil })
	factory.Start(running.Done())
	factory.WaitForCacheSync(ctx.Done())
	s.background("services", p.Run)
	s.background("names", names.Run)
	return nil
}

// recorder writes events in the name of a part until the server stops.
func (s *Server) recorder(part string) record.EventRecorder {
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&coreclient.EventSinkImpl{Interface: s.client.CoreV1().Events("")})
	s.onStop("events", func(context.Context) error { broadcaster.Shutdown(); return nil })
	return broadcaster.NewRecorder(clientscheme.Scheme, corev1.EventSource{Component: "ebb-" + part, Host: s.id.Node})
}

// withoutManagedFields spares the memory of what nobody here reads.
func withoutManagedFields(object any) (any, error) {
	if o, ok := object.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	return object, nil
}

// startNode runs the node and returns when it takes pods.
func (s *Server) startNode(ctx context.Context) error {
	certificates, err := s.cluster.NodeTLS(s.id.Node, s.id.NodeIP())
	if err != nil {
		return err
	}
	listener, err := s.net.Listen(ctx, "tcp", net.JoinHostPort(s.id.NodeIP().String(), strconv.Itoa(config.KubeletPort)))
	if err != nil {
		return fmt.Errorf("listening for the node's API: %w", err)
	}
	s.node, err = node.New(node.Config{
		Name: s.id.Node, Version: Version, Client: s.client, Runtime: s.runtime, Handlers: further(s.runtime.Handlers()), Images: s.unpacked.Load(), Leases: s.unpacked.Load(), ImagesDir: s.folder.Images(),
		Address: s.id.NodeIP(), HostAddress: s.id.HostIP(), DNS: s.id.DNSIP(), ClusterDomain: clusterDomain, DataDir: s.folder.Node(),
		Listen: listener, TLS: certificates, ClientCA: s.cluster.CABundle(),
		Observer: watcher{s.fleet, s.roster}, Drainer: drainer{s.gateway, s.roster}, Seccomp: container.DefaultSeccomp, Log: s.log.With("part", "node"),
	})
	if err != nil {
		return err
	}
	s.background("node", s.node.Run)
	s.onStop("pods", s.within(podPatience, "pods", s.node.Stop))
	s.measured.node.Store(s.node)
	select {
	case <-s.node.Ready():
		return nil
	case err := <-s.failed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the node: %w", context.Cause(ctx))
	case <-time.After(time.Minute):
		return fmt.Errorf("waiting for the node: not ready after a minute; the log may tell why")
	}
}

// further are the handlers that need a RuntimeClass: all but the default, which has no name.
func further(handlers []string) []string {
	return slices.DeleteFunc(slices.Clone(handlers), func(h string) bool { return h == "" })
}
