package server

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"
	netapi "knative.dev/networking/pkg/apis/networking"

	"ebb.dev/ebb/internal/component/keyring"
	"ebb.dev/ebb/internal/platform/authority"
	"ebb.dev/ebb/internal/platform/config"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// The Secret with the authority of https certificates, and the ConfigMap that shows it to those who
// are to trust it.
const (
	authoritySecret = "certificate-authority"
	authorityBundle = "ebb-certificate-authority"
)

// openAuthority reads or makes the authority of https certificates.
func (s *Server) openAuthority(ctx context.Context) error {
	log := s.log.With("part", "certificates")
	keeper, err := authority.Open(ctx, authority.KeeperConfig{
		Client: s.client, Secret: types.NamespacedName{Namespace: settings.Namespace, Name: authoritySecret},
		Labels: map[string]string{netapi.CertificateUIDLabelKey: "authority"}, Log: log,
	})
	if err != nil {
		return err
	}
	s.authority = keeper
	s.keys = keyring.New(keyring.Config{Client: s.client, Authority: keeper, Log: log})
	return nil
}

// followAuthority shows the authority, now and whenever it changes. The settings' admission must
// answer by then, as it is asked about every ConfigMap beside them.
func (s *Server) followAuthority(ctx context.Context) error {
	if err := s.showAuthority(ctx); err != nil {
		return err
	}
	s.authority.Subscribe(func() {
		if err := s.showAuthority(context.WithoutCancel(ctx)); err != nil {
			s.log.Error("showing the new certificate authority", "part", "certificates", "error", err)
		}
	})
	return s.say(func(st *Status) { st.Trust = s.folder.Trust() })
}

// showAuthority writes the authority's certificate where clients find it: a file on this machine and,
// for pods, a ConfigMap with the label of trust bundles.
func (s *Server) showAuthority(ctx context.Context) error {
	pem := s.authority.Current().PEM()
	if err := config.WriteFile(s.folder.Trust(), pem); err != nil {
		return err
	}
	bundle := coreac.ConfigMap(authorityBundle, settings.Namespace).
		WithLabels(map[string]string{netapi.TrustBundleLabelKey: "true"}).
		WithData(map[string]string{authority.AuthorityKey: string(pem)})
	if _, err := s.client.CoreV1().ConfigMaps(settings.Namespace).Apply(ctx, bundle, owner); err != nil {
		return fmt.Errorf("showing the certificate authority: %w", err)
	}
	return nil
}
