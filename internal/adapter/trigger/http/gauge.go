package http

import (
	"math"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/domain/traffic"
)

const (
	// every is how often the numbers are looked at while there are requests, as often as the add-on does.
	every = 500 * time.Millisecond
	// gap is the least time between two wakes of an idle object by requests that wait.
	gap = 10 * time.Millisecond
	// fresh is how long a request that is over still tells of activity: it may have come and gone
	// between two looks.
	fresh = time.Second
)

// A gauge keeps the numbers of one route for all its triggers.
//
//	rest ──a request comes──► look every half second ──none in flight, none in the window──► rest
//
// At rest it costs nothing.
type gauge struct {
	routes   trigger.Routes
	name     types.NamespacedName
	stopHear func()

	mu       sync.Mutex // guards the fields below; not held while watchers are woken
	rate     traffic.Rate
	window   window
	total    int64
	last     time.Time // of a request seen
	told     numbers
	watchers map[*watcher]struct{}
	timer    *time.Timer // of the next look; nil at rest
	closed   bool
}

// numbers are what triggers read.
type numbers struct {
	inFlight int64
	rate     float64
	fresh    bool
}

// A watcher is one who watches.
type watcher struct {
	mode trigger.Mode
	wake func()
	last time.Time
}

func newGauge(routes trigger.Routes, name types.NamespacedName) *gauge {
	g := &gauge{routes: routes, name: name, watchers: map[*watcher]struct{}{}}
	g.mu.Lock()
	defer g.mu.Unlock()
	if to, ok := routes.Route(name); ok {
		g.measure(to.Rate)
	}
	g.total = routes.Requests(name).Total
	g.stopHear = routes.WatchRequests(name, g.came)
	g.timer = time.AfterFunc(0, g.look) // for what is under way
	return g
}

func (g *gauge) close() {
	g.stopHear()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	if g.timer != nil {
		g.timer.Stop()
	}
}

// measure has the rate be that of a target; mu is held.
func (g *gauge) measure(rate *traffic.Rate) {
	if rate == nil || g.window.size > 0 && g.rate.Window == rate.Window && g.rate.Granularity == rate.Granularity {
		return
	}
	g.rate, g.window = *rate, newWindow(rate.Window, rate.Granularity, time.Now())
}

// read returns the numbers of now.
func (g *gauge) read(rate *traffic.Rate) numbers {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.measure(rate)
	now, _ := g.sample()
	g.attend()
	return now
}

// sample takes in what came since the last time; mu is held. quiet says that nothing changes before
// the next request.
func (g *gauge) sample() (n numbers, quiet bool) {
	now := time.Now()
	seen := g.routes.Requests(g.name)
	if came := seen.Total - g.total; came > 0 {
		g.window.add(now, came)
		g.last = now
	}
	g.total = seen.Total
	n = numbers{inFlight: seen.InFlight, rate: g.window.average(now), fresh: now.Sub(g.last) < fresh}
	return n, seen.Quiet && n.inFlight == 0 && n.rate == 0 && !n.fresh
}

// attend has the numbers looked at from now on; mu is held.
func (g *gauge) attend() {
	if g.timer == nil && !g.closed {
		g.timer = time.AfterFunc(every, g.look)
	}
}

// came is told of requests: the first after quiet, and those that wait.
func (g *gauge) came() {
	now := time.Now()
	g.mu.Lock()
	g.attend()
	var wakes []func()
	for w := range g.watchers {
		pause := gap
		if w.mode == trigger.Active {
			pause = every
		}
		if now.Sub(w.last) >= pause {
			w.last = now
			wakes = append(wakes, w.wake)
		}
	}
	g.mu.Unlock()
	for _, wake := range wakes {
		wake()
	}
}

// look wakes watchers if the numbers are others than they were told, and rests when they stay as they
// are.
func (g *gauge) look() {
	g.mu.Lock()
	if g.timer = nil; g.closed {
		g.mu.Unlock()
		return
	}
	n, quiet := g.sample()
	var wakes []func()
	if n != g.told {
		for w := range g.watchers {
			w.last = time.Now()
			wakes = append(wakes, w.wake)
		}
	}
	g.told = n
	if !quiet {
		g.attend()
	}
	g.mu.Unlock()
	for _, wake := range wakes {
		wake()
	}
}

func (g *gauge) watch(mode trigger.Mode, wake func()) (stop func()) {
	w := &watcher{mode: mode, wake: wake}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watchers[w] = struct{}{}
	g.attend()
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.watchers, w)
	}
}

// Defaults of a rate's window.
const (
	defaultWindow      = time.Minute
	defaultGranularity = time.Second
)

// A window adds up requests by time, in parts of one size. Its average is that of a part, as the
// add-on has it: requests a second only if a part is one.
type window struct {
	size  time.Duration
	parts int64
	first int64 // the part it began in
	sums  map[int64]int64
}

func newWindow(long, size time.Duration, now time.Time) window {
	if long <= 0 {
		long = defaultWindow
	}
	if size <= 0 {
		size = defaultGranularity
	}
	w := window{size: size, parts: int64(math.Ceil(float64(long) / float64(size))), sums: map[int64]int64{}}
	w.first = w.part(now)
	return w
}

func (w *window) part(at time.Time) int64 { return at.UnixNano() / int64(w.size) }

func (w *window) add(now time.Time, n int64) {
	if w.size > 0 {
		w.sums[w.part(now)] += n
	}
}

// average is the mean of the parts there were since the window began, the present one included.
func (w *window) average(now time.Time) float64 {
	if w.size == 0 {
		return 0
	}
	at, sum := w.part(now), int64(0)
	for part, n := range w.sums {
		if part <= at-w.parts {
			delete(w.sums, part)
			continue
		}
		sum += n
	}
	parts := max(1, min(at-w.first+1, w.parts))
	return math.Round(float64(sum)/float64(parts)*1000) / 1000
}
