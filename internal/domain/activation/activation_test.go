package activation_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ebb.dev/ebb/internal/domain/activation"
)

func TestDecide(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	five := activation.Limits{Cooldown: 5 * time.Minute}
	zero, two := int32(0), int32(2)
	type in = activation.Input
	for name, tt := range map[string]struct {
		in      in
		want    int32 // -1: nothing is written
		reason  string
		ready   string
		working bool
	}{
		"work wakes one":                               {in{Limits: five, Active: true}, 1, "ScalerActive", "", true},
		"work wakes the minimum":                       {in{Limits: activation.Limits{Min: 3}, Active: true}, 3, "ScalerActive", "", true},
		"work lifts from the idle count":               {in{Limits: activation.Limits{Min: 3, Idle: &zero}, Active: true, Current: 2}, 3, "ScalerActive", "", true},
		"work leaves what works":                       {in{Limits: five, Active: true, Current: 4}, -1, "ScalerActive", "", true},
		"force is as work":                             {in{Limits: five, Forced: true}, 1, "ScalerActive", "", true},
		"no way out while paused":                      {in{Limits: five, Active: true, NoOut: true}, -1, "ScalerActive", "", false},
		"some triggers fail":                           {in{Limits: five, Active: true, Current: 1, Failed: true}, -1, "ScalerActive", "PartialTriggerError", true},
		"all triggers fail":                            {in{Limits: five, Current: 1, Failed: true}, -1, "ScalerNotActive", "TriggerError", false},
		"a fallback waits for its threshold":           {in{Limits: five, Current: 1, Failed: true, Fallback: &two}, -1, "ScalerNotActive", "", false},
		"a fallback to nothing scales in":              {in{Limits: five, Current: 1, Failed: true, Fallback: &zero, LastActive: now.Add(-time.Hour)}, 0, "ScalerNotActive", "", false},
		"the cooldown is on":                           {in{Limits: five, Current: 1, LastActive: now.Add(-time.Minute)}, -1, "ScalerCooldown", "", false},
		"the cooldown is over":                         {in{Limits: five, Current: 7, LastActive: now.Add(-6 * time.Minute)}, 0, "ScalerNotActive", "", false},
		"nothing was ever active":                      {in{Limits: five, Current: 1, Created: now.Add(-time.Second)}, 0, "ScalerNotActive", "", false},
		"nothing was ever active, and it is young":     {in{Limits: activation.Limits{Initial: time.Minute}, Current: 1, Created: now.Add(-time.Second)}, -1, "ScalerCooldown", "", false},
		"no way in while paused":                       {in{Limits: five, Current: 1, Created: now.Add(-time.Hour), NoIn: true}, -1, "ScalerNotActive", "", false},
		"a minimum is never left":                      {in{Limits: activation.Limits{Min: 2}, Current: 5}, -1, "ScalerNotActive", "", false},
		"below the minimum":                            {in{Limits: activation.Limits{Min: 2}, Current: 1}, 2, "ScalerNotActive", "", false},
		"idle is left alone":                           {in{Limits: activation.Limits{Min: 2, Idle: &zero}, Current: 0}, -1, "ScalerNotActive", "", false},
		"to the idle count when nothing is to be done": {in{Limits: activation.Limits{Min: 2, Idle: &zero}, Current: 4, Created: now.Add(-time.Hour)}, 0, "ScalerNotActive", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			tt.in.Now = now
			got := activation.Decide(tt.in)
			wrote := int32(-1)
			if got.Replicas != nil {
				wrote = *got.Replicas
			}
			type result struct {
				replicas      int32
				reason, ready string
				working       bool
			}
			if diff := cmp.Diff(result{tt.want, tt.reason, tt.ready, tt.working},
				result{wrote, got.Active.Reason, got.Ready.Reason, got.Working}, cmp.AllowUnexported(result{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
