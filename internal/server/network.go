package server

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"ebb.dev/ebb/internal/adapter/runtime/container/network"
	"ebb.dev/ebb/internal/platform/config"
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
