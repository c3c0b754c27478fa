package certificate

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	netcfg "knative.dev/networking/pkg/config"
)

// State is how far a host has come on its way to be served by TLS.
//
//	Off    nobody asked for it
//	Wanted ─► Ready
//	   │└───► Failed
//	   └────► Plain (served without it meanwhile)
//	Foreign  the certificate's name is another owner's
type State int

// The states of a host.
const (
	Off State = iota
	Wanted
	Plain
	Ready
	Failed
	Foreign
)

// Secure tells whether URLs of the host are https.
func (s State) Secure() bool { return s == Wanted || s == Ready || s == Failed }

// StateOf judges the certificate that stands for a wanted one: have is nil while it is not there. While
// it is not ready and plain HTTP is served anyway, hosts stay with that.
func StateOf(want, have *netv1alpha1.Certificate, network *netcfg.Config) State {
	ready, failed := have != nil && have.IsReady(), have != nil && have.IsFailed()
	switch {
	case have != nil && have.Name == want.Name && !sameOwner(want, have):
		return Foreign
	case ready:
		return Ready
	case KindOf(want) == netcfg.CertificateExternalDomain && network.HTTPProtocol == netcfg.HTTPEnabled:
		return Plain
	case failed:
		return Failed
	}
	return Wanted
}

func sameOwner(a, b metav1.Object) bool {
	x, y := metav1.GetControllerOf(a), metav1.GetControllerOf(b)
	return x != nil && y != nil && x.UID == y.UID
}
