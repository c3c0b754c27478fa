package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/fleet"
	"ebb.dev/ebb/internal/platform/telemetry/series/seriestest"
)

func TestNumbersGoWithTheRevision(t *testing.T) {
	r := newRig(t, traffic.Settings{ContainerConcurrency: 1})
	r.serve(func(http.ResponseWriter, *http.Request) {})
	resp, err := http.DefaultTransport.RoundTrip(r.request("GET", "/", ""))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	told := func() (n int) {
		for name := range seriestest.Read(t, &r.numbers) {
			if strings.Contains(name, rev.Name) {
				n++
			}
		}
		return n
	}
	probe := r.request("GET", "/", "")
	probe.Header.Set("User-Agent", "kube-probe/1.36")
	if resp, err = http.DefaultTransport.RoundTrip(probe); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	waitFor(t, "the request to be counted", func() bool { return told() == 8 })
	for name, value := range seriestest.Read(t, &r.numbers) {
		if strings.HasPrefix(name, "http.server.request.duration") && value != 1 {
			t.Errorf("%v requests counted, want one and no probe", value)
		}
	}
	if r.g.SetTable(&traffic.Table{}); told() == 0 {
		t.Error("a revision whose instance is there has no numbers")
	}
	r.fleet.Remove(fleet.Local, "pod-1")
	if n := told(); n != 0 {
		t.Errorf("%d numbers of a revision that is gone", n)
	}
}
