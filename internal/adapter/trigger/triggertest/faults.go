package triggertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

const (
	// mended is how soon work must be told of after a way was mended: a second, and a loaded machine's
	// own delays.
	mended = 3 * time.Second
	// outage is how long ways stay broken.
	outage = 700 * time.Millisecond
	// brief is how long a question may take that nobody answers, and margin how much later it may end.
	brief  = 300 * time.Millisecond
	margin = 1500 * time.Millisecond
)

// testFaults has the way to the server break in all the ways that ways break.
func (s Subject) testFaults(t *testing.T) {
	t.Run("a way is cut", func(t *testing.T) { s.testCut(t, (*process.Net).Cut) })
	t.Run("connections are reset", func(t *testing.T) { s.testCut(t, (*process.Net).Reset) })
	t.Run("a server falls silent", s.testSilence)
	t.Run("answers are slow", s.testSlow)
	t.Run("answers are torn", s.testTorn)
	if s.Denied != nil {
		t.Run("a password is wrong, then mended", s.testDenied)
	}
	t.Run("nothing leaks through reconnects", s.testChurn)
}

// beyond makes a Source whose connections lead through a net of their own.
func (s Subject) beyond(t *testing.T, over map[string]string) (*process.Net, trigger.Source, trigger.Config) {
	t.Helper()
	net := process.NewNet(t)
	c := s.Config(t, over)
	c.Dial = net.Dial
	return net, s.make(t, c), c
}

func (s Subject) make(t *testing.T, c trigger.Config) trigger.Source {
	t.Helper()
	source, err := s.Build(c)
	if err != nil {
		t.Fatalf("making it: %v", err)
	}
	t.Cleanup(func() { s.close(t, source) })
	return source
}

// close closes a Source, which must not take long even if its server does not answer: who closes it has
// others to ask.
func (s Subject) close(t *testing.T, source trigger.Source) {
	t.Helper()
	begin := time.Now()
	if err := source.Close(); err != nil {
		t.Errorf("closing it: %v", err)
	}
	if took := time.Since(begin); took > brief+margin {
		t.Errorf("closing it took %s", took)
	}
}

// An ear is woken by a Source, unless that cannot tell.
type ear struct{ woken chan struct{} }

func listen(t *testing.T, source trigger.Source) ear {
	t.Helper()
	pusher, pushes := source.(trigger.Pusher)
	if !pushes {
		return ear{}
	}
	w := ear{make(chan struct{}, 1)}
	stop := pusher.Watch(trigger.Idle, func() {
		select {
		case w.woken <- struct{}{}:
		default:
		}
	})
	t.Cleanup(stop)
	return w
}

// forget forgets wakes that came so far.
func (w ear) forget() {
	select {
	case <-w.woken:
	default:
	}
}

// awake expects a wake.
func (w ear) awake(t *testing.T, what string) {
	t.Helper()
	if w.woken == nil {
		return
	}
	begin := time.Now()
	select {
	case <-w.woken:
		t.Logf("%s: told after %s", what, time.Since(begin).Round(time.Millisecond))
	case <-time.After(mended):
		t.Errorf("%s: nobody told of work within %s", what, mended)
	}
}

// fails expects a Read to fail, in time.
func (s Subject) fails(t *testing.T, source trigger.Source, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), brief)
	defer cancel()
	begin := time.Now()
	got, err := source.Read(ctx)
	if err == nil {
		t.Errorf("%s: Read() = %+v; want an error", what, got)
	}
	if took := time.Since(begin); took > brief+margin {
		t.Errorf("%s: Read() took %s; its context ended after %s", what, took, brief)
	}
}

// soon expects Read to tell of n within the time a mended way may take.
func (s Subject) soon(t *testing.T, source trigger.Source, n int, what string) {
	t.Helper()
	begin := time.Now()
	s.await(t, source, n)
	if took := time.Since(begin); took > mended {
		t.Errorf("%s: it took %s to read what waits", what, took)
	} else {
		t.Logf("%s: read after %s", what, took.Round(time.Millisecond))
	}
}

func (s Subject) testCut(t *testing.T, cut func(*process.Net)) {
	s.Set(t, 0)
	net, source, _ := s.beyond(t, nil)
	w := listen(t, source)
	s.await(t, source, 0)
	if net.Accepted() == 0 {
		t.Fatal("it does not connect by its environment")
	}
	drain(w.woken, 100*time.Millisecond)
	cut(net)
	s.fails(t, source, "while it is cut")
	s.Set(t, 7)
	<-time.After(outage)
	w.forget()
	net.Heal()
	w.awake(t, "once it is whole")
	s.soon(t, source, 7, "once it is whole")
}

func (s Subject) testSilence(t *testing.T) {
	s.Set(t, 0)
	net, source, c := s.beyond(t, nil)
	w := listen(t, source)
	s.await(t, source, 0)
	net.Hold()
	for range 2 {
		s.fails(t, source, "while nobody answers")
	}
	// One that is alone with its server, and one of several.
	alone := s.Config(t, nil)
	alone.Dial = net.Dial
	for _, c := range []trigger.Config{alone, c} {
		other, err := s.Build(c)
		if err != nil {
			t.Fatalf("making one while nobody answers: %v", err)
		}
		if pusher, pushes := other.(trigger.Pusher); pushes {
			stop := pusher.Watch(trigger.Active, func() {})
			s.fails(t, other, "one made while nobody answers")
			begin := time.Now()
			stop()
			if took := time.Since(begin); took > brief+margin {
				t.Errorf("to stop watching took %s", took)
			}
		} else {
			s.fails(t, other, "one made while nobody answers")
		}
		s.close(t, other)
	}
	s.Set(t, 7)
	w.forget()
	net.Heal()
	w.awake(t, "once it answers")
	s.soon(t, source, 7, "once it answers")
	drain(w.woken, 100*time.Millisecond)
	net.Hold()
	s.fails(t, source, "when it falls silent again")
	s.Set(t, 3)
	w.forget()
	net.Drop()
	net.Heal()
	w.awake(t, "by new connections")
	s.soon(t, source, 3, "by new connections")
}

func (s Subject) testSlow(t *testing.T) {
	s.Set(t, 3)
	net, source, _ := s.beyond(t, nil)
	net.Delay(30 * time.Millisecond)
	s.await(t, source, 3)
	s.Set(t, 7)
	s.await(t, source, 7)
}

// testTorn has connections end in the middle of an answer: half of one must not be taken for a whole.
func (s Subject) testTorn(t *testing.T) {
	s.Set(t, 11)
	for _, most := range []int{1, 6, 17, 41, 83, 131, 197, 300, 700, 2000} {
		net, source, _ := s.beyond(t, nil)
		net.Limit(most)
		ctx, cancel := context.WithTimeout(t.Context(), brief)
		got, err := source.Read(ctx)
		cancel()
		if err == nil && (len(got) != 1 || got[0].Value.Value() != 11) {
			t.Errorf("Read() = %+v when answers end after %d bytes; want 11 or an error", got, most)
		}
		if errors.Is(err, context.Canceled) {
			t.Errorf("Read() fails with %v when answers end after %d bytes", err, most)
		}
		net.Heal()
		net.Drop()
		s.await(t, source, 11)
	}
}

func (s Subject) testDenied(t *testing.T) {
	s.Set(t, 0)
	net, wrong, c := s.beyond(t, s.Denied)
	w := listen(t, wrong)
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if got, err := wrong.Read(ctx); err == nil {
			t.Errorf("Read() = %+v with a wrong password; want an error", got)
		}
		if ctx.Err() != nil {
			t.Error("a wrong password is not told of in time")
		}
		cancel()
	}
	// Rotation makes another one, of the same environment, and closes the first thereafter.
	right := s.Config(t, nil)
	right.Environment = c.Environment
	source := s.make(t, right)
	mine := listen(t, source)
	s.await(t, source, 0)
	drain(mine.woken, 300*time.Millisecond)
	before := net.Accepted()
	s.Set(t, 7)
	mine.awake(t, "with the right password")
	s.soon(t, source, 7, "with the right password")
	w.forget()
	<-time.After(outage)
	if n := net.Accepted() - before; n > 30 {
		t.Errorf("there were %d connections in a moment beside a wrong password", n)
	}
}

func (s Subject) testChurn(t *testing.T) {
	s.Set(t, 0)
	net, c := process.NewNet(t), s.Config(t, nil)
	c.Dial = net.Dial
	c.Shared.Hurry()
	source := s.make(t, c)
	w := listen(t, source)
	s.await(t, source, 0)
	drain(w.woken, 300*time.Millisecond)
	whole := net.Open()
	begin := time.Now()
	net.Churn(t, func(ctx context.Context) error {
		if _, err := source.Read(ctx); err != nil {
			return err
		}
		// Those that tell of work are made anew, too, but some of them not before they are needed.
		for limit := time.After(50 * time.Millisecond); net.Open() < whole; {
			select {
			case <-limit:
				return nil
			case <-time.After(time.Millisecond):
			}
		}
		return nil
	})
	t.Logf("%d connections, %d at a time, in %s", net.Accepted(), whole, time.Since(begin).Round(time.Millisecond))
	s.await(t, source, 0)
	drain(w.woken, 300*time.Millisecond)
	s.Set(t, 7)
	w.awake(t, "after all that")
	s.soon(t, source, 7, "after all that")
}

// testOutage has the server itself end, and come back.
func (s Subject) testOutage(t *testing.T) {
	s.Set(t, 0)
	source := s.open(t, nil)
	w := listen(t, source)
	s.await(t, source, 0)
	s.Set(t, 3)
	s.await(t, source, 3)
	s.Break(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	if got, err := source.Read(ctx); err == nil {
		t.Errorf("Read() = %+v during an outage; want an error", got)
	}
	cancel()
	s.Repair(t)
	if s.Keeps {
		s.soon(t, source, 3, "what was there before an outage")
	}
	w.forget()
	s.Set(t, 4)
	w.awake(t, "after an outage")
	s.soon(t, source, 4, "after an outage")
}
