package gateway_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/fleet"
)

// churning is an application whose instances come and go.
type churning struct {
	*rig
	t       *testing.T
	servers map[types.UID]*httptest.Server
}

// start adds an instance.
func (c *churning) start() types.UID {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		<-time.After(time.Millisecond)
		_, _ = w.Write(append(body, '!'))
	}))
	s.Config.Protocols = &http.Protocols{}
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	c.t.Cleanup(s.Close)
	id := c.add(s.URL)
	c.servers[id] = s
	return id
}

// load sends requests until end is called, and counts them.
func (c *churning) load(methods ...string) (sent *atomic.Int64, end func()) {
	sent = &atomic.Int64{}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	tr := &http.Transport{MaxIdleConnsPerHost: 100}
	for i := range 6 {
		wg.Go(func() {
			for n := i; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				method := methods[n%len(methods)]
				resp, err := tr.RoundTrip(c.request(method, "/", "body"))
				if err != nil {
					c.t.Errorf("%s: %v", method, err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				if err != nil || resp.StatusCode != 200 || string(body) != "body!" {
					c.t.Errorf("%s: %d %q, %v", method, resp.StatusCode, body, err)
					return
				}
				sent.Add(1)
			}
		})
	}
	return sent, func() {
		close(stop)
		wg.Wait()
		tr.CloseIdleConnections()
	}
}

func TestScalingLosesNothing(t *testing.T) {
	for name, settings := range map[string]traffic.Settings{
		"HTTP/1.1": {}, "HTTP/1.1, one at a time": {ContainerConcurrency: 1}, "HTTP/2": {H2C: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := &churning{rig: newRig(t, settings), t: t, servers: map[types.UID]*httptest.Server{}}
			sent, end := c.load("GET", "POST")
			defer end()
			old := c.start()
			for range 15 {
				before := sent.Load()
				next := c.start()
				waitFor(t, "some requests", func() bool { return sent.Load() > before+5 })
				// As a node ends an instance: out of the picks, drained, stopped, gone.
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				if err := c.g.Drain(ctx, old); err != nil {
					t.Errorf("Drain: %v", err)
				}
				cancel()
				c.servers[old].Close()
				c.fleet.Remove(fleet.Local, old)
				old = next
			}
			// To zero and back.
			if err := c.g.Drain(t.Context(), old); err != nil {
				t.Errorf("Drain: %v", err)
			}
			c.servers[old].Close()
			c.fleet.Remove(fleet.Local, old)
			before := sent.Load()
			c.start()
			waitFor(t, "requests after zero", func() bool { return sent.Load() > before+5 })
		})
	}
}

func TestCrashesLoseNothingThatCanBeRepeated(t *testing.T) {
	c := &churning{rig: newRig(t, traffic.Settings{ContainerConcurrency: 3}), t: t, servers: map[types.UID]*httptest.Server{}}
	sent, end := c.load("GET", "PUT", "DELETE")
	defer end()
	for range 10 {
		id := c.start()
		before := sent.Load()
		waitFor(t, "some requests", func() bool { return sent.Load() > before+10 })
		// The process is gone at once, the fleet learns of it later.
		c.servers[id].Listener.Close()
		c.servers[id].CloseClientConnections()
		<-time.After(3 * time.Millisecond)
		c.fleet.Remove(fleet.Local, id)
	}
	c.start()
	before := sent.Load()
	waitFor(t, "requests at the end", func() bool { return sent.Load() > before+10 })
}
