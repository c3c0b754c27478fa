// Package heap sets how often the process's memory is collected: seldom while somebody waits, and
// otherwise by a margin that suits a heap which is large and hardly changes.
package heap

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// How far the heap may grow between two collections, in bytes. While somebody waits (for the start, a
// first instance, a new service) collecting is put off. Else the margin is a fixed amount rather than
// a part of what lives: a heap of many services at zero is large and does not change.
const (
	hurryRoom  = 600 << 20
	steadyRoom = 80 << 20
)

// Bounds of that margin, in percent of what lives.
const (
	startPercent  = 400
	steadyPercent = 50
	leastPercent  = 25
)

// What a hurry leaves behind is given back when it is over for a while and as much as this.
const (
	releaseAfter = 10 * time.Second
	releaseAt    = 100 << 20
)

// A Pacer sets how often memory is collected, unless the user's environment (GOGC) does.
type Pacer struct {
	fixed bool

	mu      sync.Mutex  // guards release
	release *time.Timer // nil during a hurry
}

// New returns a Pacer that has changed nothing yet.
func New() *Pacer { return &Pacer{fixed: os.Getenv("GOGC") != ""} }

// Pace is told whether somebody waits.
func (p *Pacer) Pace(hurry bool) {
	if p.fixed {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.quit()
	if hurry {
		debug.SetGCPercent(percent(hurryRoom, steadyPercent, startPercent))
		return
	}
	debug.SetGCPercent(percent(steadyRoom, leastPercent, steadyPercent))
	p.release = time.AfterFunc(releaseAfter, giveBack)
}

// Stop ends what Pace began.
func (p *Pacer) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.quit()
}

func (p *Pacer) quit() {
	if p.release != nil {
		p.release.Stop()
		p.release = nil
	}
}

// giveBack collects and returns memory to the system if much would come of it.
func giveBack() {
	m := readHeap()
	if m.held-min(m.held, m.live) < releaseAt {
		return
	}
	debug.FreeOSMemory()
	debug.SetGCPercent(percent(steadyRoom, leastPercent, steadyPercent)) // of what is known to live now
}

// percent is the margin in percent of what lives, within bounds.
func percent(room, least, most uint64) int {
	return int(min(max(room*100/max(readHeap().live, 1), least), most))
}

// heapState is the process's heap in bytes.
type heapState struct {
	live uint64 // when it was collected last
	held uint64 // had from the system, and not given back
}

func readHeap() heapState {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(samples)
	value := func(n int) uint64 {
		if samples[n].Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return samples[n].Value.Uint64()
	}
	return heapState{live: value(0), held: value(1) + value(2) + value(3)}
}
