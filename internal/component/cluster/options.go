package cluster

import (
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"
	"k8s.io/kubernetes/pkg/kubeapiserver/authorizer/modes"
)

// issuer names the signer of service-account tokens, as upstream's defaults do.
const issuer = "https://kubernetes.default.svc.cluster.local"

// apiServerOptions is the command line kube-apiserver would be given.
func apiServerOptions(c *Cluster, listener net.Listener) *options.ServerRunOptions {
	s := options.NewServerRunOptions()
	f := &c.files

	s.Etcd.StorageConfig.Transport.ServerList = []string{c.etcd.endpoint}
	s.SecureServing.Listener = listener
	s.SecureServing.ServerCert.CertKey.CertFile = f.serving.CertFile
	s.SecureServing.ServerCert.CertKey.KeyFile = f.serving.KeyFile
	s.GenericServerRunOptions.AdvertiseAddress = net.IP(c.cfg.ID.NodeIP().AsSlice())
	// Watches are ended by closing their connections; waiting for them would take the whole timeout.
	s.GenericServerRunOptions.ShutdownWatchTerminationGracePeriod = 2 * time.Second
	s.GenericServerRunOptions.ShutdownSendRetryAfter = true

	s.Authentication.ClientCert.ClientCA = f.ca.CertFile
	s.Authentication.TokenFile.TokenFile = c.creds.file
	s.Authentication.RequestHeader.ClientCAFile = f.front.CertFile
	s.Authentication.RequestHeader.AllowedNames = []string{"front-proxy-client"}
	s.Authentication.RequestHeader.UsernameHeaders = []string{"X-Remote-User"}
	s.Authentication.RequestHeader.UIDHeaders = []string{"X-Remote-Uid"}
	s.Authentication.RequestHeader.GroupHeaders = []string{"X-Remote-Group"}
	s.Authentication.RequestHeader.ExtraHeaderPrefixes = []string{"X-Remote-Extra-"}
	s.Authentication.ServiceAccounts.Issuers = []string{issuer}
	s.Authentication.ServiceAccounts.KeyFiles = []string{f.tokenPub}
	s.ServiceAccountSigningKeyFile = f.tokenKey
	s.ProxyClientCertFile, s.ProxyClientKeyFile = f.proxy.CertFile, f.proxy.KeyFile
	s.Authorization.Modes = []string{modes.ModeNode, modes.ModeRBAC}
	plugins := s.Admission.GenericAdmission
	plugins.Plugins.Register(leanPlugin, newLean)
	plugins.RecommendedPluginOrder = append([]string{leanPlugin}, plugins.RecommendedPluginOrder...)
	plugins.EnablePlugins = []string{"NodeRestriction", leanPlugin}

	s.AllowPrivileged = true
	s.ServiceClusterIPRanges = c.cfg.ID.ServiceCIDR().String()
	// One API server needs no lease to say that it lives.
	s.EndpointReconcilerType = string(reconcilers.MasterCountReconcilerType)
	s.KubeletConfig.PreferredAddressTypes = []string{string(corev1.NodeInternalIP), string(corev1.NodeExternalIP), string(corev1.NodeHostName)}
	s.KubeletConfig.TLSClientConfig.CAFile = f.ca.CertFile
	s.KubeletConfig.TLSClientConfig.CertFile = f.kubelet.CertFile
	s.KubeletConfig.TLSClientConfig.KeyFile = f.kubelet.KeyFile
	return s
}
