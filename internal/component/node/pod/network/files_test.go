package network_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ebb.dev/ebb/internal/component/node/pod/network"
)

func cluster(t *testing.T) network.Cluster {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("# the machine's\nnameserver 9.9.9.9\nsearch corp.example\noptions timeout:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return network.Cluster{Servers: []string{"10.96.0.10"}, Domain: "cluster.local", HostConf: path}
}

func TestResolve(t *testing.T) {
	two := "2"
	tests := map[string]struct {
		spec corev1.PodSpec
		want string
	}{
		"the cluster's first": {
			corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst},
			"search ns.svc.cluster.local svc.cluster.local cluster.local corp.example\nnameserver 10.96.0.10\noptions ndots:5\n",
		},
		"the machine's": {corev1.PodSpec{DNSPolicy: corev1.DNSDefault}, "search corp.example\nnameserver 9.9.9.9\noptions timeout:1\n"},
		"host network falls back to the machine's": {
			corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst, HostNetwork: true},
			"search corp.example\nnameserver 9.9.9.9\noptions timeout:1\n",
		},
		"host network with the cluster's": {
			corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirstWithHostNet, HostNetwork: true},
			"search ns.svc.cluster.local svc.cluster.local cluster.local corp.example\nnameserver 10.96.0.10\noptions ndots:5\n",
		},
		"only what the pod says": {
			corev1.PodSpec{DNSPolicy: corev1.DNSNone, DNSConfig: &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1", "1.1.1.1"}, Searches: []string{"x.example"}}},
			"search x.example\nnameserver 1.1.1.1\n",
		},
		"options are merged": {
			corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst, DNSConfig: &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &two}, {Name: "edns0"}}}},
			"search ns.svc.cluster.local svc.cluster.local cluster.local corp.example\nnameserver 10.96.0.10\noptions ndots:2 edns0\n",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: tc.spec}
			got, err := network.Resolve(pod, cluster(t))
			if err != nil || got.String() != tc.want {
				t.Errorf("got %q, %v, want %q", got.String(), err, tc.want)
			}
		})
	}
}

func TestHostnameAndHosts(t *testing.T) {
	yes := true
	tests := map[string]struct {
		pod          corev1.Pod
		host, domain string
		hosts        string // one line of the file
	}{
		"the pod's name":     {corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-0"}}, "web-0", "", "10.0.0.5\tweb-0\n"},
		"a long name is cut": {corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: strings.Repeat("a", 62) + "-bc"}}, strings.Repeat("a", 62), "", ""},
		"with a subdomain": {
			corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: "ns"}, Spec: corev1.PodSpec{Hostname: "db", Subdomain: "sub"}},
			"db", "sub.ns.svc.cluster.local", "10.0.0.5\tdb.sub.ns.svc.cluster.local\tdb\n",
		},
		"as a full name": {
			corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: "ns"}, Spec: corev1.PodSpec{Hostname: "db", Subdomain: "sub", SetHostnameAsFQDN: &yes}},
			"db.sub.ns.svc.cluster.local", "sub.ns.svc.cluster.local", "10.0.0.5\tdb.sub.ns.svc.cluster.local\t",
		},
		"the node's on its network": {corev1.Pod{Spec: corev1.PodSpec{HostNetwork: true}}, "node", "", ""},
		"aliases are added": {
			corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: corev1.PodSpec{HostAliases: []corev1.HostAlias{{IP: "1.2.3.4", Hostnames: []string{"a", "b"}}}}},
			"x", "", "1.2.3.4\ta\tb\n",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			host, domain := network.Hostname(&tc.pod, "node", cluster(t))
			if host != tc.host || domain != tc.domain {
				t.Errorf("got %q and %q", host, domain)
			}
			text, err := network.Hosts(&tc.pod, []string{"10.0.0.5"}, host, domain)
			if err != nil || !strings.Contains(text, tc.hosts) {
				t.Errorf("hosts = %q, %v", text, err)
			}
		})
	}
}
