package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"golang.org/x/sync/errgroup"
	clientgo "k8s.io/client-go/kubernetes"

	"ebb.dev/ebb/internal/component/cluster"
	"ebb.dev/ebb/internal/component/metricsapi"
	"ebb.dev/ebb/internal/component/registry"
	"ebb.dev/ebb/internal/platform/image"
)

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
		Folder: s.folder, ID: s.id, APIAddress: s.options.API, NodeListener: inside, Transport: s.gate.HoldEvents, Kinds: s.defined, Log: s.log.With("part", "kubernetes"),
		Locals: []cluster.Local{
			{Namespace: systemNamespace, Name: "admission", Handler: &s.admission},
			{Namespace: systemNamespace, Name: "metrics", Handler: metrics, APIs: []cluster.GroupVersion{{Group: metricsapi.Group, Version: metricsapi.Version, GroupPriority: 100, VersionPriority: 100}}},
			{Namespace: systemNamespace, Name: "custom-metrics", Handler: s.customMetricsHandler(), APIs: customMetricsAPIs()},
		},
	})
	if err != nil {
		return errors.Join(err, inside.Close())
	}
	s.onStop("kubernetes", s.cluster.Stop)
	return s.say(func(st *Status) { st.API = "https://" + s.options.API })
}
