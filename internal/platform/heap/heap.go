// Package heap sets how often the process's memory is collected: seldom while somebody waits or much is
// allocated, and otherwise by a margin that suits a heap which is large and hardly changes.
package heap

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// How far the heap may grow between two collections, in bytes. While somebody waits (for the start, a
// first instance, a new service) collecting is put off. Else the margin is a fixed amount rather than
// a part of what lives: a heap of many services at zero is large and does not change. It is more where
// collections would come less than seldom apart.
const (
	hurryRoom  = 600 << 20
	steadyRoom = 80 << 20
	seldom     = 40 * time.Second
)

// Bounds of that margin, in percent of what lives.
const (
	startPercent  = 400
	steadyPercent = 50
	leastPercent  = 25
)

// What a hurry, or a wider margin, leaves behind is given back when it is over for a while and as much as
// this.
const (
	releaseAfter = 10 * time.Second
	releaseAt    = 100 << 20
)

// A Pacer sets how often memory is collected, unless the user's environment (GOGC) does.
type Pacer struct {
	fixed bool

	mu      sync.Mutex // guards the fields below
	hurry   bool
	stopped bool
	release *time.Timer // nil during a hurry, and when there is nothing to give back
	last    heapState   // at the last collection
}

// New returns a Pacer that has changed nothing yet.
func New() *Pacer {
	p := &Pacer{fixed: os.Getenv("GOGC") != ""}
	if !p.fixed {
		p.last = readHeap()
		p.follow()
	}
	return p
}

// A cycle is what nothing refers to, so that the next collection finds it.
type cycle struct{ _ *Pacer }

// follow has collected be called after the next collection.
func (p *Pacer) follow() { runtime.AddCleanup(&cycle{}, (*Pacer).collected, p) }

// collected follows the need after each collection.
func (p *Pacer) collected() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	p.follow()
	before := p.last
	p.last = readHeap()
	if !p.hurry {
		p.adapt(p.last.since(before))
	}
}

// Pace is told whether somebody waits.
func (p *Pacer) Pace(hurry bool) {
	if p.fixed {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	p.quit()
	p.hurry = hurry
	if hurry {
		debug.SetGCPercent(percent(hurryRoom, steadyPercent, startPercent))
		return
	}
	p.adapt(readHeap().since(p.last))
	if p.release == nil {
		p.release = time.AfterFunc(releaseAfter, p.giveBack)
	}
}

// Stop ends what New and Pace began.
func (p *Pacer) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	p.quit()
}

func (p *Pacer) quit() {
	if p.release != nil {
		p.release.Stop()
		p.release = nil
	}
}

// adapt sets the margin for a rate of allocation, in bytes a second; memory is given back some time after
// it was wider. It is called with mu held.
func (p *Pacer) adapt(rate float64) {
	least := percent(steadyRoom, leastPercent, steadyPercent)
	margin := max(least, percent(min(uint64(rate*seldom.Seconds()), hurryRoom), 0, startPercent))
	debug.SetGCPercent(margin)
	if margin > least {
		p.quit()
		full := float64(readHeap().live) * float64(margin) / 100 / max(rate, 1) // in seconds from now at this rate
		p.release = time.AfterFunc(time.Duration(min(full, seldom.Seconds())*float64(time.Second))+releaseAfter, p.giveBack)
	}
}

// giveBack returns memory to the system if much would come of it, and sets the margin by what is
// allocated now.
func (p *Pacer) giveBack() {
	if m := readHeap(); m.held-min(m.held, m.live) >= releaseAt {
		debug.FreeOSMemory()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.hurry && !p.stopped {
		p.release = nil
		p.adapt(readHeap().since(p.last))
	}
}

// percent is the margin in percent of what lives, within bounds.
func percent(room, least, most uint64) int {
	return int(min(max(room*100/max(readHeap().live, 1), least), most))
}

// heapState is the process's heap at one time, in bytes.
type heapState struct {
	at        time.Time
	allocated uint64 // since the process began
	live      uint64 // when it was collected last
	held      uint64 // had from the system, and not given back
}

// since is how much was allocated since then, in bytes a second; less than a second counts as one.
func (s heapState) since(before heapState) float64 {
	return float64(s.allocated-before.allocated) / max(s.at.Sub(before.at).Seconds(), 1)
}

func readHeap() heapState {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/gc/heap/allocs:bytes"},
	}
	metrics.Read(samples)
	value := func(n int) uint64 {
		if samples[n].Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return samples[n].Value.Uint64()
	}
	return heapState{at: time.Now(), live: value(0), held: value(1) + value(2) + value(3), allocated: value(4)}
}
