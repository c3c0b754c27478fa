package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// network sets keys of config-network until the test ends.
func network(t *testing.T, i *installation, keys ...string) {
	t.Helper()
	set := func(ctx context.Context, value func(key, value string) string) (string, error) {
		var all []string
		for _, k := range keys {
			key, v, _ := strings.Cut(k, "=")
			all = append(all, fmt.Sprintf("%q:%s", key, value(key, v)))
		}
		return i.command(ctx, "kubectl", "patch", "configmap", "config-network", "-n", "knative-serving", "--type=merge", "-p", `{"data":{`+strings.Join(all, ",")+`}}`)
	}
	if out, err := set(t.Context(), func(_, v string) string { return fmt.Sprintf("%q", v) }); err != nil {
		t.Fatalf("setting %v: %v %s", keys, err, out)
	}
	t.Cleanup(func() { _, _ = set(context.Background(), func(string, string) string { return "null" }) })
}

// trusting is a client that trusts the authority in the data folder and nobody else, and finds every
// host at the gateway's address.
func trusting(t *testing.T, i *installation, http2 bool) *http.Client {
	t.Helper()
	authority, err := os.ReadFile(filepath.Join(i.data, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		t.Fatalf("ca.crt holds no certificate: %s", authority)
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, Protocols: protocols,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			to := i.http
			if strings.HasSuffix(address, ":443") || strings.HasSuffix(address, i.https[strings.LastIndex(i.https, ":"):]) {
				to = i.https
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", to)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// fetch asks for a URL and returns the response, read to its end, with its body.
func fetch(t *testing.T, c *http.Client, url string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	return res, string(body), err
}

// secureURL waits until a service is ready and its URL is https.
func secureURL(t *testing.T, i *installation, name string) string {
	t.Helper()
	url := ""
	eventually(t, "an https URL of "+name, func() (bool, string) {
		url = i.jsonpath(t, "ksvc/"+name, "{.status.url}")
		ready := i.jsonpath(t, "rt/"+name, `{.status.conditions[?(@.type=="Ready")].status}`)
		return strings.HasPrefix(url, "https://") && ready == "True", url + " " + ready
	})
	return url
}

func TestHTTPSByTheAuthorityOfOnesOwn(t *testing.T) {
	greeter(t, shared, "secure")
	network(t, shared, "external-domain-tls=Enabled")
	url := secureURL(t, shared, "secure")
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		res, body, err := fetch(t, trusting(t, shared, http2), url)
		if err != nil || res.StatusCode != http.StatusOK || res.Proto != name || !strings.Contains(body, "Hello") {
			t.Fatalf("%s by %s: %v %v %s", url, name, res, err, body)
		}
		if err := res.TLS.PeerCertificates[0].VerifyHostname(host("secure")); err != nil {
			t.Error(err)
		}
	}
	if body := shared.get(t, host("secure"), "/"); !strings.Contains(body, "Hello") {
		t.Errorf("plain requests are answered with %q", body)
	}
	uid := shared.jsonpath(t, "rt/secure", "{.metadata.uid}")
	certificate := "kcert/route-" + uid
	for path, want := range map[string]string{
		`{.status.conditions[?(@.type=="Ready")].status}`:                     "True",
		`{.spec.dnsNames[0]} {.spec.domain}`:                                  host("secure") + " localhost",
		`{.metadata.labels.serving\.knative\.dev/route}`:                      "secure",
		`{.metadata.labels.networking\.knative\.dev/certificate-type}`:        "external-domain",
		`{.metadata.annotations.networking\.knative\.dev/certificate\.class}`: "ebb.certificate.networking.knative.dev",
	} {
		if seen := shared.jsonpath(t, certificate, path); seen != want {
			t.Errorf("certificate %s: %q, want %q", path, seen, want)
		}
	}
	t.Run("a tag has one too", func(t *testing.T) {
		shared.do(t, "kubectl", "patch", "ksvc/secure", "--type=merge", "-p", `{"spec":{"traffic":[{"latestRevision":true,"percent":100,"tag":"next"}]}}`)
		eventually(t, "an answer of the tag by https", func() (bool, string) {
			url := shared.jsonpath(t, "ksvc/secure", "{.status.traffic[0].url}")
			if !strings.HasPrefix(url, "https://next-secure.") {
				return false, url
			}
			res, _, err := fetch(t, trusting(t, shared, true), url)
			return err == nil && res.StatusCode == http.StatusOK, fmt.Sprint(url, res, err)
		})
	})
	t.Run("a new pair is shown without a restart", func(t *testing.T) {
		before := serial(t, url)
		shared.do(t, "kubectl", "delete", "secret", "route-"+uid)
		eventually(t, "another certificate, kept in the Secret", func() (bool, string) {
			kept := shared.jsonpath(t, "secret/route-"+uid, "{.type}")
			now := serial(t, url)
			return kept == "kubernetes.io/tls" && now != before, kept + " " + now
		})
	})
	t.Run("a redirect where that is asked for", func(t *testing.T) {
		shared.do(t, "kubectl", "annotate", "ksvc/secure", "networking.knative.dev/http-protocol=redirected")
		eventually(t, "a redirect", func() (bool, string) {
			res, _, err := fetch(t, trusting(t, shared, false), "http://"+host("secure")+"/a?b=c")
			if err != nil {
				return false, err.Error()
			}
			return res.StatusCode == http.StatusMovedPermanently && res.Header.Get("Location") == url+"/a?b=c", res.Status + res.Header.Get("Location")
		})
	})
	t.Run("off again", func(t *testing.T) {
		shared.do(t, "kubectl", "annotate", "ksvc/secure", "networking.knative.dev/disable-external-domain-tls=true")
		eventually(t, "a plain URL and why", func() (bool, string) {
			seen := shared.jsonpath(t, "rt/secure", `{.status.url} {.status.conditions[?(@.type=="CertificateProvisioned")].reason}`)
			return strings.HasPrefix(seen, "http://") && strings.HasSuffix(seen, " TLSNotEnabled"), seen
		})
	})
}

// serial is the number of the certificate that a URL's host shows.
func serial(t *testing.T, url string) string {
	t.Helper()
	res, _, err := fetch(t, trusting(t, shared, false), url)
	if err != nil {
		t.Fatal(err)
	}
	return res.TLS.PeerCertificates[0].SerialNumber.String()
}

// pairFor makes a certificate for a host that signs itself, and its key, in PEM.
func pairFor(t *testing.T, host string) (crt, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

func TestAWildcardOfTheNamespace(t *testing.T) {
	greeter(t, shared, "wild")
	network(t, shared, "external-domain-tls=Enabled", "namespace-wildcard-cert-selector=matchLabels: {kubernetes.io/metadata.name: default}")
	url := secureURL(t, shared, "wild")
	eventually(t, "the namespace's certificate", func() (bool, string) {
		res, _, err := fetch(t, trusting(t, shared, true), url)
		if err != nil {
			return false, err.Error()
		}
		names := fmt.Sprint(res.TLS.PeerCertificates[0].DNSNames)
		return names == "[*.default.localhost]", names
	})
	if seen := shared.jsonpath(t, "kcert/default.localhost", "{.metadata.ownerReferences[0].kind} {.spec.secretName}"); seen != "Namespace default.localhost" {
		t.Errorf("the certificate belongs to %s", seen)
	}
	network(t, shared, "namespace-wildcard-cert-selector=")
	eventually(t, "the namespace's certificate gone", func() (bool, string) {
		out := shared.do(t, "kubectl", "get", "kcert", "-o", "name")
		return !strings.Contains(out, "default.localhost"), out
	})
	if res, _, err := fetch(t, trusting(t, shared, true), secureURL(t, shared, "wild")); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("after it: %v %v", res, err)
	}
}

func TestPodsCallEachOtherByTLS(t *testing.T) {
	image := greeter(t, shared, "inside-source")
	network(t, shared, "cluster-local-domain-tls=Enabled")
	shared.do(t, "kubectl", "create", "configmap", "trust", "--from-file="+filepath.Join(shared.data, "ca.crt"))
	t.Cleanup(func() { _, _ = shared.command(context.Background(), "kubectl", "delete", "configmap", "trust") })
	shared.apply(t, service("inside", image))
	shared.do(t, "kubectl", "label", "ksvc/inside", "networking.knative.dev/visibility=cluster-local")
	if url := secureURL(t, shared, "inside"); url != "https://inside.default.svc.cluster.local" {
		t.Errorf("URL %s", url)
	}
	shared.apply(t, pod("caller", image, `    env: [{name: SSL_CERT_FILE, value: /trust/ca.crt}]
    volumeMounts: [{name: trust, mountPath: /trust}]
  volumes: [{name: trust, configMap: {name: trust}}]
`))
	awaitPod(t, "caller")
	base := "http://" + shared.jsonpath(t, "pod/caller", "{.status.podIP}") + ":8080/?call=https://"
	for _, name := range []string{"inside.default.svc.cluster.local", "inside.default.svc", "inside.default"} {
		if body, err := direct(t, base+name); err != nil || !strings.HasPrefix(body, "200 Hello") {
			t.Errorf("https://%s: %s %v", name, body, err)
		}
	}
	if res, _, err := fetch(t, trusting(t, shared, false), "https://inside.default.svc.cluster.local"); err == nil {
		t.Errorf("a local name is served outside: %s", res.Status)
	}
}

// TestCertificatesOfCertManager plays cert-manager: its definition is there, and what it would do to its
// objects is done by hand.
func TestCertificatesOfCertManager(t *testing.T) {
	greeter(t, shared, "managed")
	network(t, shared, "external-domain-tls=Enabled", "certificate-class=cert-manager.certificate.networking.knative.dev")
	uid := shared.jsonpath(t, "rt/managed", "{.metadata.uid}")
	ready := func(want string) {
		t.Helper()
		eventually(t, "the certificate to say "+want, func() (bool, string) {
			seen := shared.jsonpath(t, "kcert/route-"+uid, `{.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].reason}`)
			return strings.TrimSpace(seen) == want, seen
		})
	}
	ready("Unknown CertManagerMissing")
	if seen := shared.jsonpath(t, "rt/managed", `{.status.conditions[?(@.type=="CertificateProvisioned")].reason}`); seen != "HTTPDowngrade" {
		t.Errorf("the route says %s", seen)
	}
	shared.apply(t, `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: certificates.cert-manager.io}
spec:
  group: cert-manager.io
  names: {kind: Certificate, plural: certificates, singular: certificate}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}}
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`)
	peer := "certificates.cert-manager.io/route-" + uid
	eventually(t, "cert-manager to be asked", func() (bool, string) {
		seen := shared.jsonpath(t, peer, "{.spec.secretName} {.spec.dnsNames[0]} {.spec.issuerRef.kind} {.spec.issuerRef.name}")
		return seen == "route-"+uid+" "+host("managed")+" ClusterIssuer knative-selfsigned-issuer", seen
	})
	crt, key := pairFor(t, host("managed"))
	label := shared.jsonpath(t, peer, `{.spec.secretTemplate.labels.networking\.internal\.knative\.dev/certificate-uid}`)
	shared.apply(t, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: route-%s, labels: {networking.internal.knative.dev/certificate-uid: %s}}\ntype: kubernetes.io/tls\ndata: {tls.crt: %s, tls.key: %s}\n",
		uid, label, base64.StdEncoding.EncodeToString(crt), base64.StdEncoding.EncodeToString(key)))
	shared.do(t, "kubectl", "patch", peer, "--subresource=status", "--type=merge", "-p", `{"status":{"conditions":[{"type":"Ready","status":"True","reason":"Ready","message":"m"}]}}`)
	ready("True")
	url := secureURL(t, shared, "managed")
	client := trusting(t, shared, true)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(crt)
	client.Transport.(*http.Transport).TLSClientConfig.RootCAs = pool
	if res, _, err := fetch(t, client, url); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("by the certificate cert-manager made: %v %v", res, err)
	}
}

func TestADomainHasACertificateOfItsUsersOrOfItsOwn(t *testing.T) {
	greeter(t, shared, "mapped-secure")
	network(t, shared, "autocreate-cluster-domain-claims=true")
	put := func(crt, key []byte) {
		t.Helper()
		shared.apply(t, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: users}\ntype: kubernetes.io/tls\ndata: {tls.crt: %s, tls.key: %s}\n",
			base64.StdEncoding.EncodeToString(crt), base64.StdEncoding.EncodeToString(key)))
	}
	const domain = "shop.example.test"
	crt, key := pairFor(t, domain)
	put(crt, key)
	mapping := func(tls string) {
		t.Helper()
		shared.apply(t, "apiVersion: serving.knative.dev/v1beta1\nkind: DomainMapping\nmetadata: {name: "+domain+"}\nspec: {ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: mapped-secure}"+tls+"}\n")
	}
	shows := func(what string, ask func() bool) {
		t.Helper()
		eventually(t, what, func() (bool, string) {
			return ask(), shared.jsonpath(t, "domainmapping/"+domain, `{.status.url} {.status.conditions[*].reason}`)
		})
	}
	url := func() string {
		seen := shared.jsonpath(t, "domainmapping/"+domain, `{.status.conditions[?(@.type=="Ready")].status} {.status.url}`)
		url, _ := strings.CutPrefix(seen, "True https://")
		return "https://" + url
	}
	trusts := func(crt []byte) func() bool {
		return func() bool {
			client := trusting(t, shared, true)
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(crt)
			client.Transport.(*http.Transport).TLSClientConfig.RootCAs = pool
			res, body, err := fetch(t, client, url())
			return err == nil && res.StatusCode == http.StatusOK && strings.Contains(body, "Hello")
		}
	}
	mapping(", tls: {secretName: users}")
	shows("the user's certificate", trusts(crt))
	crt, key = pairFor(t, domain)
	put(crt, key)
	shows("the rotated one, without a restart", trusts(crt))
	network(t, shared, "external-domain-tls=Enabled")
	mapping("")
	authority, err := os.ReadFile(filepath.Join(shared.data, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	shows("one of ebb's own", trusts(authority))
	if seen := shared.jsonpath(t, "kcert/"+domain, "{.metadata.ownerReferences[0].kind} {.spec.secretName}"); seen != "DomainMapping "+domain {
		t.Errorf("the certificate belongs to %s", seen)
	}
}
