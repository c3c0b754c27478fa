// Package cron has work wait at certain hours: as many replicas as are desired, from each start to
// the next end.
package cron

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // for machines without a list of time zones

	"github.com/robfig/cron/v3"
	"k8s.io/apimachinery/pkg/api/resource"

	"ebb.dev/ebb/internal/adapter/trigger"
)

// longest is how long a timer runs at most. Timers stand still while a machine sleeps and know
// nothing of a clock that is put right, so the time of day is looked at now and then.
const longest = time.Minute

type parameters struct {
	Start           string `keda:"name=start,           order=triggerMetadata"`
	End             string `keda:"name=end,             order=triggerMetadata"`
	Timezone        string `keda:"name=timezone,        order=triggerMetadata"`
	DesiredReplicas int64  `keda:"name=desiredReplicas, order=triggerMetadata"`
	TriggerIndex    int

	start, end cron.Schedule
}

// Validate checks the parameters once they are read.
func (p *parameters) Validate() (err error) {
	parser := cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)
	if p.start, err = parser.Parse(p.Start); err != nil {
		return fmt.Errorf("parsing start schedule: %w", err)
	}
	if p.end, err = parser.Parse(p.End); err != nil {
		return fmt.Errorf("parsing end schedule: %w", err)
	}
	if p.Start == p.End {
		return errors.New("start and end can not have exactly same time input")
	}
	if p.DesiredReplicas == 0 {
		return errors.New("no desiredReplicas specified")
	}
	return nil
}

// flat writes a schedule as a part of a metric's name.
var flat = strings.NewReplacer(" ", "", "*", "x", "/", "Sl", "?", "Qm", ",", "Cm")

type source struct {
	trigger.Single
	parameters
}

// New makes a trigger of type cron.
func New(c trigger.Config) (trigger.Source, error) {
	s := &source{}
	var err error
	if s.Single, err = c.Parameters(&s.parameters); err != nil {
		return nil, err
	}
	s.Target = *resource.NewQuantity(1, resource.DecimalSI)
	s.Name = trigger.Name(c.TriggerIndex, "cron-"+s.Timezone+"-"+flat.Replace(s.Start)+"-"+flat.Replace(s.End))
	return s, nil
}

// Read implements trigger.Source. That nobody knows the time zone is an error of reading, as upstream.
func (s *source) Read(context.Context) ([]trigger.Reading, error) {
	zone, err := time.LoadLocation(s.Timezone)
	if err != nil {
		return nil, fmt.Errorf("loading timezone: %w", err)
	}
	open, _ := s.at(time.Now().In(zone))
	value := 0.0
	if open {
		value = float64(s.DesiredReplicas)
	}
	return []trigger.Reading{{Metric: s.Name, Value: trigger.Quantity(value), Active: open}}, nil
}

// at tells whether replicas are desired at a time of the trigger's zone, and how soon to look again.
//
// They are from a start to the end that follows, so when the end is the next of both. As upstream,
// that also holds from the end before a start which summer time leaves out, and always where no start
// ever comes.
func (s *source) at(now time.Time) (open bool, again time.Duration) {
	start, end := s.start.Next(now), s.end.Next(now)
	again = longest
	for _, edge := range []time.Time{start, end} {
		if !edge.IsZero() {
			again = min(again, edge.Sub(now))
		}
	}
	return start.IsZero() || !end.IsZero() && !start.Before(end), again
}

// Watch implements trigger.Pusher.
func (s *source) Watch(_ trigger.Mode, wake func()) (stop func()) {
	zone, err := time.LoadLocation(s.Timezone)
	if err != nil {
		return func() {} // Read tells
	}
	w := &watch{source: s, zone: zone, wake: wake}
	w.mu.Lock()
	defer w.mu.Unlock()
	var again time.Duration
	w.open, again = s.at(time.Now().In(zone))
	w.timer = time.AfterFunc(again, w.look)
	return w.stop
}

// Close implements trigger.Source.
func (s *source) Close() error { return nil }

// A watch is one Watch of a source.
type watch struct {
	source *source
	zone   *time.Location
	wake   func()

	mu      sync.Mutex // guards the fields below
	timer   *time.Timer
	open    bool
	stopped bool
}

// look wakes when the answer has become another one, and sets the timer to when it may next.
func (w *watch) look() {
	w.mu.Lock()
	open, again := w.source.at(time.Now().In(w.zone))
	differs := open != w.open && !w.stopped
	w.open = open
	if !w.stopped {
		w.timer.Reset(again)
	}
	w.mu.Unlock()
	if differs {
		w.wake()
	}
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}
