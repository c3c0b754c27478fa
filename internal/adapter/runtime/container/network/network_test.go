package network

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ebb.dev/ebb/internal/platform/netns"
	"ebb.dev/ebb/internal/platform/netns/netnstest"
)

// pod prepares an attachment and opens its namespace to try sockets in.
func pod(t testing.TB, p *Pods) (*Attachment, *netns.Space) {
	t.Helper()
	a, err := p.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := netns.OpenSpace(a.NetnsPath)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Close()
		_ = p.Discard(context.WithoutCancel(t.Context()), a)
	})
	return a, s
}

func newPods(t testing.TB, w *netnstest.World, c netns.Config) (*netns.Net, *Pods) {
	t.Helper()
	n := w.Open(t, c)
	p, err := New(n, c.PodCIDR, w.Dir+"/pods")
	if err != nil {
		t.Fatal(err)
	}
	return n, p
}

// hostSees is the address a pod's connection to the host itself comes from.
func hostSees(userspace bool, pod, node netip.Addr) string {
	if userspace {
		return node.String()
	}
	return pod.String()
}

func TestPodsReachEverything(t *testing.T) {
	for name, userspace := range map[string]bool{"kernel egress": false, "userspace egress": true} {
		t.Run(name, func(t *testing.T) {
			w := netnstest.New(t)
			c := w.Config(31)
			c.Userspace = userspace
			n, pods := newPods(t, w, c)
			a, inA := pod(t, pods)
			b, inB := pod(t, pods)
			netnstest.Serve(t, inA, "0.0.0.0:80", "pod a")
			netnstest.Serve(t, n, c.NodeIP.String()+":6443", "api")
			netnstest.Serve(t, n, "10.31.64.10:80", "service")
			netnstest.Serve(t, n, "10.31.128.7:80", "balancer")
			netnstest.Serve(t, w.Remote, "0.0.0.0:80", "remote")
			netnstest.Serve(t, w.Host, w.HostAddr.String()+":22", "sshd")
			netnstest.ServePackets(t, w.Remote, "0.0.0.0:53", "remote")
			_ = b
			for _, tt := range []struct {
				what string
				from netnstest.Place
				to   string
				want string
			}{
				{"host to pod", w.Host, a.IP.String() + ":80", "pod a " + c.HostIP.String()},
				{"namespace to pod", n, a.IP.String() + ":80", "pod a " + c.NodeIP.String()},
				{"pod to pod", inB, a.IP.String() + ":80", "pod a " + b.IP.String()},
				{"pod to itself", inA, a.IP.String() + ":80", "pod a " + a.IP.String()},
				{"pod to API", inB, c.NodeIP.String() + ":6443", "api " + b.IP.String()},
				{"pod to Service", inB, "10.31.64.10:80", "service " + b.IP.String()},
				{"host to Service", w.Host, "10.31.64.10:80", "service " + c.HostIP.String()},
				{"host to load balancer", w.Host, "10.31.128.7:80", "balancer " + c.HostIP.String()},
				{"pod to other host", inB, w.RemoteAddr.String() + ":80", "remote " + w.HostAddr.String()},
				{"pod to a server of the host", inB, w.HostAddr.String() + ":22", "sshd " + hostSees(userspace, b.IP, c.NodeIP)},
				{"namespace to other host", n, w.RemoteAddr.String() + ":80", "remote " + w.HostAddr.String()},
			} {
				got, err := netnstest.Ask(t.Context(), tt.from, tt.to)
				if err != nil || strings.TrimSpace(got) != tt.want {
					t.Errorf("%s: got %q, %v, want %q", tt.what, got, err, tt.want)
				}
			}
			got, err := netnstest.AskPacket(t.Context(), inB, w.RemoteAddr.String()+":53", "hello")
			if want := "remote " + w.HostAddr.String() + " hello"; err != nil || got != want {
				t.Errorf("pod to other host by UDP: got %q, %v, want %q", got, err, want)
			}
			for what, addr := range map[string]string{"port nobody listens at": w.RemoteAddr.String() + ":81", "pod that is not there": "10.31.9.9:80"} {
				begin := time.Now()
				if got, err := netnstest.Ask(t.Context(), inB, addr); err == nil || time.Since(begin) > time.Second {
					t.Errorf("%s: got %q, %v after %v, want a quick refusal", what, got, err, time.Since(begin))
				}
			}
		})
	}
}
