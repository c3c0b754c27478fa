package traffic_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/traffic"
)

func name(n string) types.NamespacedName { return types.NamespacedName{Namespace: "default", Name: n} }

func all(rev string) []traffic.Target { return []traffic.Target{{Revision: name(rev), Percent: 100}} }

func TestMatch(t *testing.T) {
	table, err := traffic.Build([]traffic.Rule{
		{Host: "hello.default.localhost", Targets: all("a")},
		{Host: "Blue-Hello.Default.localhost.", Tag: "blue", Targets: all("b")},
		{Host: "hello.default.svc.cluster.local", ClusterLocal: true, Targets: all("a")},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		host     string
		external bool
		want     string
	}{
		"as written":                         {"hello.default.localhost", true, "a"},
		"with a port":                        {"hello.default.localhost:8080", true, "a"},
		"with a dot":                         {"hello.default.localhost.", true, "a"},
		"with a dot and a port":              {"hello.default.localhost.:80", true, "a"},
		"in capitals":                        {"HELLO.DEFAULT.LOCALHOST", true, "a"},
		"a tag's host, its rule in capitals": {"blue-hello.default.localhost", true, "b"},
		"cluster-local from inside":          {"hello.default.svc.cluster.local", false, "a"},
		"public from inside":                 {"hello.default.localhost", false, "a"},
		"cluster-local from outside":         {"hello.default.svc.cluster.local", true, ""},
		"unknown":                            {"nobody.default.localhost", true, ""},
		"a longer name":                      {"x.hello.default.localhost", true, ""},
		"empty":                              {"", true, ""},
		"a port only":                        {":80", true, ""},
		"a port that is none":                {"hello.default.localhost:80\r\nX: y", true, ""},
		"an IPv6 address":                    {"[::1]:80", true, ""},
		"too long":                           {strings.Repeat("a", 300), true, ""},
	}
	for what, tc := range cases {
		t.Run(what, func(t *testing.T) {
			r, ok := table.Match(tc.host, tc.external)
			if ok != (tc.want != "") || ok && r.Pick(0).Revision.Name != tc.want {
				t.Errorf("Match(%q) = %+v, %v, want %q", tc.host, r, ok, tc.want)
			}
		})
	}
	var none *traffic.Table
	if _, ok := none.Match("hello.default.localhost", true); ok {
		t.Error("no table matches")
	}
}

func TestBuildTellsWhatIsWrongAndKeepsTheRest(t *testing.T) {
	share := func(percents ...int) []traffic.Target {
		var ts []traffic.Target
		for i, p := range percents {
			ts = append(ts, traffic.Target{Revision: name(fmt.Sprint("r", i)), Percent: p})
		}
		return ts
	}
	cases := map[string]struct {
		rule traffic.Rule
		want []string // parts of the message
	}{
		"a host that is taken":        {traffic.Rule{Host: "GOOD.example", Route: name("late"), Targets: share(100)}, []string{"good.example", "default/late", "default/first"}},
		"shares below 100":            {traffic.Rule{Host: "h", Route: name("late"), Targets: share(50, 49)}, []string{"default/late", "99 percent"}},
		"shares above 100":            {traffic.Rule{Host: "h", Route: name("late"), Targets: share(60, 60)}, []string{"120 percent"}},
		"a negative share":            {traffic.Rule{Host: "h", Route: name("late"), Targets: share(150, -50)}, []string{"150 percent"}},
		"no target":                   {traffic.Rule{Host: "h", Route: name("late")}, []string{"0 percent"}},
		"a target without a revision": {traffic.Rule{Host: "h", Targets: []traffic.Target{{Percent: 100}}}, []string{"no revision"}},
		"targets and a backend":       {traffic.Rule{Host: "h", Route: name("late"), Targets: share(100), Backend: "x:80"}, []string{"targets and a backend"}},
		"no host":                     {traffic.Rule{Targets: share(100)}, []string{"not a host"}},
		"a wildcard":                  {traffic.Rule{Host: "*.example", Targets: share(100)}, []string{"not a host"}},
		"a bad tag":                   {traffic.Rule{Host: "h", Targets: share(100), TagHeader: map[string][]traffic.Target{"x": share(1)}}, []string{`tag "x"`}},
	}
	for what, tc := range cases {
		t.Run(what, func(t *testing.T) {
			table, err := traffic.Build([]traffic.Rule{
				{Host: "good.example", Route: name("first"), Targets: share(100)},
				tc.rule,
				{Host: "last.example", Route: name("last"), Targets: share(100)},
			}, nil)
			if !errors.Is(err, traffic.ErrInvalid) {
				t.Fatalf("err = %v", err)
			}
			for _, part := range tc.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if table.Hosts() != 2 {
				t.Errorf("%d hosts are left, want the two good ones", table.Hosts())
			}
		})
	}
}

func TestARuleLikeAnotherHost(t *testing.T) {
	hello := traffic.Rule{
		Host: "hello.default.svc.cluster.local", ClusterLocal: true, Route: name("hello"), Targets: all("a"),
		TagHeader: map[string][]traffic.Target{"blue": all("b")},
	}
	mapped := func(host, like, backend string) traffic.Rule {
		return traffic.Rule{Host: host, Route: name("mapping"), Like: like, Backend: backend, HostRewrite: like}
	}
	table, err := traffic.Build([]traffic.Rule{
		mapped("Shop.example", "HELLO.default.svc.cluster.local.", "hello.default.svc.cluster.local:80"),
		mapped("plain.example", "plain.default.svc.cluster.local", "plain.default.svc.cluster.local:80"),
		mapped("later.example", "later.default.svc.cluster.local", ""),
		hello,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, ok := table.Match("shop.example", true)
	if !ok || r.Pick(0).Revision.Name != "a" || r.Backend != "" || r.HostRewrite != "" || r.Route != name("mapping") {
		t.Errorf("the mapped host leads to %+v", r)
	}
	if tagged, ok := r.PickTag("blue", 0); !ok || tagged.Revision.Name != "b" {
		t.Error("the other host's tags are not the mapped one's")
	}
	if r, ok := table.Match("plain.example", true); !ok || r.Backend == "" || r.HostRewrite != "plain.default.svc.cluster.local" {
		t.Errorf("a host like an unknown one leads to %+v, want its backend", r)
	}
	if r, ok := table.Match("later.example", true); ok {
		t.Errorf("a host like an unknown one without a backend leads to %+v", r)
	}

	table, err = traffic.Build([]traffic.Rule{
		mapped("hello.default.localhost", "hello.default.svc.cluster.local", ""),
		hello,
		{Host: "hello.default.localhost", Route: name("hello"), Targets: all("a")},
	}, nil)
	if r, _ := table.Match("hello.default.localhost", true); err == nil || r.Route != name("hello") {
		t.Errorf("a contested host is %v's (%v), want the one with targets of its own", r.Route, err)
	}
}

func TestPickIsExact(t *testing.T) {
	for _, percents := range [][]int{{100}, {50, 50}, {1, 99}, {33, 33, 34}, {0, 100}, {20, 0, 80}} {
		var r traffic.Rule
		for i, p := range percents {
			r.Targets = append(r.Targets, traffic.Target{Revision: name(fmt.Sprint(i)), Percent: p})
		}
		counts := make([]int, len(percents))
		const n = 1_000_000
		for i := range n {
			at := uint32(uint64(i) * (math.MaxUint32 + 1) / n)
			for j, target := range r.Targets {
				if r.Pick(at) == target {
					counts[j]++
				}
			}
		}
		for i, p := range percents {
			if diff := counts[i] - p*n/100; diff < -1 || diff > 1 {
				t.Errorf("%v: target %d got %d of %d", percents, i, counts[i], n)
			}
		}
		if got := r.Pick(math.MaxUint32); got != r.Targets[len(r.Targets)-1] {
			t.Errorf("%v: the greatest number picks %v", percents, got)
		}
	}
}

func TestPickTag(t *testing.T) {
	r := traffic.Rule{TagHeader: map[string][]traffic.Target{"blue": all("b")}}
	if got, ok := r.PickTag("blue", 7); !ok || got.Revision.Name != "b" {
		t.Errorf("PickTag(blue) = %v, %v", got, ok)
	}
	if _, ok := r.PickTag("green", 7); ok {
		t.Error("an unknown tag is picked")
	}
	if _, ok := (&traffic.Rule{}).PickTag("blue", 7); ok {
		t.Error("a rule without tag headers picks one")
	}
}

func TestSettingsAreCopied(t *testing.T) {
	settings := map[types.NamespacedName]traffic.Settings{name("a"): {ContainerConcurrency: 1}}
	table, err := traffic.Build(nil, settings)
	if err != nil {
		t.Fatal(err)
	}
	settings[name("a")] = traffic.Settings{ContainerConcurrency: 2}
	if s, ok := table.Settings(name("a")); !ok || s.ContainerConcurrency != 1 {
		t.Errorf("settings = %+v, %v", s, ok)
	}
	if _, ok := table.Settings(name("b")); ok {
		t.Error("an unknown revision has settings")
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprint(n, " routes"), func(b *testing.B) {
			rules := make([]traffic.Rule, n)
			for i := range rules {
				rules[i] = traffic.Rule{Host: fmt.Sprintf("service-%d.default.localhost", i), Targets: all("a")}
			}
			table, err := traffic.Build(rules, nil)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			i := 0
			hosts := make([]string, 64)
			for j := range hosts {
				hosts[j] = fmt.Sprintf("service-%d.default.localhost:8080", j*n/len(hosts))
			}
			for b.Loop() {
				r, ok := table.Match(hosts[i%len(hosts)], true)
				if !ok {
					b.Fatal("no match")
				}
				r.Pick(uint32(i))
				i++
			}
		})
	}
}
