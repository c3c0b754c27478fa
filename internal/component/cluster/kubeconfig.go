package cluster

import (
	"fmt"
	"net"
	"os"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"ebb.dev/ebb/internal/component/cluster/pki"
)

// contextName is what the kubeconfig calls its cluster, user and context.
const contextName = "ebb"

// writeKubeconfig writes the administrator's kubeconfig, certificates inside, so that the one file
// can be copied.
func writeKubeconfig(path, address string, f files) error {
	cert, err := os.ReadFile(f.admin.CertFile)
	if err != nil {
		return fmt.Errorf("writing kubeconfig: %w", err)
	}
	key, err := os.ReadFile(f.admin.KeyFile)
	if err != nil {
		return fmt.Errorf("writing kubeconfig: %w", err)
	}
	kc := clientcmdapi.NewConfig()
	kc.Clusters[contextName] = &clientcmdapi.Cluster{Server: "https://" + reachable(address), CertificateAuthorityData: f.ca.PEM()}
	kc.AuthInfos[contextName] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	kc.Contexts[contextName] = &clientcmdapi.Context{Cluster: contextName, AuthInfo: contextName, Namespace: "default"}
	kc.CurrentContext = contextName
	data, err := clientcmd.Write(*kc)
	if err != nil {
		return fmt.Errorf("encoding kubeconfig: %w", err)
	}
	return pki.WriteFile(path, data)
}

// reachable turns a listen address into one to dial.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host != "" && !net.ParseIP(host).IsUnspecified() {
		return address
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// clientConfig is for a client in this process. The dialer of its own keeps the parts on separate
// connections: client-go would let all that share TLS settings share one.
func (c *Cluster) clientConfig(token string) *rest.Config {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &rest.Config{
		Host:               "https://" + reachable(c.cfg.APIAddress),
		BearerToken:        token,
		TLSClientConfig:    rest.TLSClientConfig{CAData: c.files.ca.PEM()},
		Dial:               dialer.DialContext,
		WrapTransport:      c.cfg.Transport,
		DisableCompression: true,
		QPS:                -1,
	}
}
