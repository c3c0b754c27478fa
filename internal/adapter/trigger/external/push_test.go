package external

import (
	"slices"
	"testing"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc/codes"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
)

// active reads and tells whether the trigger is.
func active(t *testing.T, s trigger.Source) bool {
	t.Helper()
	got, err := s.Read(t.Context())
	if err != nil || len(got) != 1 {
		t.Fatalf("Read() = %+v, %v; want one reading", got, err)
	}
	return got[0].Active
}

// settle watches and waits for the two wakes of a stream that has begun.
func settle(t *testing.T, s *server, by trigger.Pusher) <-chan time.Time {
	t.Helper()
	woken := watch(t, by)
	wake(t, woken)
	wake(t, woken)
	eventually(t, "there is a stream", func() bool { return s.open() == 1 })
	return woken
}

func TestNewsOfWorkCountsOnceWhateverIsAskedNext(t *testing.T) {
	s := start(t, nil)
	s.set(0)
	p := push(t, triggertest.Environment(t), s.address)
	woken := settle(t, s, p)
	if active(t, p) {
		t.Error("it is active without work")
	}
	s.push(true)
	wake(t, woken)
	if !active(t, p) {
		t.Error("it is not active right after news of work")
	}
	if active(t, p) {
		t.Error("news of work count twice")
	}
	s.push(false)
	wake(t, woken)
	if active(t, p) {
		t.Error("it is active after news that there is no work")
	}
}

func TestAJobIsActiveByWhatIsAskedOnly(t *testing.T) {
	s := start(t, nil)
	s.set(0)
	c := config(triggertest.Environment(t), map[string]string{"scalerAddress": s.address}, nil)
	c.ScalableObjectType = "ScaledJob"
	made, err := NewPush(c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = made.Close() }()
	woken := settle(t, s, made.(trigger.Pusher))
	s.push(true)
	wake(t, woken)
	if active(t, made) {
		t.Error("a job is active by what was pushed")
	}
}

func TestNewsOfTheSameWakeNowAndThen(t *testing.T) {
	s := start(t, nil)
	p := push(t, triggertest.Environment(t), s.address)
	woken := settle(t, s, p)
	for range 100 {
		s.push(false)
	}
	wake(t, woken)
	s.push(true)
	first := wake(t, woken)
	for range 100 {
		s.push(true)
	}
	if second := wake(t, woken); second.Sub(first) < again/2 {
		t.Errorf("woken again after %s by the same news; want about %s", second.Sub(first), again)
	}
	s.push(false)
	wake(t, woken)
	if n := len(woken); n > 0 {
		t.Errorf("there are %d more wakes", n)
	}
}

func TestAStreamIsMadeAnewAndWakes(t *testing.T) {
	s := start(t, nil)
	s.set(0)
	p := push(t, triggertest.Environment(t), s.address)
	woken := settle(t, s, p)
	s.Stop()
	s.set(3) // nobody hears
	s.Start(t)
	wake(t, woken)
	if !active(t, p) {
		t.Error("it is not active after the server is back with work")
	}
	eventually(t, "there is a stream again", func() bool { return s.open() == 1 })
	s.set(0)
	wake(t, woken)
	s.set(5)
	wake(t, woken)
}

func TestAServerMayEndEachStreamAfterItsNews(t *testing.T) {
	s := start(t, nil)
	s.change(func() { s.ends = true })
	p := push(t, triggertest.Environment(t), s.address)
	woken := watch(t, p)
	for range 3 {
		eventually(t, "there is a stream", func() bool { return s.open() == 1 })
		for len(woken) > 0 {
			<-woken
		}
		s.push(true)
		wake(t, woken)
		eventually(t, "the stream has ended", func() bool { return s.open() == 0 })
	}
}

func TestAServerIsNotPressed(t *testing.T) {
	for name, code := range map[string]codes.Code{
		"that cannot stream":       codes.Unimplemented,
		"that fails":               codes.Internal,
		"that has too much to do":  codes.ResourceExhausted,
		"that is about to go away": codes.Unavailable,
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, nil)
			s.change(func() { s.fails = code })
			watch(t, push(t, triggertest.Environment(t), s.address))
			eventually(t, "it was asked", func() bool { return s.had() > 0 })
			<-time.After(2 * time.Second)
			if n := s.had(); n > 6 {
				t.Errorf("it was asked for %d streams in two seconds", n)
			}
		})
	}
}

func TestTargetsAreStreamed(t *testing.T) {
	s := start(t, nil)
	s.change(func() { s.targets = make(chan struct{}) })
	p := push(t, triggertest.Environment(t), s.address)
	if _, err := p.Specs(t.Context()); err != nil {
		t.Fatal(err)
	}
	changed := make(chan struct{}, 100)
	defer p.WatchSpecs(func() { changed <- struct{}{} })()
	eventually(t, "targets are streamed", p.streamed.Load)
	if len(changed) > 0 {
		t.Error("told of targets that are as they were")
	}
	expect := func(want ...string) {
		t.Helper()
		<-changed
		specs, err := p.Specs(t.Context())
		if err != nil || !slices.Equal(targets(specs), want) {
			t.Errorf("Specs() = %v, %v; want %v", targets(specs), err, want)
		}
	}
	s.retarget(&pb.MetricSpec{MetricName: "jobs", TargetSizeFloat: 1.5})
	expect("s3-jobs 1.5")
	s.Stop()
	eventually(t, "the stream has ended", func() bool { return !p.streamed.Load() })
	s.retarget(&pb.MetricSpec{MetricName: "jobs", TargetSize: 9}, &pb.MetricSpec{MetricName: "more", TargetSize: 1})
	s.Start(t)
	expect("s3-jobs 9", "s3-more 1")
	s.set(4)
	s.change(func() { s.values["more"] = []*pb.MetricValue{{MetricValue: 1}} })
	if got, err := p.Read(t.Context()); err != nil || len(got) != 2 || got[1].Metric != "s3-more" {
		t.Errorf("Read() = %+v, %v; want the new metric, too", got, err)
	}
}

func TestServersNeedNotStreamTargets(t *testing.T) {
	s := start(t, nil)
	p := push(t, triggertest.Environment(t), s.address)
	stop := p.WatchSpecs(func() { t.Error("told of targets") })
	woken := settle(t, s, p)
	s.set(3)
	wake(t, woken)
	s.retarget(&pb.MetricSpec{MetricName: "jobs", TargetSize: 8})
	stop()
	if specs, err := p.Specs(t.Context()); err != nil || !slices.Equal(targets(specs), []string{"s3-jobs 8"}) {
		t.Errorf("Specs() = %v, %v; want what the server says now", targets(specs), err)
	}
}
