package arch

import (
	"slices"
	"strings"
	"testing"
)

// floors from the ground up. A package imports lower floors only.
var floors = []string{
	"api", "deploy", "web", "internal/domain", "internal/platform", "internal/adapter",
	"internal/component", "internal/server", "internal/cli", "cmd",
}

// floor returns the number of the floor that a package stands on, -1 for none.
func floor(path string) int {
	return slices.IndexFunc(floors, func(f string) bool { return within(path, f) })
}

func within(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

// unit returns the part of a floor that must not know its neighbours: internal/component/gateway for
// internal/component/gateway/queue. Controllers are one component each.
func unit(path string) string {
	parts := strings.Split(path, "/")
	size := 3
	if within(path, "internal/component/controller") {
		size = 4
	}
	return strings.Join(parts[:min(size, len(parts))], "/")
}

// mayImport tells whether a package may import another one of this module. Lower floors are open;
// platform is open to itself; elsewhere a part of a floor sees its own folders, those that enclose it
// and, if it is a list called all, those beside it.
func mayImport(from, to string) bool {
	f, t := floor(from), floor(to)
	switch {
	case f < 0 || t < f:
		return true
	case t > f:
		return false
	case within(from, "internal/platform"), within(from, "cmd"), within(from, "internal/cli"), within(from, "internal/server"):
		return true
	}
	family, isList := strings.CutSuffix(from, "/all")
	return unit(from) == unit(to) || within(from, to) || isList && within(to, family)
}

func TestFloors(t *testing.T) {
	for _, p := range ours(t) {
		for _, to := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			to, isOurs := strings.CutPrefix(to, module+"/")
			if isOurs && !mayImport(p.path(), to) {
				t.Errorf("%s imports %s: a package imports lower floors and its own folder only", p.path(), to)
			}
		}
	}
}

func TestMayImport(t *testing.T) {
	cases := map[string]struct {
		from, to string
		want     bool
	}{
		"a lower floor":                 {"internal/component/gateway", "internal/domain/traffic", true},
		"a higher floor":                {"internal/domain/scale", "internal/platform/demand", false},
		"another component":             {"internal/component/gateway", "internal/component/autoscaler", false},
		"another domain package":        {"internal/domain/scale", "internal/domain/traffic", false},
		"another platform package":      {"internal/platform/fleet", "internal/platform/config", true},
		"the family of an adapter":      {"internal/adapter/runtime/container", "internal/adapter/runtime", true},
		"a sibling in the family":       {"internal/adapter/runtime/simulated", "internal/adapter/runtime/container", true},
		"another family":                {"internal/adapter/runtime/container", "internal/adapter/build", false},
		"a folder of its own":           {"internal/component/node", "internal/component/node/pod/probe", true},
		"another controller":            {"internal/component/controller/route", "internal/component/controller/service", false},
		"what controllers share":        {"internal/component/controller/route", "internal/component/controller", true},
		"the list of controllers":       {"internal/component/controller/all", "internal/component/controller/route", true},
		"the server, from a component":  {"internal/component/node", "internal/server", false},
		"a component, from the server":  {"internal/server", "internal/component/node", true},
		"anything, from a test program": {"test/bench", "internal/server", true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := mayImport(c.from, c.to); got != c.want {
				t.Errorf("mayImport(%s, %s) = %v", c.from, c.to, got)
			}
		})
	}
}

// banned are modules that only one place may import; tests and their helpers are no exception.
var banned = []struct{ prefix, only, why string }{
	{"k8s.io/kubernetes", "internal/component/cluster", "only component/cluster links Kubernetes itself"},
	{"go.etcd.io/etcd", "internal/component/cluster", "only component/cluster links etcd"},
}

// excepted are packages that may import a part of what is banned: users' own etcd is a source of work,
// and asked by etcd's client.
var excepted = map[string]string{"internal/adapter/trigger/etcd": "go.etcd.io/etcd/client/v3"}

func TestOnlyClusterLinksKubernetes(t *testing.T) {
	for _, p := range ours(t) {
		if floor(p.path()) < 0 {
			continue // test/bench measures a bare Kubernetes beside ours
		}
		for _, to := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			for _, b := range banned {
				if within(to, b.prefix) && !within(p.path(), b.only) && to != excepted[p.path()] {
					t.Errorf("%s imports %s: %s", p.path(), to, b.why)
				}
			}
		}
	}
}

// pure are the only packages from outside that api and domain may import, besides the standard
// library's.
var pure = map[string][]string{
	"api":             {"k8s.io/apimachinery", "sigs.k8s.io/structured-merge-diff"},
	"internal/domain": {"github.com/kedacore/keda/v2/apis", "k8s.io/apimachinery", "k8s.io/api", "k8s.io/utils/ptr", "knative.dev", "github.com/google/go-cmp", "sigs.k8s.io/yaml"},
}

// impure are parts of the standard library that domain may not import outside of tests.
var impure = []string{"net", "net/http", "os", "os/exec", "log", "log/slog", "sync", "sync/atomic", "context", "syscall", "testing"}

func TestAPIAndDomainArePure(t *testing.T) {
	for _, p := range ours(t) {
		for folder, allowed := range pure {
			if !within(p.path(), folder) {
				continue
			}
			for _, to := range p.Imports {
				outside := strings.Contains(strings.Split(to, "/")[0], ".") && !within(to, module)
				if outside && !slices.ContainsFunc(allowed, func(a string) bool { return within(to, a) }) {
					t.Errorf("%s imports %s, which %s may not", p.path(), to, folder)
				}
				if folder == "internal/domain" && slices.Contains(impure, to) {
					t.Errorf("%s imports %s: domain is values in, values out", p.path(), to)
				}
			}
		}
	}
}
