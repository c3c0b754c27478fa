package traffic_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/traffic"
)

// way is a rule of a route that shares its host; fields are "Name" or "Name=value".
func way(route, host, path string, fields ...string) traffic.Rule {
	r := traffic.Rule{Host: host, Route: routeNamed(route), Targets: all(route), Way: &traffic.Way{Path: path}}
	for _, f := range fields {
		name, value, exact := strings.Cut(f, "=")
		r.Way.Headers = append(r.Way.Headers, traffic.Header{Name: name, Value: value, Any: !exact})
	}
	return r
}

// routeNamed is "name" in the default namespace, or "namespace/name".
func routeNamed(text string) types.NamespacedName {
	if namespace, n, ok := strings.Cut(text, "/"); ok {
		return types.NamespacedName{Namespace: namespace, Name: n}
	}
	return name(text)
}

func TestFind(t *testing.T) {
	table, err := traffic.Build([]traffic.Rule{
		way("any", "*", ""),
		way("any-api", "*", "/api"),
		way("com", "*.Example.com", ""),
		way("bar", "*.bar.example.com", ""),
		way("bar-v2", "*.bar.example.com", "/v2/", "X-Beta"),
		way("shop", "Shop.example.com:8080", "/"),
		way("cart", "shop.example.com", "/cart"),
		way("cart-items", "shop.example.com", "cart/items/"),
		way("beta", "shop.example.com", "/cart", "X-Beta"),
		way("beta-on", "shop.example.com", "/cart", "x-beta=on"),
		way("both", "shop.example.com", "/cart", "x-beta=on", "X-Who=me"),
		way("admin", "shop.example.com", "/admin", "X-Key=secret"),
		{Host: "hello.default.localhost", Targets: all("hello")},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for what, tc := range map[string]struct{ host, path, fields, want string }{
		"the root":                                       {"shop.example.com", "/", "", "shop"},
		"a path nobody names":                            {"shop.example.com", "/a/b", "", "shop"},
		"an empty path":                                  {"shop.example.com", "", "", "shop"},
		"a port and capitals":                            {"SHOP.example.com:80", "/", "", "shop"},
		"a path":                                         {"shop.example.com", "/cart", "", "cart"},
		"with a slash at its end":                        {"shop.example.com", "/cart/", "", "cart"},
		"and one below":                                  {"shop.example.com", "/cart/x/y", "", "cart"},
		"segments are whole":                             {"shop.example.com", "/cartwheel", "", "shop"},
		"paths keep their case":                          {"shop.example.com", "/Cart", "", "shop"},
		"the longest path":                               {"shop.example.com", "/cart/items/7", "", "cart-items"},
		"a field":                                        {"shop.example.com", "/cart", "X-Beta: off", "beta"},
		"a field's value goes before any":                {"shop.example.com", "/cart", "X-Beta: on", "beta-on"},
		"a value among others":                           {"shop.example.com", "/cart", "X-Beta: off, X-Beta: on", "beta-on"},
		"more fields go before fewer":                    {"shop.example.com", "/cart", "X-Beta: on, X-Who: me", "both"},
		"a longer path goes before fields":               {"shop.example.com", "/cart/items", "X-Beta: on", "cart-items"},
		"fields that fit":                                {"shop.example.com", "/admin", "X-Key: secret", "admin"},
		"fields that do not, and no shorter path":        {"shop.example.com", "/admin", "X-Key: wrong", "com"},
		"a wildcard":                                     {"x.example.com", "/", "", "com"},
		"a wildcard over two labels":                     {"a.x.example.com", "/", "", "com"},
		"the longest wildcard":                           {"x.bar.example.com", "/", "", "bar"},
		"its path with a field":                          {"x.bar.example.com", "/v2/x", "X-Beta: 1", "bar-v2"},
		"its path without the field: the next wildcard":  {"x.bar.example.com", "/v2/x", "", "com"},
		"no wildcard is its own domain":                  {"example.com", "/", "", "any"},
		"any host":                                       {"elsewhere", "/", "", "any"},
		"any host's path":                                {"elsewhere", "/api/x", "", "any-api"},
		"a host that is a number":                        {"127.0.0.1:80", "/", "", "any"},
		"a host that is no name":                         {"[::1]:80", "/api", "", "any-api"},
		"no host":                                        {"", "/", "", "any"},
		"a path deeper than any rule's":                  {"shop.example.com", "/cart/items" + strings.Repeat("/x", 100), "", "cart-items"},
		"a host that a rule has to itself is not shared": {"hello.default.localhost", "/", "", "any"},
	} {
		t.Run(what, func(t *testing.T) {
			header := http.Header{}
			for f := range strings.SplitSeq(tc.fields, ", ") {
				if n, v, ok := strings.Cut(f, ": "); ok {
					header.Add(n, v)
				}
			}
			r, ok := table.Find(tc.host, tc.path, header)
			if !ok || r.Route != routeNamed(tc.want) {
				t.Errorf("Find = %+v, %v, want %s", r, ok, tc.want)
			}
		})
	}
	if r, ok := table.Match("shop.example.com", true); ok {
		t.Errorf("a shared host is %+v's alone", r)
	}
	var none *traffic.Table
	if _, ok := none.Find("h", "/", nil); ok || none.Lost(name("x")) != nil {
		t.Error("no table finds")
	}
}

func TestWithoutARuleForAnyHost(t *testing.T) {
	table, err := traffic.Build([]traffic.Rule{way("a", "a.example", "/x"), way("w", "*.w.example", "")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		host, path string
		has, found bool
	}{
		{"a.example", "/x", true, true},
		{"a.example", "/", true, false},
		{"b.example", "/", false, false},
		{"x.w.example", "/", true, true},
		{"w.example", "/", false, false},
		{"[::1]", "/", false, false},
	} {
		_, found := table.Find(tc.host, tc.path, nil)
		if _, has := table.Has(tc.host, true); has != tc.has || found != tc.found {
			t.Errorf("%s%s: has %v, found %v; want %v, %v", tc.host, tc.path, has, found, tc.has, tc.found)
		}
	}
}

func TestOlderRoutesKeepWhatTheyHave(t *testing.T) {
	whole := traffic.Rule{Host: "hello.example", Route: name("hello"), Targets: all("hello")}
	for what, tc := range map[string]struct {
		older, newer traffic.Rule
		lost         bool
	}{
		"the same host and path":                     {way("a", "h", "/"), way("b", "H:80", ""), true},
		"the same of another namespace":              {way("x/a", "h", "/p"), way("y/b", "h", "/p"), true},
		"the same with other fields":                 {way("a", "h", "/"), way("b", "h", "/", "X"), false},
		"the same fields in another order":           {way("a", "h", "/", "X", "Y=1"), way("b", "h", "/", "y=1", "x"), true},
		"a longer path in one namespace":             {way("a", "h", "/"), way("b", "h", "/p"), false},
		"a longer path of another namespace":         {way("x/a", "h", "/p"), way("y/b", "h", "/p/q"), true},
		"below the root of another namespace":        {way("x/a", "h", "/"), way("y/b", "h", "/q/r"), true},
		"a shorter path of another namespace":        {way("x/a", "h", "/p/q"), way("y/b", "h", "/p"), false},
		"a path beside":                              {way("x/a", "h", "/p"), way("y/b", "h", "/pq"), false},
		"more fields of another namespace":           {way("x/a", "h", "/p", "X"), way("y/b", "h", "/p", "X=1"), true},
		"fewer fields of another namespace":          {way("x/a", "h", "/p", "X=1"), way("y/b", "h", "/p", "X"), false},
		"a narrower host":                            {way("x/a", "*.h", "/"), way("y/b", "a.h", "/"), false},
		"the same wildcard of another namespace":     {way("x/a", "*.h", "/"), way("y/b", "*.H", "/"), true},
		"any host of another namespace":              {way("x/a", "", "/"), way("y/b", "*", "/p"), true},
		"a host that a rule has to itself":           {way("b", "hello.example", "/p"), whole, false},
		"a host that a rule has to itself, and late": {whole, way("b", "hello.example", "/p"), true},
	} {
		t.Run(what, func(t *testing.T) {
			table, err := traffic.Build([]traffic.Rule{tc.older, tc.newer}, nil)
			if tc.older.Way != nil && tc.newer.Way == nil { // rules with a way come last
				if table.Lost(tc.older.Route) == nil {
					t.Error("the older keeps a host that another has to itself")
				}
				return
			}
			if lost := table.Lost(tc.newer.Route); (lost != nil) != tc.lost || (err != nil) != tc.lost {
				t.Errorf("lost: %v, %v; want %v", lost, err, tc.lost)
			} else if tc.lost && (!errors.Is(lost, traffic.ErrInvalid) || !strings.Contains(lost.Error(), tc.older.Route.String())) {
				t.Errorf("%v does not tell whose it is", lost)
			}
			if lost := table.Lost(tc.older.Route); lost != nil {
				t.Errorf("the older lost: %v", lost)
			}
		})
	}
}

func TestHostsThatCannotBe(t *testing.T) {
	for _, host := range []string{"*.", "a.*.b", "**", "*x", "a b", "*.a/b"} {
		table, err := traffic.Build([]traffic.Rule{way("a", host, "/")}, nil)
		if err == nil || table.Lost(name("a")) == nil || table.Hosts() != 0 {
			t.Errorf("%q is taken: %v", host, err)
		}
	}
}

func TestFindDoesNotAllocate(t *testing.T) {
	var rules []traffic.Rule
	for i := range 100 {
		rules = append(rules, way(fmt.Sprint("r", i), "h.example", fmt.Sprintf("/a/b%d/c", i)), way(fmt.Sprint("w", i), fmt.Sprintf("*.w%d.example", i), ""))
	}
	table, err := traffic.Build(rules, nil)
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{"X": {"y"}}
	if n := testing.AllocsPerRun(100, func() {
		if _, ok := table.Find("h.example:80", "/a/b7/c/d", header); !ok {
			t.Error("not found")
		}
		if _, ok := table.Find("x.y.w3.example", "/", header); !ok {
			t.Error("not found by wildcard")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestPseudoRevisionsAreNoRevisions(t *testing.T) {
	route := name("shop")
	if rev := traffic.PseudoRevision(route); !traffic.IsPseudo(rev) || rev.Namespace != route.Namespace || traffic.IsPseudo(route) {
		t.Errorf("%s of %s", rev, route)
	}
	if traffic.PseudoFallback(route) == traffic.PseudoRevision(route) {
		t.Error("a fallback is its own")
	}
}
