package cluster

import (
	"fmt"
	"strings"

	apimachineryversion "k8s.io/apimachinery/pkg/version"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	basecompatibility "k8s.io/component-base/compatibility"
)

// kubernetesVersion is the release linked in; a test keeps it equal to go.mod's.
const kubernetesVersion = "v1.36.4"

// stamped reports a real git version even in a binary linked without
//
//	-ldflags "-X k8s.io/component-base/version.gitVersion=v1.36.4"
//
// because clients compare it with the least they need.
type stamped struct {
	basecompatibility.EffectiveVersion
}

func (s stamped) Info() *apimachineryversion.Info {
	info := s.EffectiveVersion.Info()
	if info != nil && strings.HasPrefix(info.GitVersion, "v0.0.0") {
		info.GitVersion, info.GitCommit, info.GitTreeState = kubernetesVersion, "", ""
	}
	return info
}

// features turned from their defaults: they serve many API servers, and write leases all the time.
var features = map[string]bool{"APIServerIdentity": false, "UnknownVersionInteroperabilityProxy": false}

// setFeatures sets the gates that all parts share, once.
func setFeatures() error {
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(features); err != nil {
		return fmt.Errorf("setting feature gates: %w", err)
	}
	return nil
}
