package proxy

import (
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/platform/netns/netnstest"
)

func TestFiveThousandPortsAreCheap(t *testing.T) {
	w := netnstest.New(t)
	c := w.Config(56)
	n := w.Open(t, c)
	p := &Proxy{cfg: Config{Net: n}, log: slog.New(slog.DiscardHandler), flows: &flowLimit{max: maxFlows}, state: map[types.NamespacedName]*serving{}}
	var err error
	if p.metrics, err = newMetrics(nil); err != nil {
		t.Fatal(err)
	}
	const count = 5000
	end := []netip.AddrPort{netip.MustParseAddrPort("10.56.0.5:8080")}
	t.Cleanup(p.closeAll)
	before := inUse()
	begin := time.Now()
	at := c.ServiceCIDR.Addr()
	for i := range count {
		at = at.Next()
		f := front{place: place{corev1.ProtocolTCP, netip.AddrPortFrom(at, 80)}, port: 80, endpoints: end}
		if err := p.apply(t.Context(), types.NamespacedName{Name: fmt.Sprint(i)}, nil, []front{f}); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(begin)
	each := (inUse() - before) / count
	t.Logf("%d ports open in %v with %d bytes each", count, took, each)
	if each > 16<<10 {
		t.Errorf("a port takes %d bytes, want 16 KiB at most", each)
	}
	if took > 20*time.Second {
		t.Errorf("opening took %v", took)
	}
}

// inUse is the memory of heap and stacks.
func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
