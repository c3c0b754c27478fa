package autoscaler_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ebb.dev/ebb/internal/domain/scale"
)

func TestAFloorIsKeptUntilItGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.create(hello, 0)
		b := start(t, c)
		defer b.stop()
		by := scale.Floor{Count: 3, By: "triggers of ScaledObject shop/orders"}
		b.SetFloor(hello, by) // nobody knows the revision yet
		b.SetRevision(hello, kpa())
		synctest.Wait()
		if n := c.asked(hello); n != 3 {
			t.Fatalf("%d instances of a new revision", n)
		}
		if s, _ := b.State(hello); s.Reason != scale.Asked || !strings.Contains(s.Message, "asked for by triggers of ScaledObject shop/orders") {
			t.Errorf("%s: %s", s.Reason, s.Message)
		}
		<-time.After(time.Hour)
		if n := c.asked(hello); n != 3 || b.Live() != 0 {
			t.Errorf("%d instances after an hour, %d revisions measured", n, b.Live())
		}
		by.Count = 5
		b.SetFloor(hello, by)
		synctest.Wait()
		if n := c.asked(hello); n != 5 {
			t.Errorf("%d instances at once", n)
		}
		for range 1000 {
			b.arrive(hello)
		}
		<-time.After(30 * time.Second)
		if n := c.asked(hello); n <= 5 {
			t.Errorf("%d instances for a burst", n)
		}
		for range 1000 {
			b.book.Meter(hello).Out(time.Now())
		}
		<-time.After(5 * time.Minute)
		if n := c.asked(hello); n != 5 {
			t.Errorf("%d instances after the requests", n)
		}
		b.SetFloor(hello, scale.Floor{})
		<-time.After(30 * time.Second)
		if n := c.asked(hello); n != 0 {
			t.Errorf("%d instances with nobody asking", n)
		}
		if s, _ := b.State(hello); s.Activity != scale.Inactive {
			t.Errorf("activity %s", s.Activity)
		}
	})
}
