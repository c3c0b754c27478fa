package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// healthCheck answers load balancers outside whether a Service whose external traffic stays local
// has endpoints here, at its healthCheckNodePort.
type healthCheck struct {
	at        netip.AddrPort
	service   types.NamespacedName
	endpoints atomic.Int64
	server    *http.Server
}

// applyHealth opens, updates or closes a Service's health check. The lock is held.
func (p *Proxy) applyHealth(ctx context.Context, key types.NamespacedName, s *serving, svc *corev1.Service, fronts []front) error {
	var at netip.AddrPort
	if svc != nil && svc.Spec.HealthCheckNodePort != 0 && svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		at = netip.AddrPortFrom(p.cfg.NodeIP, uint16(svc.Spec.HealthCheckNodePort))
	}
	if s.health != nil && s.health.at != at {
		_ = s.health.server.Close()
		s.health = nil
	}
	if !at.IsValid() {
		return nil
	}
	if s.health == nil {
		h := &healthCheck{at: at, service: key}
		l, err := p.cfg.Net.Listen(ctx, "tcp4", at.String())
		if err != nil {
			return fmt.Errorf("listening for health checks at %s: %w", at, err)
		}
		h.server = &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second}
		go func() { _ = h.server.Serve(l) }()
		s.health = h
	}
	local := map[netip.Addr]bool{}
	for _, f := range fronts {
		if f.at.Addr() != p.cfg.NodeIP {
			continue
		}
		for _, e := range f.endpoints {
			local[e.Addr()] = true
		}
	}
	s.health.endpoints.Store(int64(len(local)))
	return nil
}

// ServeHTTP answers as kube-proxy does.
func (h *healthCheck) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	count := h.endpoints.Load()
	w.Header().Set("Content-Type", "application/json")
	if count == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"service":        map[string]string{"namespace": h.service.Namespace, "name": h.service.Name},
		"localEndpoints": count,
	})
}
