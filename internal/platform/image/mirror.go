package image

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
)

// mirrorTimeout bounds one question to the mirror; it is on loopback and answers in microseconds.
const mirrorTimeout = 2 * time.Second

// Mirror is the registry of the running ebb, seen as a mirror of every other registry.
type Mirror struct {
	Address string // host:port on loopback
}

// mirrorClient has no proxy and its own connections, so nothing an administrator sets for the
// world's registries gets between ebb and itself.
var mirrorClient = &http.Client{Transport: &http.Transport{
	DialContext:         (&net.Dialer{Timeout: mirrorTimeout}).DialContext,
	MaxIdleConnsPerHost: 16,
	IdleConnTimeout:     90 * time.Second,
}}

// accepted are the manifests ebb can read.
var accepted = strings.Join([]string{
	"application/vnd.oci.image.index.v1+json",
	"application/vnd.oci.image.manifest.v1+json",
	"application/vnd.docker.distribution.manifest.list.v2+json",
	"application/vnd.docker.distribution.manifest.v2+json",
}, ", ")

// head asks whether the mirror has a reference and returns its digest, or ErrNotFound.
func (m Mirror) head(ctx context.Context, ref name.Reference) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, mirrorTimeout)
	defer cancel()
	url := "http://" + m.Address + "/v2/" + m.repository(ref) + "/manifests/" + ref.Identifier()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, http.NoBody)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept", accepted)
	resp, err := mirrorClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	switch resp.StatusCode {
	case http.StatusOK:
		return resp.Header.Get("Docker-Content-Digest"), nil
	case http.StatusNotFound, http.StatusBadRequest:
		return "", ErrNotFound
	}
	return "", fmt.Errorf("asking %s: %s", url, resp.Status)
}

// registry is the mirror as a registry without TLS.
func (m Mirror) registry() (name.Registry, error) {
	registry, err := name.NewRegistry(m.Address, name.Insecure)
	if err != nil {
		return name.Registry{}, fmt.Errorf("local registry: %w", err)
	}
	return registry, nil
}

// target addresses a reference in the mirror, by tag or digest as it says. An address that is none
// gives a target that no request reaches.
func (m Mirror) target(ref name.Reference) name.Reference {
	if digest, ok := ref.(name.Digest); ok {
		return m.digest(ref, digest.DigestStr())
	}
	registry, _ := m.registry()
	return registry.Repo(m.repository(ref)).Tag(ref.Identifier())
}

// digest addresses a manifest in the mirror.
func (m Mirror) digest(ref name.Reference, hash string) name.Reference {
	registry, _ := m.registry()
	return registry.Repo(m.repository(ref)).Digest(hash)
}

// References lists what pods may call a tag in one of the mirror's repositories, the usual way first.
func (m Mirror) References(repository, tag string) []string {
	own := "/" + repository + ":" + tag
	out := []string{m.Address + own}
	if _, port, err := net.SplitHostPort(m.Address); err == nil {
		out = append(out, "localhost:"+port+own)
	}
	if foreign, ok := Reference(repository); ok {
		out = append([]string{foreign + ":" + tag}, out...)
	}
	return out
}

// readable writes a reference as List does.
func (m Mirror) readable(ref name.Reference) string {
	foreign, ok := Reference(m.repository(ref))
	if !ok {
		return ref.Name()
	}
	if digest, fixed := ref.(name.Digest); fixed {
		return foreign + "@" + digest.DigestStr()
	}
	return foreign + ":" + ref.Identifier()
}

// repository names the mirror's repository for a reference.
func (m Mirror) repository(ref name.Reference) string {
	if m.own(ref) {
		return ref.Context().RepositoryStr()
	}
	return Repository(ref)
}

// own says whether a reference names the mirror itself, by any of loopback's names.
func (m Mirror) own(ref name.Reference) bool {
	host, port, err := net.SplitHostPort(ref.Context().RegistryStr())
	if err != nil {
		return false
	}
	_, ours, err := net.SplitHostPort(m.Address)
	if err != nil || port != ours {
		return false
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback()
	}
	return host == "localhost"
}

// Repository is where the mirror keeps another registry's repository: the registry's name, with a
// port's colon written as "_", then the repository's. Docker Hub goes by "docker.io".
func Repository(ref name.Reference) string {
	registry := ref.Context().Registry
	if registry.Name() == name.DefaultRegistry {
		return "docker.io/" + ref.Context().RepositoryStr()
	}
	return encodeHost(registry.Name()) + "/" + ref.Context().RepositoryStr()
}

// Reference is the way back from Repository. A repository that belongs to no other registry is one
// of the mirror's own, and answers false.
func Reference(repository string) (string, bool) {
	host, rest, ok := strings.Cut(repository, "/")
	if !ok || rest == "" {
		return "", false
	}
	plain, port, withPort := strings.Cut(host, "_")
	if withPort && strings.Trim(port, "0123456789") != "" {
		return "", false
	}
	if !withPort && !strings.Contains(plain, ".") && plain != "localhost" {
		return "", false
	}
	return decodeHost(host) + "/" + rest, true
}

// encodeHost writes a registry's host as a repository's first part: lower case, no colons. An IPv6
// address is written in full with dashes, after "ip6.".
func encodeHost(host string) string {
	port := ""
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, "_"+p
	}
	host = strings.Trim(host, "[]")
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() {
		host = "ip6." + strings.ReplaceAll(ip.StringExpanded(), ":", "-")
	}
	return strings.ToLower(host) + port
}

func decodeHost(host string) string {
	host, port, withPort := strings.Cut(host, "_")
	if plain, ok := strings.CutPrefix(host, "ip6."); ok {
		if ip, err := netip.ParseAddr(strings.ReplaceAll(plain, "-", ":")); err == nil {
			host = "[" + ip.String() + "]"
		}
	}
	if withPort {
		return host + ":" + port
	}
	return host
}
