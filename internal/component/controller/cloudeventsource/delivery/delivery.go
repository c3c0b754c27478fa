// Package delivery brings CloudEvents about KEDA's objects to those who subscribed to them.
//
// Each source has a lane of its own: a queue of bounded length and, only while that is not empty, a
// goroutine. A sink that is slow or refuses holds up nobody else; it is tried again, less and less
// often, and what waits too long is given up.
package delivery

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	kedaeventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	"github.com/prometheus/client_golang/prometheus"
)

// The limits of a lane.
const (
	maxQueue    = 1024             // events that wait; the oldest gives way
	maxAttempts = 5                // at one event
	patience    = 10 * time.Second // with one attempt
	leastPause  = 500 * time.Millisecond
	mostPause   = 30 * time.Second
)

// An Event tells what happened to an object.
type Event struct {
	ID                    string
	Type                  kedaeventingv1alpha1.CloudEventType
	Namespace, Kind, Name string // of the object, the last two in lower case
	Reason, Message       string
	Time                  time.Time
}

// A Sink takes events.
type Sink interface {
	// Kind is KEDA's name for this kind of destination.
	Kind() string
	// Send delivers one event; the error has no credentials in it.
	Send(ctx context.Context, e *Event) error
}

// A Key names a source; without a namespace it is the cluster's.
type Key struct{ Namespace, Name string }

// String names it as people do.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// A Source is who subscribed to what, and where that goes.
type Source struct {
	Sink     Sink
	Included []kedaeventingv1alpha1.CloudEventType // all if empty
	Excluded []kedaeventingv1alpha1.CloudEventType
}

// wants tells whether events of a type are subscribed to.
func (s *Source) wants(t kedaeventingv1alpha1.CloudEventType) bool {
	if len(s.Included) > 0 {
		return slices.Contains(s.Included, t)
	}
	return !slices.Contains(s.Excluded, t)
}

// Lanes deliver to all sources. Their methods may be called from many goroutines.
type Lanes struct {
	ctx     context.Context // ends all deliveries
	log     *slog.Logger
	metrics *metrics
	changed func(Key)

	mu    sync.Mutex // guards lanes
	lanes map[Key]*lane
}

// New returns Lanes without any source, which deliver until ctx ends. changed is called after what
// Active answers for a source changed; it does not block.
func New(ctx context.Context, registerer prometheus.Registerer, log *slog.Logger, changed func(Key)) (*Lanes, error) {
	m, err := newMetrics(registerer)
	if err != nil {
		return nil, err
	}
	return &Lanes{ctx: ctx, log: log, metrics: m, changed: changed, lanes: map[Key]*lane{}}, nil
}

// Set begins with a source, or goes on with one that is another now: what waits goes to the new sink.
func (l *Lanes) Set(key Key, s Source) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := newLane(l, key, s)
	if before := l.lanes[key]; before != nil {
		next.queue = before.end()
		next.begin()
	}
	l.lanes[key] = next
}

// Remove lets go of a source and of what waits for it.
func (l *Lanes) Remove(key Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before := l.lanes[key]; before != nil {
		l.metrics.queued(key, -len(before.end()))
		delete(l.lanes, key)
		l.metrics.forget(key)
	}
}

// Active tells whether the latest attempts at a source's sink did not all fail.
func (l *Lanes) Active(key Key) bool {
	l.mu.Lock()
	have := l.lanes[key]
	l.mu.Unlock()
	return have == nil || !have.failing()
}

// Any tells whether there are sources at all.
func (l *Lanes) Any() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lanes) > 0
}

// Offer hands an event to the sources that subscribed to it: those of its namespace, and the cluster's.
// It does not block.
func (l *Lanes) Offer(e *Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, lane := range l.lanes {
		if (key.Namespace == "" || key.Namespace == e.Namespace) && lane.source.wants(e.Type) {
			lane.add(e)
		}
	}
}
