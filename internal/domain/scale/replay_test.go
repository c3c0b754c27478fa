package scale_test

import (
	"encoding/csv"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"ebb.dev/ebb/internal/domain/scale"
)

// The replay runs recorded functions through the arithmetic twice: as upstream is driven (a poke when
// the first request comes to zero, else ticks of two seconds) and as ebb is (every request that waits
// brings an evaluation forward). Instances carry one request at a time and take coldStart to start.
const (
	step      = 100 * time.Millisecond
	coldStart = time.Second
)

// A trace is one recorded function.
type trace struct {
	name     string
	takes    time.Duration
	arrivals []time.Duration
}

// figures sum up what a policy cost.
type figures struct {
	requests, waited int
	waiting          time.Duration // of all requests
	worst            time.Duration
	alive, busy      time.Duration // of instances
}

func (f *figures) add(o figures) {
	f.requests += o.requests
	f.waited += o.waited
	f.waiting += o.waiting
	f.worst = max(f.worst, o.worst)
	f.alive += o.alive
	f.busy += o.busy
}

func (f *figures) cold() float64  { return 100 * float64(f.waited) / float64(f.requests) }
func (f *figures) waste() float64 { return 100 * (1 - float64(f.busy)/float64(f.alive)) }
func (f *figures) mean() time.Duration {
	return (f.waiting / time.Duration(f.requests)).Round(time.Millisecond)
}

func TestReplay(t *testing.T) {
	var ticks, edges figures
	for _, tr := range readTraces(t) {
		ticks.add(newReplay(t, tr, false).run())
		edges.add(newReplay(t, tr, true).run())
	}
	for name, f := range map[string]*figures{"ticks (as upstream)": &ticks, "edges (as ebb)": &edges} {
		t.Logf("%-20s %d requests, %.1f%% waited, %s in the mean, %s at worst; %s of instances, %.1f%% idle",
			name, f.requests, f.cold(), f.mean(), f.worst.Round(time.Millisecond), f.alive.Round(time.Second), f.waste())
	}
	if edges.requests != ticks.requests || edges.requests == 0 {
		t.Fatalf("%d and %d requests served", edges.requests, ticks.requests)
	}
	if edges.waiting > ticks.waiting {
		t.Error("requests wait longer with edges than with ticks alone")
	}
	if edges.alive > ticks.alive*21/20 {
		t.Error("edges cost over 5% more of instances' time")
	}
}

func readTraces(t *testing.T) []trace {
	t.Helper()
	f, err := os.Open("testdata/azure-functions-2019/sample.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(2019, 7))
	traces := make([]trace, 0, len(rows)-1)
	for _, row := range rows[1:] {
		ms, err := strconv.ParseFloat(row[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		tr := trace{name: row[0], takes: time.Duration(ms * float64(time.Millisecond))}
		for minute, cell := range row[3:] {
			n, err := strconv.Atoi(cell)
			if err != nil {
				t.Fatal(err)
			}
			for range n {
				at := time.Duration(minute)*time.Minute + time.Duration(random.Int64N(int64(time.Minute)))
				tr.arrivals = append(tr.arrivals, at)
			}
		}
		slices.Sort(tr.arrivals)
		traces = append(traces, tr)
	}
	return traces
}

// A replay is one function under one policy.
type replay struct {
	trace    trace
	edges    bool
	state    *scale.State
	figures  figures
	now      time.Duration // since t0
	next     int           // of arrivals
	queue    []time.Duration
	running  []time.Duration // when they end, soonest first
	starting []time.Duration // when they are ready, soonest first
	ready    int
	replicas int32
	area     time.Duration // of requests in flight in the open second
	poked    float64       // already recorded for the open second
}

func newReplay(t *testing.T, tr trace, edges bool) *replay {
	t.Helper()
	return &replay{trace: tr, edges: edges, state: scale.NewState(spec(t, 1, nil), 0, t0)}
}

// run goes on until all requests are served and the last instance is gone.
func (r *replay) run() figures {
	for r.next < len(r.trace.arrivals) || r.inFlight() > 0 || r.instances() > 0 {
		r.move()
		r.now += step
		r.area += time.Duration(r.inFlight()) * step
		r.figures.alive += time.Duration(r.instances()) * step
		if r.now%time.Second == 0 {
			r.tick()
		}
	}
	r.figures.busy = time.Duration(r.figures.requests) * r.trace.takes
	return r.figures
}

func (r *replay) inFlight() int  { return len(r.queue) + len(r.running) }
func (r *replay) instances() int { return r.ready + len(r.starting) }

// move ends, starts and queues what is due.
func (r *replay) move() {
	r.running = due(r.running, r.now)
	before := len(r.starting)
	r.starting = due(r.starting, r.now)
	r.ready += before - len(r.starting)
	quiet := r.inFlight() == 0
	for ; r.next < len(r.trace.arrivals) && r.trace.arrivals[r.next] <= r.now; r.next++ {
		r.queue = append(r.queue, r.trace.arrivals[r.next])
	}
	r.serve()
	if len(r.queue) == 0 {
		return
	}
	switch {
	case r.edges:
		open := float64(r.inFlight())
		r.decide(&open)
	case quiet && r.replicas == 0:
		r.poked = 1
		r.state.Record(t0.Add(r.now), 1)
		r.decide(nil)
	}
	r.serve()
}

func (r *replay) serve() {
	for len(r.queue) > 0 && len(r.running) < r.ready {
		waited := r.now - r.queue[0]
		r.queue = r.queue[1:]
		r.running = append(r.running, r.now+r.trace.takes)
		r.figures.requests++
		if waited > step {
			r.figures.waited++
			r.figures.waiting += waited
			r.figures.worst = max(r.figures.worst, waited)
		}
	}
	r.shrink()
}

// tick records the second that is over and decides every other time.
func (r *replay) tick() {
	value := r.area.Seconds()
	r.area = 0
	value, r.poked = max(0, value-r.poked), 0
	if value > 0 || r.ready > 0 {
		r.state.Record(t0.Add(r.now-time.Second), value)
	}
	if r.now%(2*time.Second) == 0 {
		r.decide(nil)
	}
}

func (r *replay) decide(open *float64) {
	d := r.state.Decide(scale.Observation{
		Now: t0.Add(r.now), Ready: r.ready, Replicas: r.replicas,
		InFlight: int64(r.inFlight()), Open: open, BufferedFor: math.MaxInt64,
	})
	r.replicas = d.Replicas
	for r.instances() < int(r.replicas) {
		r.starting = append(r.starting, r.now+coldStart)
	}
	r.shrink()
}

// shrink takes away what is not wanted: first what is starting, then what is idle.
func (r *replay) shrink() {
	for r.instances() > int(r.replicas) && len(r.starting) > 0 {
		r.starting = r.starting[:len(r.starting)-1]
	}
	r.ready = max(min(r.ready, int(r.replicas)), len(r.running))
}

// due drops the moments that have come.
func due(moments []time.Duration, now time.Duration) []time.Duration {
	n := 0
	for n < len(moments) && moments[n] <= now {
		n++
	}
	return moments[n:]
}
