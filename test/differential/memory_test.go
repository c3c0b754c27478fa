package differential

import (
	"testing"
	"testing/synctest"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// cron in a bubble, where time is what the test says.
func TestCron(t *testing.T) {
	covers(t, "cron")
	metadata := func(zone, start, end string) map[string]string {
		return map[string]string{"timezone": zone, "start": start, "end": end, "desiredReplicas": "7"}
	}
	compare(t, subject{
		Type: "cron", Metadata: metadata("Etc/UTC", "30 * * * *", "45 * * * *"),
		Refused: []string{
			"timezone", "start", "end", "desiredReplicas",
			"start=-30 * * * *", "end=50 * * -3 *", "desiredReplicas=0", "start=@hourly", "end=30 * * * *",
		},
		Try: map[string][]string{
			"timezone": {"Mars/Base", "America/New_York", "UTC", "Local", "europe/berlin"},
			"start":    {"30-33 * * * *", "0 0 * * Thu", "0 */2 * * *", "0,30 * * * *", "0 6 ? * *", "TZ=UTC 0 6 * * *", "0 0 30 2 *"},
			"end":      {"45-50 * * * *", "0 1-23/2 * * *", "CRON_TZ=Asia/Kolkata 0 6 * * *", "0 0 30 2 *"},
		},
	})
	for name, s := range map[string]map[string]string{
		"by day":          metadata("Europe/Berlin", "0 8 * * 1-5", "0 18 * * 1-5"),
		"by night":        metadata("America/New_York", "30 22 * * *", "15 6 * * *"),
		"by half an hour": metadata("Asia/Kolkata", "*/30 * * * *", "20,50 * * * *"),
		"often":           metadata("Etc/UTC", "0-10 * * * *", "5 * * * *"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := subject{Type: "cron", Metadata: s}
				c := s.config(t, nil)
				ours, theirs := open(t, "ebb's", c, ebb), open(t, "KEDA's", c, keda)
				// A minute that no schedule has in common has all of them be looked at everywhere.
				for range 20_000 {
					<-time.After(7*time.Minute + 13*time.Second)
					if a, b := ours(t), theirs(t); !a.agrees(b) {
						t.Fatalf("at %s\n ebb: %s\nKEDA: %s", time.Now(), a, b)
					}
				}
			})
			tally.add("cron", name)
		})
	}
}

func TestResources(t *testing.T) {
	covers(t, "cpu", "memory")
	for _, name := range []string{"cpu", "memory"} {
		t.Run(name, func(t *testing.T) {
			for kind, good := range map[autoscalingv2.MetricTargetType]string{"Utilization": "50", "AverageValue": "500m"} {
				t.Run(string(kind), func(t *testing.T) {
					compare(t, subject{
						Type: name, Kind: kind, Metadata: map[string]string{"value": good, "containerName": "foo"},
						Refused: []string{"value", "value=50%", "type=Utilization", "value=junk"},
						Try:     map[string][]string{"value": {"1Gi", "3000000000", "0.25", "-5"}},
					})
				})
			}
		})
	}
}
