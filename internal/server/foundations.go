package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"

	"golang.org/x/sync/errgroup"
	clientgo "k8s.io/client-go/kubernetes"

	"ebb.dev/ebb/internal/adapter/runtime/container/network"
	"ebb.dev/ebb/internal/component/cluster"
	"ebb.dev/ebb/internal/component/metricsapi"
	"ebb.dev/ebb/internal/component/metricsapi/external"
	"ebb.dev/ebb/internal/component/registry"
	"ebb.dev/ebb/internal/platform/config"
	"ebb.dev/ebb/internal/platform/image"
	"ebb.dev/ebb/internal/platform/netns"
)

// netConfig is the namespace an identity stands for.
func (s *Server) netConfig() netns.Config {
	c := netConfig(s.folder, s.id)
	c.Log = s.log.With("part", "network")
	return c
}

func netConfig(folder config.Folder, id config.Identity) netns.Config {
	return netns.Config{
		Name:             id.Name(),
		BindPath:         filepath.Join(folder.Network(), "namespace"),
		NodeIP:           id.NodeIP(),
		HostIP:           id.HostIP(),
		PodCIDR:          id.PodCIDR(),
		ServiceCIDR:      id.ServiceCIDR(),
		LoadBalancerCIDR: id.LoadBalancerCIDR(),
	}
}

func podNetwork(folder config.Folder) string { return filepath.Join(folder.Network(), "pods") }

// startNetwork makes ebb's namespace, or adopts the one a killed ebb left with pods in it.
func (s *Server) startNetwork(ctx context.Context) error {
	s.onStop("network", s.leaveNetwork)
	n, err := netns.Open(ctx, s.netConfig())
	if errors.Is(err, netns.ErrTaken) {
		return fmt.Errorf("%w; this data folder's addresses were chosen once and its Services have them: end what uses them now, or start afresh with another --data", err)
	}
	if err != nil {
		return err
	}
	s.net = n
	s.limit(n.Limits()...)
	return nil
}

// leaveNetwork undoes startNetwork, however far it got. Pods that a killed ebb left go first: a start
// that ended before the runtime took them over must not leave them without a network.
func (s *Server) leaveNetwork(ctx context.Context) error {
	err := errors.Join(cleanRuntime(ctx, s.folder, s.id), network.CleanUp(podNetwork(s.folder)))
	if s.net == nil {
		return errors.Join(err, netns.Remove(s.netConfig()))
	}
	return errors.Join(err, s.net.Remove())
}

// limit adds sentences about what this machine does not allow.
func (s *Server) limit(sentences ...string) {
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	s.status.Limits = append(s.status.Limits, sentences...)
}

// sweep removes what a killed ebb left: processes and mounts first, then the network.
func sweep(ctx context.Context, folder config.Folder) error {
	if !ours(folder) {
		return nil
	}
	id, err := config.LoadIdentity(folder)
	if err != nil {
		return err
	}
	err = cleanRuntime(ctx, folder, id)
	if e := network.CleanUp(podNetwork(folder)); e != nil {
		err = errors.Join(err, fmt.Errorf("removing pods' networks: %w", e))
	}
	if e := netns.Remove(netConfig(folder, id)); e != nil {
		err = errors.Join(err, fmt.Errorf("removing the network: %w", e))
	}
	return err
}

// transport is what every client in this process sends by.
func (s *Server) transport(next http.RoundTripper) http.RoundTripper {
	return s.gate.HoldEvents(s.replicas.Wrap(next))
}

// KubernetesVersion is the version of the Kubernetes linked in.
func KubernetesVersion() string { return cluster.Version() }

// startFoundations starts what needs nothing of ours: Kubernetes, the image registry, the runtime.
func (s *Server) startFoundations(ctx context.Context) error {
	if err := s.startRegistry(ctx); err != nil {
		return err
	}
	if err := s.startCluster(ctx); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.cluster.Ready(gctx) })
	g.Go(func() error { return s.startRuntime(ctx) })
	if err := g.Wait(); err != nil {
		return err
	}
	s.rest = s.cluster.RESTConfig()
	client, err := clientgo.NewForConfig(s.rest)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	s.client = client
	return nil
}

// startRegistry serves images on a loopback port that the folder keeps.
func (s *Server) startRegistry(ctx context.Context) error {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(s.id.RegistryPort))
	r, err := registry.New(registry.Config{Dir: s.folder.Registry(), Log: s.log.With("part", "registry"), Tagged: s.retag(image.Mirror{Address: address})})
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listening for images: %w; the port was chosen for this data folder once and images are named by it: end the program that has it now", err)
	}
	s.images = image.Open(address, s.log.With("part", "images"))
	s.background("registry", func(ctx context.Context) error { return r.Serve(ctx, listener) })
	return s.say(func(st *Status) { st.Registry = address })
}

// retag has pods that name a tag get the image it stands for now, also those that pull only what is
// not present.
func (s *Server) retag(mirror image.Mirror) func(repository, tag, digest string) {
	return func(repository, tag, _ string) {
		store := s.unpacked.Load()
		if store == nil {
			return // nothing is unpacked yet that could be old
		}
		for _, reference := range mirror.References(repository, tag) {
			if err := store.Retag(reference); err != nil {
				s.log.Warn("an image that was pulled before may stay in use", "part", "images", "reference", reference, "error", err)
			}
		}
	}
}

// startCluster starts Kubernetes with the handlers it will call; what they need comes later.
func (s *Server) startCluster(ctx context.Context) error {
	_, port, err := net.SplitHostPort(s.options.API)
	if err != nil {
		return fmt.Errorf("reading --api: %w", err)
	}
	metrics, err := s.metricsHandler()
	if err != nil {
		return err
	}
	inside, err := s.net.Listen(ctx, "tcp", net.JoinHostPort(s.id.NodeIP().String(), port))
	if err != nil {
		return fmt.Errorf("listening for pods: %w", err)
	}
	s.cluster, err = cluster.Start(ctx, cluster.Config{
		Folder: s.folder, ID: s.id, APIAddress: s.options.API, NodeListener: inside, Transport: s.transport, Kinds: s.defined, Log: s.log.With("part", "kubernetes"),
		Locals: []cluster.Local{
			{Namespace: systemNamespace, Name: "admission", Handler: &s.admission},
			{Namespace: systemNamespace, Name: "metrics", Handler: metrics, APIs: []cluster.GroupVersion{{Group: metricsapi.Group, Version: metricsapi.Version, GroupPriority: 100, VersionPriority: 100}}},
			{Namespace: systemNamespace, Name: "custom-metrics", Handler: s.customMetricsHandler(), APIs: customMetricsAPIs()},
			{Namespace: systemNamespace, Name: "external-metrics", Handler: s.externalMetricsHandler(), APIs: []cluster.GroupVersion{{Group: external.Group, Version: external.Version, GroupPriority: 100, VersionPriority: 100}}},
		},
	})
	if err != nil {
		return errors.Join(err, inside.Close())
	}
	s.onStop("kubernetes", s.cluster.Stop)
	return s.say(func(st *Status) { st.API = "https://" + s.options.API })
}
