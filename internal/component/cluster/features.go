package cluster

import (
	"fmt"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
)

// features turned from their defaults: they serve many API servers, and write leases all the time.
var features = map[string]bool{"APIServerIdentity": false, "UnknownVersionInteroperabilityProxy": false}

// setFeatures sets the gates that all parts share.
func setFeatures() error {
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(features); err != nil {
		return fmt.Errorf("setting feature gates: %w", err)
	}
	return nil
}
