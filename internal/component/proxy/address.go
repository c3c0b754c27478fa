package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// LoadBalancerClass is the class of Services this proxy balances, beside those that name none.
const LoadBalancerClass = "ebb.dev/node"

// Why a Service gets no address; callers use errors.Is.
var (
	errRangeFull   = errors.New("no free load-balancer address")
	errOutOfRange  = errors.New("address is outside the load-balancer range")
	errAddressUsed = errors.New("address is in use by another Service")
)

// addresses hands out load-balancer addresses. They are remembered in the Services' status only.
type addresses struct {
	within netip.Prefix

	mu      sync.Mutex // guards the rest
	owner   map[netip.Addr]types.NamespacedName
	own     map[types.NamespacedName]netip.Addr
	waiting map[types.NamespacedName]bool // got none; told when one is released
}

func newAddresses(within netip.Prefix) *addresses {
	return &addresses{
		within:  within.Masked(),
		owner:   map[netip.Addr]types.NamespacedName{},
		own:     map[types.NamespacedName]netip.Addr{},
		waiting: map[types.NamespacedName]bool{},
	}
}

// assign gives the Service the address it asks for, the one it has, or a free one.
func (a *addresses) assign(key types.NamespacedName, asked netip.Addr) (netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	has, ok := a.own[key]
	if ok && (!asked.IsValid() || asked == has) {
		return has, nil
	}
	if ok {
		delete(a.owner, has)
		delete(a.own, key)
	}
	addr, err := a.pick(key, asked)
	if err != nil {
		a.waiting[key] = true
		return netip.Addr{}, err
	}
	delete(a.waiting, key)
	a.owner[addr], a.own[key] = key, addr
	return addr, nil
}

// assignAsked is assign for the address as the Service spells it, empty for any.
func (a *addresses) assignAsked(key types.NamespacedName, asked string) (netip.Addr, error) {
	if asked == "" {
		return a.assign(key, netip.Addr{})
	}
	addr, err := netip.ParseAddr(asked)
	if err != nil {
		return addr, fmt.Errorf("taking the load-balancer address asked for: %w", err)
	}
	return a.assign(key, addr)
}

// pick finds an address without taking it. The lock is held.
func (a *addresses) pick(key types.NamespacedName, asked netip.Addr) (netip.Addr, error) {
	if asked.IsValid() {
		if !a.usable(asked) {
			return asked, fmt.Errorf("taking load-balancer address %s: %w", asked, errOutOfRange)
		}
		if owner, taken := a.owner[asked]; taken && owner != key {
			return asked, fmt.Errorf("taking load-balancer address %s: %w (%s)", asked, errAddressUsed, owner)
		}
		return asked, nil
	}
	for addr := a.within.Addr().Next(); a.usable(addr); addr = addr.Next() {
		if _, taken := a.owner[addr]; !taken {
			return addr, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("taking an address from %s: %w", a.within, errRangeFull)
}

// usable tells whether addr is in the range and not its first or last.
func (a *addresses) usable(addr netip.Addr) bool {
	return a.within.Contains(addr) && addr != a.within.Addr() && a.within.Contains(addr.Next())
}

// release frees a Service's address and returns the Services that wait for one.
func (a *addresses) release(key types.NamespacedName) []types.NamespacedName {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, key)
	addr, ok := a.own[key]
	if !ok {
		return nil
	}
	delete(a.own, key)
	delete(a.owner, addr)
	waiting := make([]types.NamespacedName, 0, len(a.waiting))
	for k := range a.waiting {
		waiting = append(waiting, k)
	}
	return waiting
}

// adoptAddresses takes over what Services' status says, the oldest Service first.
func (p *Proxy) adoptAddresses() error {
	all, err := p.services.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("listing services: %w", err)
	}
	slices.SortFunc(all, func(a, b *corev1.Service) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	for _, svc := range all {
		if !balanced(svc) {
			continue
		}
		if addr, ok := given(svc); ok {
			key, _ := serviceKey(svc)
			_, _ = p.balance.assign(key, addr) // one that lost its address gets another in sync
		}
	}
	return nil
}

// balanced tells whether the Service is ours to give an address.
func balanced(svc *corev1.Service) bool {
	class := svc.Spec.LoadBalancerClass
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && (class == nil || *class == LoadBalancerClass)
}

// given is the address the Service's status says it has.
func given(svc *corev1.Service) (netip.Addr, bool) {
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if addr, err := netip.ParseAddr(in.IP); err == nil {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// assignAddress gives a Service of type LoadBalancer its address and writes it to its status, or
// takes it back from one that no longer is.
func (p *Proxy) assignAddress(ctx context.Context, svc *corev1.Service) (netip.Addr, error) {
	key, _ := serviceKey(svc)
	if !balanced(svc) {
		had := p.balance.holds(key)
		for _, waiting := range p.balance.release(key) {
			p.queue.Add(waiting)
		}
		if had && len(svc.Status.LoadBalancer.Ingress) > 0 {
			return netip.Addr{}, p.writeIngress(ctx, svc, nil)
		}
		return netip.Addr{}, nil
	}
	addr, err := p.balance.assignAsked(key, svc.Spec.LoadBalancerIP)
	if err != nil {
		p.event(svc, "LoadBalancerAddress", err.Error())
		if len(svc.Status.LoadBalancer.Ingress) > 0 {
			return netip.Addr{}, p.writeIngress(ctx, svc, nil)
		}
		// The user is told; trying again makes sense when an address is released.
		return netip.Addr{}, nil
	}
	if is, ok := given(svc); ok && is == addr && len(svc.Status.LoadBalancer.Ingress) == 1 {
		return addr, nil
	}
	mode := corev1.LoadBalancerIPModeVIP
	return addr, p.writeIngress(ctx, svc, []corev1.LoadBalancerIngress{{IP: addr.String(), IPMode: &mode}})
}

// holds tells whether a Service has an address.
func (a *addresses) holds(key types.NamespacedName) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.own[key]
	return ok
}

// writeIngress replaces the addresses in a Service's status. A Service that is gone needs none.
func (p *Proxy) writeIngress(ctx context.Context, svc *corev1.Service, ingress []corev1.LoadBalancerIngress) error {
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": ingress}}})
	if err != nil {
		return err
	}
	_, err = p.cfg.Client.CoreV1().Services(svc.Namespace).Patch(ctx, svc.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("writing load-balancer address: %w", err)
	}
	return nil
}
