package cluster

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ebb.dev/ebb/internal/component/cluster/pki"
	"ebb.dev/ebb/internal/platform/config"
)

// APIServerUser is the common name the API server shows to nodes.
const APIServerUser = "kube-apiserver-kubelet-client"

// renewEvery is how often certificates are looked at while running.
const renewEvery = 12 * time.Hour

// files are the keys and certificates the parts are given by name.
type files struct {
	ca, front          *pki.Authority
	serving, kubelet   pki.Pair
	proxy, admin       pki.Pair
	tokenKey, tokenPub string
	localCert          func(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// prepareFiles makes or renews whatever is missing or near its end.
func prepareFiles(cfg Config, now time.Time) (f files, err error) {
	dir := cfg.Folder.PKI()
	if f.ca, err = pki.LoadAuthority(dir, "ca", now); err != nil {
		return f, err
	}
	if f.front, err = pki.LoadAuthority(dir, "front-proxy-ca", now); err != nil {
		return f, err
	}
	if f.tokenKey, f.tokenPub, err = pki.Key(dir, "service-account"); err != nil {
		return f, err
	}
	issues := []struct {
		pair *pki.Pair
		by   *pki.Authority
		leaf pki.Leaf
	}{
		{&f.serving, f.ca, servingLeaf(cfg)},
		{&f.kubelet, f.ca, pki.Leaf{Name: "apiserver-kubelet-client", Common: APIServerUser, Groups: []string{"system:masters"}, Client: true}},
		{&f.admin, f.ca, pki.Leaf{Name: "admin", Common: "admin", Groups: []string{"system:masters"}, Client: true}},
		{&f.proxy, f.front, pki.Leaf{Name: "front-proxy-client", Client: true}},
	}
	for _, i := range issues {
		if *i.pair, err = i.by.Issue(i.leaf, now); err != nil {
			return f, err
		}
	}
	if f.localCert, err = localCertificate(f.ca, cfg.Locals); err != nil {
		return f, err
	}
	return f, writeKubeconfig(cfg.Folder.Kubeconfig(), cfg.APIAddress, f)
}

func servingLeaf(cfg Config) pki.Leaf {
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	ips := []netip.Addr{netip.MustParseAddr("127.0.0.1"), cfg.ID.NodeIP(), cfg.ID.APIServiceIP()}
	if host, _, err := net.SplitHostPort(cfg.APIAddress); err == nil {
		if ip, err := netip.ParseAddr(host); err == nil && ip != ips[0] && !ip.IsUnspecified() {
			ips = append(ips, ip)
		}
	}
	return pki.Leaf{Name: "apiserver", Common: "kube-apiserver", DNS: names, IPs: ips, Server: true}
}

// nodeTLS issues at each handshake what is on disk, renewed when near its end.
func nodeTLS(ca *pki.Authority, name string, addresses []netip.Addr) (*tls.Config, error) {
	leaf := pki.Leaf{Name: "node-" + name, Common: "system:node:" + name, Groups: []string{"system:nodes"}, DNS: []string{name, "localhost"}, IPs: append([]netip.Addr{netip.MustParseAddr("127.0.0.1")}, addresses...), Server: true}
	certificate, err := ca.Server(leaf)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: certificate,
		ClientCAs:      ca.Pool(),
		ClientAuth:     tls.VerifyClientCertIfGiven,
	}, nil
}

func localCertificate(ca *pki.Authority, all []Local) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	if len(all) == 0 {
		return nil, nil
	}
	leaf := pki.Leaf{Name: "local-services", Server: true}
	for _, l := range all {
		leaf.DNS = append(leaf.DNS, l.serverName())
	}
	return ca.Server(leaf)
}

// The users that this process's own clients are.
const (
	ebbUser         = "system:ebb"
	controllersUser = "system:kube-controller-manager"
	schedulerUser   = "system:kube-scheduler"
)

// credentials are bearer tokens of this process's own clients, new at every start.
type credentials struct {
	ebb, controllers, scheduler string
	file                        string
}

// newCredentials writes the token file the API server reads once. Tokens cost it a map lookup where
// a client certificate costs a signature check on every request.
func newCredentials(folder config.Folder) (credentials, error) {
	c := credentials{file: filepath.Join(folder.PKI(), "tokens.csv")}
	var text strings.Builder
	w := csv.NewWriter(&text)
	for user, token := range map[string]*string{
		ebbUser:         &c.ebb,
		controllersUser: &c.controllers,
		schedulerUser:   &c.scheduler,
	} {
		var raw [32]byte
		if _, err := rand.Read(raw[:]); err != nil {
			return c, fmt.Errorf("making a token: %w", err)
		}
		*token = hex.EncodeToString(raw[:])
		if err := w.Write([]string{*token, user, user, "system:masters"}); err != nil {
			return c, fmt.Errorf("writing tokens: %w", err)
		}
	}
	w.Flush()
	return c, pki.WriteFile(c.file, []byte(text.String()))
}

// forget removes the token file, which has been read.
func (c credentials) forget() error { return os.Remove(c.file) }

// renew keeps certificates fresh in a process that runs for long; those who use them reread the files.
func (c *Cluster) renew(ctx context.Context) {
	t := time.NewTicker(renewEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			if _, err := prepareFiles(c.cfg, now); err != nil {
				c.log.Error("renewing certificates", "error", err)
			}
		}
	}
}
