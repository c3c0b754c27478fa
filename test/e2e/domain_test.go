package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// mapping is a DomainMapping to an object of its namespace.
func mapping(domain, namespace, version, kind, name string) string {
	return fmt.Sprintf(`apiVersion: serving.knative.dev/v1beta1
kind: DomainMapping
metadata: {name: %s, namespace: %s}
spec: {ref: {apiVersion: %s, kind: %s, name: %s}}
`, domain, namespace, version, kind, name)
}

// claimDomains has domains claimed by whoever maps them first, until the test ends.
func claimDomains(t *testing.T, i *installation) {
	t.Helper()
	set := func(ctx context.Context, value string) (string, error) {
		return i.command(ctx, "kubectl", "patch", "configmap", "config-network", "-n", "knative-serving", "--type=merge",
			"-p", `{"data":{"autocreate-cluster-domain-claims":`+value+`}}`)
	}
	if out, err := set(t.Context(), `"true"`); err != nil {
		t.Fatalf("setting: %v %s", err, out)
	}
	t.Cleanup(func() { _, _ = set(context.Background(), "null") })
}

// awaitConditions waits until a mapping's conditions read as wanted, as "Type=Status Reason".
func awaitConditions(t *testing.T, i *installation, domain, namespace string, want ...string) {
	t.Helper()
	eventually(t, domain+" in "+namespace, func() (bool, string) {
		out, err := i.command(t.Context(), "kubectl", "get", "domainmapping/"+domain, "-n", namespace, "-o",
			`jsonpath={range .status.conditions[*]}{.type}={.status} {.reason}{"\n"}{end}`)
		seen := strings.Split(out, "\n")
		for _, w := range want {
			found := false
			for _, line := range seen {
				found = found || strings.TrimSpace(line) == w
			}
			if !found {
				return false, out
			}
		}
		return err == nil, out
	})
}

func TestDomainsAreMapped(t *testing.T) {
	claimDomains(t, shared)
	image := greeter(t, shared, "mapped")
	shared.apply(t, mapping("shop.e2e.example", "default", "serving.knative.dev/v1", "Service", "mapped"))
	awaitConditions(t, shared, "shop.e2e.example", "default",
		"Ready=True", "DomainClaimed=True", "ReferenceResolved=True", "IngressReady=True", "CertificateProvisioned=True TLSNotEnabled")
	if body := shared.get(t, "shop.e2e.example", "/?host=1"); body != "shop.e2e.example \n" {
		t.Errorf("the application saw %q, want the domain as its host", body)
	}
	url := shared.jsonpath(t, "dm/shop.e2e.example", "{.status.url}")
	if body := shared.get(t, host("mapped"), "/?call="+url+"/"); !strings.HasPrefix(body, "200 Hello") {
		t.Errorf("from a pod, by %s: %s", url, body)
	}
	if out := shared.do(t, "get", "domainmappings"); !strings.Contains(out, url) || !strings.Contains(out, "Service/mapped") {
		t.Errorf("get domainmappings = %s", out)
	}
	if out := shared.do(t, "describe", "mapped"); !strings.Contains(out, url) {
		t.Errorf("describe = %s", out)
	}
	if seen := shared.jsonpath(t, "kingress/shop.e2e.example", "{.spec.rules[0].http.paths[0].rewriteHost}"); seen != "mapped.default.svc.cluster.local" {
		t.Errorf("its ingress rewrites the host to %q", seen)
	}

	t.Run("follows its service's traffic", func(t *testing.T) {
		shared.do(t, "deploy", "--image", image, "--name", "mapped", "--env", "GREETING=Moved")
		if body := shared.get(t, "shop.e2e.example", "/"); !strings.HasPrefix(body, "Moved") {
			t.Errorf("body %q", body)
		}
	})
	t.Run("makes a hidden service public", func(t *testing.T) {
		shared.do(t, "kubectl", "label", "ksvc/mapped", "networking.knative.dev/visibility=cluster-local")
		eventually(t, "the service hidden", func() (bool, string) {
			status, body, _, err := shared.request(t.Context(), host("mapped"), "/")
			return err == nil && status == http.StatusNotFound, body
		})
		shared.get(t, "shop.e2e.example", "/")
	})
	t.Run("goes with its object", func(t *testing.T) {
		shared.do(t, "kubectl", "delete", "domainmapping/shop.e2e.example")
		if status, body, _, err := shared.request(t.Context(), "shop.e2e.example", "/"); err != nil || status != http.StatusNotFound {
			t.Errorf("status %d (%v): %s", status, err, body)
		}
		if out, err := shared.command(t.Context(), "kubectl", "get", "cdc/shop.e2e.example"); err == nil {
			t.Errorf("the claim is still there: %s", out)
		}
	})
}

func TestADomainIsOneNamespaces(t *testing.T) {
	const domain = "bank.e2e.example"
	image := greeter(t, shared, "banked")
	shared.apply(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: second}\n")
	shared.apply(t, mapping(domain, "default", "serving.knative.dev/v1", "Service", "banked"))
	awaitConditions(t, shared, domain, "default", "DomainClaimed=False DomainAlreadyClaimed", "Ready=False DomainAlreadyClaimed")
	claimDomains(t, shared)
	awaitConditions(t, shared, domain, "default", "Ready=True")
	shared.apply(t, strings.Replace(service("other", image, `autoscaling.knative.dev/max-scale: "1"`), "name: other\n", "name: other\n  namespace: second\n", 1))
	shared.apply(t, mapping(domain, "second", "serving.knative.dev/v1", "Service", "other"))
	awaitConditions(t, shared, domain, "second", "DomainClaimed=False DomainAlreadyClaimed", "Ready=False DomainAlreadyClaimed")
	if body := shared.get(t, domain, "/"); !strings.Contains(body, "from banked-") {
		t.Errorf("answered by %q, want the first", body)
	}
	shared.do(t, "kubectl", "delete", "domainmapping/"+domain)
	awaitConditions(t, shared, domain, "second", "Ready=True")
	if body := shared.get(t, domain, "/"); !strings.Contains(body, "from other-") {
		t.Errorf("answered by %q, want the second", body)
	}
	shared.do(t, "kubectl", "delete", "domainmapping/"+domain, "-n", "second")
}

func TestADomainOfAKubernetesService(t *testing.T) {
	claimDomains(t, shared)
	image := greeter(t, shared, "plain-source")
	shared.apply(t, pod("plain", image, ""))
	shared.apply(t, mapping("plain.e2e.example", "default", "v1", "Service", "plain"))
	awaitConditions(t, shared, "plain.e2e.example", "default", "ReferenceResolved=False ResolveFailed", "Ready=False ResolveFailed")
	shared.apply(t, `apiVersion: v1
kind: Service
metadata: {name: plain}
spec:
  selector: {app: plain}
  ports: [{port: 80, targetPort: 8080}]
`)
	awaitPod(t, "plain")
	awaitConditions(t, shared, "plain.e2e.example", "default", "Ready=True")
	eventually(t, "the pod's answer", func() (bool, string) {
		_, body, _, err := shared.request(t.Context(), "plain.e2e.example", "/?host=1")
		return err == nil && body == "plain.default.svc.cluster.local plain.e2e.example\n", body
	})
	// A Route's own Kubernetes Service leads to the Route.
	shared.apply(t, mapping("alias.e2e.example", "default", "v1", "Service", "plain-source"))
	awaitConditions(t, shared, "alias.e2e.example", "default", "Ready=True")
	if body := shared.get(t, "alias.e2e.example", "/"); !strings.Contains(body, "from plain-source-") {
		t.Errorf("answered by %q", body)
	}
}

func TestBadDomainsAreRefused(t *testing.T) {
	for manifest, want := range map[string]string{
		mapping("word", "default", "serving.knative.dev/v1", "Service", "x"):                                                      "at least two segments",
		mapping("x.default.svc.cluster.local", "default", "serving.knative.dev/v1", "Route", "x"):                                 "must not be a subdomain of cluster local domain",
		strings.Replace(mapping("x.example", "default", "v1", "Service", "x"), "name: x}", "name: x, namespace: kube-system}", 1): "does not match ref",
	} {
		out, err := shared.feed(t.Context(), manifest, "kubectl", "create", "--dry-run=server", "-f", "-")
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%v, want %q: %s\n%s", err, want, out, manifest)
		}
	}
}
