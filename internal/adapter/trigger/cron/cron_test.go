package cron

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
)

// pass has time pass in a bubble.
func pass(d time.Duration) { <-time.After(d) }

// set has time pass until half past the hour's start (7), or until just before it (0).
func set(_ *testing.T, n int) {
	opens := time.Now().Truncate(time.Hour).Add(30 * time.Minute)
	inside := !time.Now().Before(opens) && time.Now().Before(opens.Add(15*time.Minute))
	switch {
	case n == 0 && time.Now().After(opens.Add(-400*time.Millisecond)):
		pass(time.Until(opens.Add(time.Hour - 400*time.Millisecond)))
	case n == 0:
		pass(time.Until(opens.Add(-400 * time.Millisecond)))
	case !inside:
		pass(time.Until(opens))
	}
}

func subject() triggertest.Subject {
	return triggertest.Subject{
		Type: "cron", Build: New,
		Metadata: map[string]string{"timezone": "Etc/UTC", "start": "30 * * * *", "end": "45 * * * *", "desiredReplicas": "7"},
		Metric:   "cron-Etc-UTC-30xxxx-45xxxx", Target: "1",
		Required: []string{"timezone", "start", "end", "desiredReplicas"},
		Wrong: map[string]string{
			"start": "-30 * * * *", "end": "50 * * -3 *", "desiredReplicas": "0",
		},
		NoActivation: true, Values: []int{0, 7, 0}, Bubble: true,
		Set: set, Within: 300 * time.Millisecond,
	}
}

func TestCron(t *testing.T) { triggertest.Run(t, subject()) }

func made(t *testing.T, over map[string]string) (*source, error) {
	t.Helper()
	got, err := New(subject().Config(t, over))
	if err != nil {
		return nil, err
	}
	return got.(*source), nil
}

func TestParameters(t *testing.T) {
	for name, test := range map[string]struct {
		over   map[string]string
		metric string // when it is made
		fails  string // what the error says otherwise
	}{
		"a range of starts":      {map[string]string{"start": "30-33 * * * *"}, "s3-cron-Etc-UTC-30-33xxxx-45xxxx", ""},
		"a range of ends":        {map[string]string{"end": "45-50 * * * *"}, "s3-cron-Etc-UTC-30xxxx-45-50xxxx", ""},
		"days by name":           {map[string]string{"start": "0 0 * * Thu", "end": "59 23 * * Thu"}, "s3-cron-Etc-UTC-00xxThu-5923xxThu", ""},
		"steps":                  {map[string]string{"start": "0 */2 * * *", "end": "0 1-23/2 * * *"}, "s3-cron-Etc-UTC-0xSl2xxx-01-23Sl2xxx", ""},
		"lists":                  {map[string]string{"start": "0,30 * * * *", "end": "15,45 * * * *"}, "s3-cron-Etc-UTC-0Cm30xxxx-15Cm45xxxx", ""},
		"any day":                {map[string]string{"start": "0 6 ? * *"}, "s3-cron-Etc-UTC-06Qmxx-45xxxx", ""},
		"a zone of two words":    {map[string]string{"timezone": "America/New_York"}, "s3-cron-America-New_York-30xxxx-45xxxx", ""},
		"a zone nobody knows":    {map[string]string{"timezone": "Mars/Base"}, "s3-cron-Mars-Base-30xxxx-45xxxx", ""},
		"a negative minute":      {map[string]string{"end": "-50 * * * *"}, "", "parsing end schedule: "},
		"seconds":                {map[string]string{"start": "0 30 * * * *"}, "", "parsing start schedule: "},
		"a word for a schedule":  {map[string]string{"start": "@hourly"}, "", "parsing start schedule: "},
		"half a zone in a start": {map[string]string{"start": "TZ=UTC"}, "", "reading parameters of cron: "},
		"an end at the start":    {map[string]string{"end": "30 * * * *"}, "", "start and end can not have exactly same time input"},
		"none desired":           {map[string]string{"desiredReplicas": "0"}, "", "no desiredReplicas specified"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := made(t, test.over)
			switch {
			case test.fails != "" && (err == nil || !strings.Contains(err.Error(), test.fails)):
				t.Errorf("New() = %v; want an error of %q", err, test.fails)
			case test.fails == "" && err != nil:
				t.Errorf("New() = %v", err)
			case test.fails == "" && s.Name != test.metric:
				t.Errorf("the metric is %s; want %s", s.Name, test.metric)
			}
		})
	}
}

func TestUnknownZone(t *testing.T) {
	s, err := made(t, map[string]string{"timezone": "Mars/Base"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Read(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "loading timezone: ") {
		t.Errorf("Read() = %v, %v; want an error about the zone", got, err)
	}
	s.Watch(trigger.Idle, func() { t.Error("it wakes without knowing the time") })()
}

func TestWhenReplicasAreDesired(t *testing.T) {
	for name, test := range map[string]struct {
		zone, start, end string
		in, out          []string
	}{
		"on a day": {
			"Etc/UTC", "0 8 * * *", "0 18 * * *",
			[]string{"2026-03-02T08:00:00Z", "2026-03-02T17:59:59Z"},
			[]string{"2026-03-02T07:59:59Z", "2026-03-02T18:00:00Z"},
		},
		"over midnight": {
			"Etc/UTC", "0 22 * * *", "0 6 * * *",
			[]string{"2026-03-02T22:00:00Z", "2026-03-02T00:00:00Z", "2026-03-03T05:59:59Z"},
			[]string{"2026-03-02T06:00:00Z", "2026-03-02T21:59:59Z"},
		},
		"from Thursday to Thursday night": {
			"Etc/UTC", "0 0 * * Thu", "59 23 * * Thu",
			[]string{"2026-03-05T00:00:00Z", "2026-03-05T23:58:59Z"},
			[]string{"2026-03-04T23:59:59Z", "2026-03-05T23:59:00Z", "2026-03-08T12:00:00Z"},
		},
		"from a start that comes again before the end": {
			"Etc/UTC", "30-33 * * * *", "45 * * * *",
			[]string{"2026-03-02T08:33:00Z", "2026-03-02T08:40:00Z"},
			[]string{"2026-03-02T08:29:59Z", "2026-03-02T08:45:00Z"},
		},
		"not while more starts come before the end": {
			"Etc/UTC", "0-10 * * * *", "5 * * * *",
			[]string{"2026-03-02T08:04:00Z", "2026-03-02T08:04:59Z"},
			[]string{"2026-03-02T08:03:59Z", "2026-03-02T08:05:00Z", "2026-03-02T08:10:00Z"},
		},
		"by the zone's hours": {
			"Asia/Kolkata", "0 8 * * *", "0 18 * * *",
			[]string{"2026-03-02T02:30:00Z", "2026-03-02T12:29:59Z"},
			[]string{"2026-03-02T02:29:59Z", "2026-03-02T12:30:00Z"},
		},
		"an hour earlier once clocks went forward": {
			"Europe/Berlin", "0 8 * * *", "0 18 * * *",
			[]string{"2026-03-28T07:00:00Z", "2026-03-29T06:00:00Z", "2026-10-25T07:00:00Z"},
			[]string{"2026-03-28T06:59:59Z", "2026-03-29T05:59:59Z", "2026-10-25T06:59:59Z"},
		},
		// 02:30 is no time of the 29th. That start is left out, and the end is the next of both.
		"from the end before a start that clocks leave out": {
			"Europe/Berlin", "30 2 * * *", "0 4 * * *",
			[]string{"2026-03-28T01:30:00Z", "2026-03-28T03:00:00Z", "2026-03-29T01:59:59Z", "2026-03-30T00:30:00Z"},
			[]string{"2026-03-28T01:29:59Z", "2026-03-29T02:00:00Z", "2026-03-30T02:00:00Z"},
		},
		"always when the start never comes": {
			"Etc/UTC", "0 0 30 2 *", "0 18 * * *", []string{"2026-03-02T08:00:00Z"}, nil,
		},
		"never when the end never comes": {
			"Etc/UTC", "0 8 * * *", "0 0 30 2 *", nil, []string{"2026-03-02T08:00:00Z"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			zone, err := time.LoadLocation(test.zone)
			if err != nil {
				t.Fatal(err)
			}
			s, err := made(t, map[string]string{"timezone": test.zone, "start": test.start, "end": test.end})
			if err != nil {
				t.Fatal(err)
			}
			for want, times := range map[bool][]string{true: test.in, false: test.out} {
				for _, text := range times {
					at, err := time.Parse(time.RFC3339, text)
					if err != nil {
						t.Fatal(err)
					}
					if got, again := s.at(at.In(zone)); got != want || again <= 0 || again > longest {
						t.Errorf("at %s: %v, again in %s; want %v and again within a minute", text, got, again, want)
					}
				}
			}
		})
	}
}

func TestWatchTellsOfEdgesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := made(t, map[string]string{"start": "30-33 8 * * *", "end": "0 18 * * *", "timezone": "Asia/Kolkata"})
		if err != nil {
			t.Fatal(err)
		}
		var woken []string
		stop := s.Watch(trigger.Idle, func() { woken = append(woken, time.Now().UTC().Format(time.DateTime)) })
		pass(48 * time.Hour)
		synctest.Wait()
		want := "2000-01-01 03:03:00 2000-01-01 12:30:00 2000-01-02 03:03:00 2000-01-02 12:30:00"
		if got := strings.Join(woken, " "); got != want {
			t.Errorf("it wakes at %s; want %s", got, want)
		}
		woken = nil
		stop()
		pass(24 * time.Hour)
		synctest.Wait()
		if len(woken) > 0 {
			t.Errorf("it wakes at %v though nobody watches", woken)
		}
	})
}
