package admit

import (
	"context"
	"io"
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/platform/fleet"
)

// How long an instance that refused a connection is left alone; doubled by each refusal in a row.
const (
	firstRest = 5 * time.Millisecond
	longRest  = time.Second
)

// Slot is a place for requests in one instance. What is exported never changes.
type Slot struct {
	// ID is the instance's.
	ID types.UID
	// Pod is the instance's name.
	Pod string
	// Address is where it listens.
	Address netip.AddrPort
	// Link is what Config.Link made for the instance.
	Link io.Closer

	// All below is guarded by the Admitter's mu.
	requests int           // in flight
	upgraded int           // connections that were requests
	index    int           // in the heap, -1 outside
	turn     uint64        // of its last pick: among equals the one longest not used goes first
	ready    bool          // may take requests, says the fleet
	draining bool          // may not, for good
	gone     bool          // no longer in the fleet
	resting  *time.Timer   // set while it is left alone after a failure
	rest     time.Duration // the next rest's length
	quiet    chan struct{} // closed when draining is done; made by the first who waits
	stamps   map[string]time.Time
}

// load is what counts against the limit.
func (s *Slot) load() int { return s.requests + s.upgraded }

// quietIfDone tells those who wait in Drain.
func (s *Slot) quietIfDone() {
	if s.quiet != nil && s.requests == 0 {
		close(s.quiet)
		s.quiet = nil
	}
}

// Refresh takes over the instances that the fleet shows now.
func (a *Admitter) Refresh() {
	a.mu.Lock()
	closing := a.refresh(a.config.Instances())
	a.mu.Unlock()
	for _, c := range closing {
		c.Close() // connections of an instance that is gone
	}
}

// refresh is Refresh with mu held, so that the snapshot read last is applied last. It returns the
// links to close.
func (a *Admitter) refresh(instances []fleet.Instance) []io.Closer {
	seen := make(map[types.UID]bool, len(instances))
	var closing []io.Closer
	for _, in := range instances {
		seen[in.ID] = true
		s := a.slots[in.ID]
		if s != nil && s.Address != in.Address {
			closing = a.drop(s, closing)
			s = nil
		}
		if s == nil {
			if !in.Address.IsValid() {
				continue
			}
			s = &Slot{ID: in.ID, Pod: in.Pod, Address: in.Address, Link: a.config.Link(in), index: -1}
			a.slots[in.ID] = s
		}
		a.update(s, in)
	}
	for id, s := range a.slots {
		if !seen[id] {
			closing = a.drop(s, closing)
		}
	}
	a.dispatch()
	return closing
}

// update takes over what the fleet says of an instance. The caller holds mu.
func (a *Admitter) update(s *Slot, in fleet.Instance) {
	if in.Ready && !s.ready {
		s.wakeUp()
	}
	if len(in.Stamps) > 0 {
		s.stamps = in.Stamps
	}
	s.ready = in.Ready
	s.draining = s.draining || in.Draining
	a.place(s)
}

// place puts the slot into the heap or takes it out. The caller holds mu.
func (a *Admitter) place(s *Slot) {
	open := s.ready && !s.draining && !s.gone && s.resting == nil
	switch {
	case open && s.index < 0:
		a.open.push(s)
	case !open && s.index >= 0:
		a.open.remove(s)
	}
}

// drop lets go of an instance that left the fleet. The caller holds mu.
func (a *Admitter) drop(s *Slot, closing []io.Closer) []io.Closer {
	s.gone = true
	s.wakeUp()
	a.place(s)
	delete(a.slots, s.ID)
	if s.load() == 0 {
		return append(closing, s.Link)
	}
	a.leaving[s] = struct{}{}
	return closing
}

// anyReady reports whether the fleet has an instance that takes requests. The caller holds mu.
func (a *Admitter) anyReady() bool {
	for _, s := range a.slots {
		if s.ready && !s.draining {
			return true
		}
	}
	return false
}

// Fail gives a slot back whose instance could not be reached. The instance is left alone for a
// while, longer each time, unless the fleet says sooner that it became ready again.
func (a *Admitter) Fail(s *Slot) {
	a.mu.Lock()
	if s.resting == nil && !s.gone {
		s.rest = min(max(2*s.rest, firstRest), longRest)
		s.resting = time.AfterFunc(s.rest, func() { a.retry(s) })
		a.place(s)
	}
	a.mu.Unlock()
	a.Release(s)
}

// Trust says that the instance could be reached, which ends the growth of its rests.
func (a *Admitter) Trust(s *Slot) {
	a.mu.Lock()
	s.rest = 0
	a.mu.Unlock()
}

// retry ends an instance's rest.
func (a *Admitter) retry(s *Slot) {
	a.mu.Lock()
	s.resting = nil
	a.place(s)
	a.dispatch()
	a.mu.Unlock()
}

// wakeUp ends a rest before its time. The caller holds mu and calls place.
func (s *Slot) wakeUp() {
	if s.resting != nil {
		s.resting.Stop()
		s.resting = nil
	}
	s.rest = 0
}

// Drain stops picking the instance and returns once no request is in flight there, or ctx ends.
// Upgraded connections are not waited for. It returns at once for an instance that is not known.
func (a *Admitter) Drain(ctx context.Context, id types.UID) error {
	for _, s := range a.stopPicking(id) {
		for {
			quiet := a.quiet(s)
			if quiet == nil {
				break
			}
			select {
			case <-quiet:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// stopPicking marks all that is known under the ID as draining.
func (a *Admitter) stopPicking(id types.UID) []*Slot {
	a.mu.Lock()
	defer a.mu.Unlock()
	var found []*Slot
	if s := a.slots[id]; s != nil {
		found = append(found, s)
	}
	for s := range a.leaving {
		if s.ID == id {
			found = append(found, s)
		}
	}
	for _, s := range found {
		s.draining = true
		a.place(s)
	}
	return found
}

// quiet returns a channel that is closed when no request is in flight; nil if none is now.
func (a *Admitter) quiet(s *Slot) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.requests == 0 {
		return nil
	}
	if s.quiet == nil {
		s.quiet = make(chan struct{})
	}
	return s.quiet
}

// Stamps tells when each step of the instance's start was done; do not change the map.
func (a *Admitter) Stamps(s *Slot) map[string]time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return s.stamps
}
