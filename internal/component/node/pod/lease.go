package pod

import (
	"context"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Leases keep images on the node for as long as containers use them, over restarts too.
type Leases interface {
	// Lease keeps an image for an owner, instead of another it had.
	Lease(owner, digest string) error
	// Release gives an owner's lease back; without one it does nothing.
	Release(owner string) error
}

// leaseAfter is how long a container has run when its image's lease is written: a file that no start
// should have to wait for. Should the process die before, the next one writes it.
const leaseAfter = time.Second

// leasePrefix tells pods' leases from others'.
const leasePrefix = "pod/"

// leaseOwner is a container through all its restarts, so that its image stays between them.
func (p *Pod) leaseOwner(container string) string {
	return leasePrefix + string(p.uid) + "/" + container
}

// LeasedBy is the pod that an owner of a lease belongs to, if it is a pod's.
func LeasedBy(owner string) (types.UID, bool) {
	rest, ok := strings.CutPrefix(owner, leasePrefix)
	if !ok {
		return "", false
	}
	uid, _, ok := strings.Cut(rest, "/")
	return types.UID(uid), ok
}

// leased are the leases of a pod's containers.
type leased struct {
	mu   sync.Mutex        // guards what follows, and is held while leases change
	by   map[string]string // container → digest
	over bool              // the pod needs none any more
}

// lease keeps the image of a container that has started.
func (p *Pod) lease(container, digest string) {
	if p.host.Leases == nil || digest == "" {
		return
	}
	p.beside(func(ctx context.Context) func() {
		timer := time.NewTimer(leaseAfter)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		p.leased.mu.Lock()
		defer p.leased.mu.Unlock()
		if p.leased.over || p.leased.by[container] == digest {
			return nil
		}
		if err := p.host.Leases.Lease(p.leaseOwner(container), digest); err != nil {
			p.log.Warn("keeping a container's image", "container", container, "error", err)
			return nil
		}
		p.leased.by[container] = digest
		return nil
	})
}

// releaseImages gives back the leases of a pod whose containers are gone, also those that a process
// before this one took.
func (p *Pod) releaseImages(containers []string) {
	if p.host.Leases == nil {
		return
	}
	p.leased.mu.Lock()
	defer p.leased.mu.Unlock()
	p.leased.over = true
	for _, name := range containers {
		if err := p.host.Leases.Release(p.leaseOwner(name)); err != nil {
			p.log.Warn("giving up a container's image", "container", name, "error", err)
		}
	}
}
