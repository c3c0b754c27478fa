package prometheus

import (
	"errors"
	"fmt"

	"github.com/kedacore/keda/v2/apis/keda/v1alpha1"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

// googleScope is what reading of Google's managed Prometheus needs.
const googleScope = "https://www.googleapis.com/auth/monitoring.read"

// identify has queries signed for a cloud's managed Prometheus. Those that upstream signs in a way that
// is not built in are refused, rather than sent unsigned.
func identify(c trigger.Config, p *parameters, client *endpoint.HTTPConfig) error {
	provider := c.PodIdentity.Provider
	if provider == v1alpha1.PodIdentityProviderNone {
		provider = ""
	}
	if len(p.Auth.Modes) > 0 {
		if provider != "" {
			return errors.New("pod identity cannot be enabled with other auth types")
		}
		return nil
	}
	key := c.AuthParams["GoogleApplicationCredentials"]
	if key == "" {
		key = c.ResolvedEnv[c.TriggerMetadata["credentialsFromEnv"]]
	}
	switch {
	case provider == v1alpha1.PodIdentityProviderGCP:
		return client.Google("", googleScope)
	case provider != "":
		return missing(fmt.Sprintf("pod identity %q", provider))
	case signsForAWS(c, p):
		return missing("signing by AWS credentials")
	case key != "":
		return client.Google(key, googleScope)
	case c.TriggerMetadata["credentialsFromEnvFile"] != "":
		// The file would be one of this machine's, which whoever writes a trigger has no say over.
		return missing("reading credentialsFromEnvFile")
	default:
		return nil
	}
}

func missing(what string) error {
	return fmt.Errorf("%s is not built in; use authModes bearer, oauth, basic, custom or tls, or a proxy that signs", what)
}

// signsForAWS tells whether upstream would sign: it has credentials, or is to use the operator's.
func signsForAWS(c trigger.Config, p *parameters) bool {
	switch p.Owner {
	case "operator":
		return true
	case "", "pod":
		id := c.TriggerMetadata["awsAccessKeyID"] != "" || c.ResolvedEnv[c.TriggerMetadata["awsAccessKeyIDFromEnv"]] != ""
		return c.AuthParams["awsRoleArn"] != "" || c.AuthParams["awsSecretAccessKey"] != "" ||
			id && c.ResolvedEnv[c.TriggerMetadata["awsSecretAccessKeyFromEnv"]] != ""
	default:
		return false
	}
}
