// Package network writes the files by which a container knows the network: hosts, resolv.conf and
// hostname.
package network

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The limits the resolver library and Kubernetes put on resolv.conf.
const (
	maxServers  = 3
	maxSearch   = 32
	maxSearches = 2048 // characters in total
	maxHostname = 63
)

// Cluster is what DNS settings are made from.
type Cluster struct {
	Servers  []string // the cluster's DNS
	Domain   string   // "cluster.local"
	HostConf string   // the machine's resolv.conf
}

// Hostname is the pod's, and its domain where it has one.
func Hostname(pod *corev1.Pod, nodeName string, c Cluster) (host, domain string) {
	if pod.Spec.HostnameOverride != nil {
		return *pod.Spec.HostnameOverride, ""
	}
	if pod.Spec.HostNetwork {
		return nodeName, ""
	}
	host = pod.Name
	if pod.Spec.Hostname != "" {
		host = pod.Spec.Hostname
	}
	if len(host) > maxHostname {
		host = strings.TrimRight(host[:maxHostname], "-.")
	}
	if pod.Spec.Subdomain != "" {
		domain = pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + c.Domain
	}
	if domain != "" && pod.Spec.SetHostnameAsFQDN != nil && *pod.Spec.SetHostnameAsFQDN {
		host = host + "." + domain
	}
	return host, domain
}

// Hosts is the pod's /etc/hosts.
func Hosts(pod *corev1.Pod, ips []string, host, domain string) (string, error) {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		own, err := os.ReadFile("/etc/hosts")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("reading the machine's hosts file: %w", err)
		}
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.Write(own)
	} else {
		b.WriteString("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		for _, ip := range ips {
			b.WriteString(ip + "\t")
			if domain != "" {
				b.WriteString(strings.TrimSuffix(host, "."+domain) + "." + domain + "\t")
			}
			b.WriteString(host + "\n")
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			b.WriteString(a.IP + "\t" + strings.Join(a.Hostnames, "\t") + "\n")
		}
	}
	return b.String(), nil
}

// Resolver is the contents of a resolv.conf.
type Resolver struct{ Servers, Search, Options []string }

// Resolve computes the pod's resolver from its DNS policy and config.
func Resolve(pod *corev1.Pod, c Cluster) (Resolver, error) {
	host, err := readResolver(c.HostConf)
	if err != nil {
		return host, err
	}
	policy := pod.Spec.DNSPolicy
	if policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork {
		policy = corev1.DNSDefault
	}
	var r Resolver
	switch policy {
	case corev1.DNSNone:
	case corev1.DNSDefault:
		r = host
	default:
		r = Resolver{
			Servers: slices.Clone(c.Servers),
			Search: append([]string{pod.Namespace + ".svc." + c.Domain, "svc." + c.Domain, c.Domain},
				host.Search...),
			Options: []string{"ndots:5"},
		}
	}
	if cfg := pod.Spec.DNSConfig; cfg != nil {
		r.Servers = unique(append(r.Servers, cfg.Nameservers...))
		r.Search = unique(append(r.Search, cfg.Searches...))
		r.Options = mergeOptions(r.Options, cfg.Options)
	}
	r.trim()
	return r, nil
}

func (r *Resolver) trim() {
	r.Servers = r.Servers[:min(len(r.Servers), maxServers)]
	r.Search = unique(r.Search)
	r.Search = r.Search[:min(len(r.Search), maxSearch)]
	for len(strings.Join(r.Search, " ")) > maxSearches {
		r.Search = r.Search[:len(r.Search)-1]
	}
}

// String is the file.
func (r Resolver) String() string {
	var b strings.Builder
	if len(r.Search) > 0 {
		b.WriteString("search " + strings.Join(r.Search, " ") + "\n")
	}
	for _, s := range r.Servers {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(r.Options) > 0 {
		b.WriteString("options " + strings.Join(r.Options, " ") + "\n")
	}
	return b.String()
}

func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func mergeOptions(base []string, more []corev1.PodDNSConfigOption) []string {
	out := slices.Clone(base)
	for _, o := range more {
		text := o.Name
		if o.Value != nil && *o.Value != "" {
			text += ":" + *o.Value
		}
		out = slices.DeleteFunc(out, func(have string) bool {
			name, _, _ := strings.Cut(have, ":")
			return name == o.Name
		})
		out = append(out, text)
	}
	return out
}

// readResolver parses the machine's file; a machine without one resolves nothing.
func readResolver(path string) (Resolver, error) {
	var r Resolver
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("reading the machine's resolver settings: %w", err)
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		fields := strings.Fields(scan.Text())
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			r.Servers = append(r.Servers, fields[1])
		case "search":
			r.Search = fields[1:]
		case "options":
			r.Options = fields[1:]
		}
	}
	return r, scan.Err()
}
