// Package suite lists the suites of Knative Serving, says what each needs, and builds them.
package suite

import (
	"fmt"
	"slices"
	"strings"
)

// Module is where the suites and the images they deploy come from.
const Module = "knative.dev/serving"

// tags choose the files of the suites; the two tests of class hpa have a tag of their own.
const tags = "-tags=e2e,hpa"

// A Suite is one package of upstream's tests.
type Suite struct {
	Name string // as in the ledger: Name/TestFunction
	Path string // below the module's test folder
	// Settings hold while the suite runs.
	Settings []Setting
	// Env is added to the environment of its tests.
	Env []string
}

// A Setting is one key of a ConfigMap in the system's namespace.
type Setting struct{ Map, Key, Value string }

// Package is the import path.
func (s *Suite) Package() string { return Module + "/test/" + s.Path }

// Baseline are the settings that upstream's continuous integration runs all suites with.
func Baseline() []Setting {
	return []Setting{
		{"config-domain", "example.com", ""},
		{"config-network", "autocreate-cluster-domain-claims", "true"},
		{"config-deployment", "progress-deadline", "120s"},
	}
}

// All lists the suites, those of conformance first.
func All() []Suite {
	feature := func(keys ...string) []Setting {
		settings := make([]Setting, 0, len(keys))
		for _, key := range keys {
			settings = append(settings, Setting{"config-features", key, "Enabled"})
		}
		return settings
	}
	const volume = "kubernetes.podspec-persistent-volume-"
	return []Suite{
		{Name: "v1", Path: "conformance/api/v1"},
		{Name: "v1beta1", Path: "conformance/api/v1beta1"},
		{Name: "runtime", Path: "conformance/runtime"},
		{Name: "e2e", Path: "e2e"},
		{Name: "tagheader", Path: "e2e/tagheader", Settings: feature("tag-header-based-routing")},
		{Name: "initscale", Path: "e2e/initscale", Settings: []Setting{{"config-autoscaler", "allow-zero-initial-scale", "true"}}},
		{Name: "domainmapping", Path: "e2e/domainmapping"},
		{Name: "clusterlocaldomaintls", Path: "e2e/clusterlocaldomaintls", Settings: []Setting{{"config-network", "cluster-local-domain-tls", "enabled"}}},
		{Name: "systeminternaltls", Path: "e2e/systeminternaltls", Settings: []Setting{
			{"config-network", "system-internal-tls", "enabled"},
			{"config-observability", "logging.enable-request-log", "true"},
			{"config-observability", "logging.request-log-template", "TLS: {{.Request.TLS}}"},
		}},
		{
			Name: "externaldomaintls", Path: "e2e/externaldomaintls",
			Settings: []Setting{{"config-network", "external-domain-tls", "Enabled"}},
			Env:      []string{"CUSTOM_DOMAIN_SUFFIX=example.com", "TLS_TEST_NAMESPACE=tls"},
		},
		{Name: "gc", Path: "e2e/gc", Settings: []Setting{
			{"config-gc", "retain-since-create-time", "disabled"},
			{"config-gc", "retain-since-last-active-time", "disabled"},
			{"config-gc", "min-non-active-revisions", "0"},
			{"config-gc", "max-non-active-revisions", "0"},
		}},
		{Name: "initcontainers", Path: "e2e/initcontainers", Settings: feature("kubernetes.podspec-init-containers")},
		{Name: "multicontainerprobing", Path: "e2e/multicontainerprobing", Settings: feature("multi-container-probing")},
		{Name: "pvc", Path: "e2e/pvc", Settings: feature(volume+"claim", volume+"write", "kubernetes.podspec-securitycontext")},
		{Name: "securedefaults", Path: "e2e/securedefaults", Settings: feature("secure-pod-defaults")},
	}
}

// Select gives the suites that are wanted by name, parted by commas; all if there are none. The name conformance
// stands for the three suites that implementations are certified by, toggled for those with settings of
// their own.
func Select(wanted string) ([]Suite, error) {
	all := All()
	if wanted == "" {
		return all, nil
	}
	var chosen []Suite
	for name := range strings.SplitSeq(wanted, ",") {
		found := slices.DeleteFunc(slices.Clone(all), func(s Suite) bool {
			switch name {
			case "conformance":
				return !strings.HasPrefix(s.Path, "conformance/")
			case "toggled":
				return !strings.HasPrefix(s.Path, "e2e/")
			default:
				return s.Name != name
			}
		})
		if len(found) == 0 {
			return nil, fmt.Errorf("finding suite %q: there are conformance, toggled, and %s", name, names(all))
		}
		for _, f := range found {
			if !slices.ContainsFunc(chosen, func(s Suite) bool { return s.Name == f.Name }) {
				chosen = append(chosen, f)
			}
		}
	}
	return chosen, nil
}

func names(suites []Suite) string {
	var all []string
	for i := range suites {
		all = append(all, suites[i].Name)
	}
	return strings.Join(all, ", ")
}
