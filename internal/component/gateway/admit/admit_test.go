package admit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/gateway/admit"
	"ebb.dev/ebb/internal/platform/fleet"
)

var rev = types.NamespacedName{Namespace: "default", Name: "hello-00001"}

// bench is an Admitter with a fleet that tests change.
type bench struct {
	*admit.Admitter
	fleet  *fleet.Fleet
	wakes  atomic.Int64
	closed atomic.Int64
}

type link struct{ b *bench }

func (l link) Close() error {
	l.b.closed.Add(1)
	return nil
}

func newBench(limit, depth int) *bench {
	b := &bench{fleet: fleet.New()}
	b.Admitter = admit.New(admit.Config{
		Instances: func() []fleet.Instance { return b.fleet.Instances(rev) },
		Link:      func(fleet.Instance) io.Closer { return link{b} },
		Wake:      func() { b.wakes.Add(1) },
		Depth:     depth,
	})
	b.SetLimit(limit)
	b.fleet.Subscribe(func(types.NamespacedName) { b.Refresh() })
	return b
}

func (b *bench) set(id string, ready bool) {
	b.fleet.Observe(fleet.Local, fleet.Instance{
		ID: types.UID(id), Revision: rev, Ready: ready, Address: netip.MustParseAddrPort("10.0.0.1:80"),
	})
}

// take admits a request that must not wait.
func (b *bench) take(t *testing.T) *admit.Slot {
	t.Helper()
	s := b.Try(&admit.Entry{})
	if s == nil {
		t.Fatal("no slot is free")
	}
	return s
}

func TestPicksTheLeastLoaded(t *testing.T) {
	b := newBench(0, 10)
	for _, id := range []string{"a", "b", "c"} {
		b.set(id, true)
	}
	var got []string
	slots := map[string][]*admit.Slot{}
	pick := func() {
		s := b.take(t)
		got = append(got, string(s.ID))
		slots[string(s.ID)] = append(slots[string(s.ID)], s)
	}
	for range 6 {
		pick()
	}
	for _, s := range slots["b"] {
		b.Release(s)
	}
	pick()
	pick()
	if want := []string{"a", "b", "c", "a", "b", "c", "b", "b"}; !slices.Equal(got[6:], want[6:]) || !spread(got[:6]) {
		t.Errorf("picked %v", got)
	}
}

// spread reports whether each instance appears as often as the others.
func spread(ids []string) bool {
	n := map[string]int{}
	for _, id := range ids {
		n[id]++
	}
	for _, c := range n {
		if c != len(ids)/len(n) {
			return false
		}
	}
	return true
}

func TestAdmitsInOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(1, 100)
		var order []int
		for i := range 20 {
			go func() {
				s, err := b.Admit(t.Context(), &admit.Entry{}, time.Hour)
				if err != nil {
					t.Errorf("request %d: %v", i, err)
					return
				}
				order = append(order, i) // one slot, one at a time
				<-time.After(time.Millisecond)
				b.Release(s)
			}()
			synctest.Wait()
		}
		if b.Queued() != 20 || b.wakes.Load() < 20 {
			t.Errorf("%d wait, %d wakes", b.Queued(), b.wakes.Load())
		}
		b.set("a", true)
		<-time.After(time.Second)
		synctest.Wait()
		if !slices.IsSorted(order) || len(order) != 20 {
			t.Errorf("order = %v", order)
		}
	})
}

func TestRequestThatComesBackKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(1, 100)
		b.set("a", true)
		var order []string
		first := &admit.Entry{}
		s := b.Try(first)
		wait := func(name string, e *admit.Entry) {
			go func() {
				s, err := b.Admit(t.Context(), e, time.Hour)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				order = append(order, name)
				b.Release(s)
			}()
			synctest.Wait()
		}
		wait("second", &admit.Entry{})
		wait("third", &admit.Entry{})
		b.Fail(s) // its instance could not be reached and rests
		wait("first", first)
		<-time.After(time.Second)
		synctest.Wait()
		if want := []string{"first", "second", "third"}; !slices.Equal(order, want) {
			t.Errorf("order = %v, want %v", order, want)
		}
	})
}

func TestWhyARequestIsNotAdmitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(1, 2)
		began := time.Now()
		results := make(chan error, 2)
		go func() {
			_, err := b.Admit(t.Context(), &admit.Entry{}, 3*time.Second)
			results <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, err := b.Admit(ctx, &admit.Entry{}, time.Hour)
			results <- err
		}()
		synctest.Wait()
		if _, err := b.Admit(t.Context(), &admit.Entry{}, time.Hour); !errors.Is(err, admit.ErrQueueFull) {
			t.Errorf("the third: %v", err)
		}
		cancel()
		if err := <-results; !errors.Is(err, context.Canceled) || time.Since(began) != 0 {
			t.Errorf("the one that left: %v after %v", err, time.Since(began))
		}
		if err := <-results; !errors.Is(err, admit.ErrTimeout) || time.Since(began) != 3*time.Second {
			t.Errorf("the one that waited: %v after %v", err, time.Since(began))
		}
		if b.Queued() != 0 {
			t.Errorf("%d still wait", b.Queued())
		}
		if b.wakes.Load() < 4 { // two arrivals and the reminders of the oldest
			t.Errorf("%d wakes", b.wakes.Load())
		}
	})
}

func TestUnreachableInstanceRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(0, 10)
		b.set("a", true)
		began := time.Now()
		var waits []time.Duration
		e := &admit.Entry{}
		for range 12 {
			s, err := b.Admit(t.Context(), e, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			waits = append(waits, time.Since(began))
			began = time.Now()
			b.Fail(s)
		}
		if !slices.IsSorted(waits) || waits[1] > 10*time.Millisecond || waits[11] != time.Second {
			t.Errorf("rests = %v", waits)
		}
		if e.Cold {
			t.Error("an instance was there, yet the request counts as cold")
		}
		go func() { // the fleet sees it restart
			<-time.After(10 * time.Millisecond)
			b.set("a", false)
			b.set("a", true)
		}()
		began = time.Now()
		s, err := b.Admit(t.Context(), e, time.Hour)
		if err != nil || time.Since(began) != 10*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		b.Trust(s)
		b.Release(s)
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(0, 10)
		b.set("a", true)
		one, two, ws := b.take(t), b.take(t), b.take(t)
		b.Upgrade(ws)
		drained := false
		go func() {
			if err := b.Drain(t.Context(), "a"); err != nil {
				t.Errorf("Drain: %v", err)
			}
			drained = true
		}()
		synctest.Wait()
		if b.Try(&admit.Entry{}) != nil {
			t.Error("a draining instance was picked")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Drain(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Drain with requests in flight: %v", err)
		}
		b.Release(one)
		synctest.Wait()
		if drained {
			t.Error("drained with a request in flight")
		}
		b.fleet.Remove(fleet.Local, "a") // gone from the fleet with a request in flight
		b.Release(two)
		synctest.Wait()
		if !drained {
			t.Error("not drained though only an upgraded connection is left")
		}
		if b.closed.Load() != 0 {
			t.Error("the link was closed under a connection")
		}
		b.ReleaseUpgraded(ws)
		if b.closed.Load() != 1 || !b.Idle() {
			t.Errorf("closed %d links, idle %v", b.closed.Load(), b.Idle())
		}
	})
}

// TestNoSlotIsLostOrSharedTooOften lets requests, failures, departures and instances come and go at
// random, and checks what must hold at every moment.
func TestNoSlotIsLostOrSharedTooOften(t *testing.T) {
	for _, limit := range []int{1, 2, 7} {
		t.Run(fmt.Sprint("limit ", limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { chaos(t, limit) })
		})
	}
}

func chaos(t *testing.T, limit int) {
	b := newBench(limit, 10_000)
	var mu sync.Mutex
	load := map[*admit.Slot]int{}
	var served, left atomic.Int64
	var wg sync.WaitGroup
	request := func(rng *rand.Rand) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if rng.IntN(5) == 0 {
			stop := time.AfterFunc(time.Duration(rng.IntN(5000))*time.Microsecond, cancel)
			defer stop.Stop()
		}
		e := &admit.Entry{}
		for {
			s, err := b.Admit(ctx, e, time.Hour)
			if err != nil {
				left.Add(1)
				return
			}
			mu.Lock()
			if load[s]++; load[s] > limit {
				t.Errorf("%d requests in one instance, limit %d", load[s], limit)
			}
			mu.Unlock()
			<-time.After(time.Duration(rng.IntN(2000)) * time.Microsecond)
			mu.Lock()
			load[s]--
			mu.Unlock()
			if rng.IntN(10) == 0 {
				b.Fail(s)
				continue
			}
			b.Release(s)
			served.Add(1)
			return
		}
	}
	const n = 2000
	for i := range n {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			<-time.After(time.Duration(rng.IntN(300)) * time.Millisecond)
			request(rng)
		})
	}
	wg.Go(func() {
		rng := rand.New(rand.NewPCG(2, 0))
		for i := range 300 {
			<-time.After(time.Millisecond)
			id := fmt.Sprint("i", rng.IntN(8)+i/50*8)
			switch rng.IntN(6) {
			case 0:
				b.fleet.Remove(fleet.Local, types.UID(id))
			case 1:
				b.set(id, false)
			case 2:
				wg.Go(func() { _ = b.Drain(t.Context(), types.UID(id)) })
			default:
				b.set(id, true)
			}
		}
		b.set("last", true)
	})
	wg.Wait()
	if b.Queued() != 0 || served.Load()+left.Load() != n {
		t.Errorf("%d wait, %d served, %d left, of %d", b.Queued(), served.Load(), left.Load(), n)
	}
	if left.Load() > n/4 {
		t.Errorf("%d requests were not served", left.Load())
	}
}

func BenchmarkAdmit(b *testing.B) {
	for _, n := range []int{1, 10, 1000} {
		b.Run(fmt.Sprint(n, " instances"), func(b *testing.B) {
			bench := newBench(10, 10)
			for i := range n {
				bench.set(fmt.Sprint(i), true)
			}
			b.ReportAllocs()
			for b.Loop() {
				var e admit.Entry
				bench.Release(bench.Try(&e))
			}
		})
	}
}
