package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Keda is what KEDA's programs read from their environment and what matters here, too. Its zero value is
// KEDA's default.
type Keda struct {
	// Namespaces are those whose objects are looked at; all if there is none.
	Namespaces []string
	// Timeout bounds one request to a trigger's server; 0 for the default.
	Timeout time.Duration
	// NoKeepAlive has each request to a trigger's server have a connection of its own.
	NoKeepAlive bool
	// MinTLS is the oldest version of TLS spoken with triggers' servers, Ciphers those offered up to 1.2; 0
	// and none for the defaults.
	MinTLS  uint16
	Ciphers []uint16
	// ClusterObjects is the namespace of what ClusterTriggerAuthentications refer to; "" for the default.
	ClusterObjects string
	// RestrictSecrets has Secrets be read there only.
	RestrictSecrets bool
	// TokenExpiry is how long service accounts' tokens are valid; 0 for the default.
	TokenExpiry time.Duration
	// TokenAudiences, in YAML, are those that tokens may be made for.
	TokenAudiences string
	// OutboundFilter, in YAML, says which servers tokens may be sent to.
	OutboundFilter string
}

// errVariable says that a variable has a value that it cannot have.
var errVariable = errors.New("it cannot be that")

// variables are read by name.
var variables = map[string]func(k *Keda, value string) error{
	"WATCH_NAMESPACE": func(k *Keda, value string) error {
		for namespace := range strings.SplitSeq(value, ",") {
			if namespace = strings.TrimSpace(namespace); namespace != "" && namespace != `""` {
				k.Namespaces = append(k.Namespaces, namespace)
			}
		}
		return nil
	},
	"KEDA_HTTP_DEFAULT_TIMEOUT": func(k *Keda, value string) error {
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil || n <= 0 {
			return fmt.Errorf("%w: a number of milliseconds", errVariable)
		}
		k.Timeout = time.Duration(n) * time.Millisecond
		return nil
	},
	"KEDA_HTTP_DISABLE_KEEP_ALIVE": func(k *Keda, value string) error { return boolean(&k.NoKeepAlive, value) },
	"KEDA_HTTP_MIN_TLS_VERSION": func(k *Keda, value string) error {
		version, known := map[string]uint16{
			"TLS10": tls.VersionTLS10, "TLS11": tls.VersionTLS11, "TLS12": tls.VersionTLS12, "TLS13": tls.VersionTLS13,
		}[value]
		if !known {
			return fmt.Errorf("%w: TLS10, TLS11, TLS12 or TLS13", errVariable)
		}
		k.MinTLS = version
		return nil
	},
	"KEDA_HTTP_TLS_CIPHER_LIST":     func(k *Keda, value string) error { return k.ciphers(value) },
	"KEDA_CLUSTER_OBJECT_NAMESPACE": func(k *Keda, value string) error { k.ClusterObjects = value; return nil },
	"KEDA_RESTRICT_SECRET_ACCESS":   func(k *Keda, value string) error { return boolean(&k.RestrictSecrets, value) },
	"KEDA_BOUND_SERVICE_ACCOUNT_TOKEN_EXPIRY": func(k *Keda, value string) error {
		d, err := time.ParseDuration(value)
		if err != nil || d < time.Hour || d > 6*time.Hour {
			return fmt.Errorf("%w: a duration of 1h to 6h", errVariable)
		}
		k.TokenExpiry = d
		return nil
	},
	"KEDA_SERVICE_ACCOUNT_TOKEN_AUDIENCES": func(k *Keda, value string) error { k.TokenAudiences = value; return nil },
	"KEDA_OUTBOUND_FILTER":                 func(k *Keda, value string) error { k.OutboundFilter = value; return nil },
}

// ReadKeda reads the environment, which os.LookupEnv knows. Values that KEDA would only complain about in
// its log are errors.
func ReadKeda(lookup func(name string) (string, bool)) (Keda, error) {
	var k Keda
	var errs []error
	for name, set := range variables {
		value, given := lookup(name)
		if !given || strings.TrimSpace(value) == "" {
			continue
		}
		if err := set(&k, strings.TrimSpace(value)); err != nil {
			errs = append(errs, fmt.Errorf("reading %s, which is %q: %w", name, value, err))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return k, errors.Join(errs...)
}

func boolean(into *bool, value string) (err error) {
	if *into, err = strconv.ParseBool(strings.ToLower(value)); err != nil {
		return fmt.Errorf("%w: true or false", errVariable)
	}
	return nil
}

// ciphers reads names as Go has them, between commas or colons.
func (k *Keda) ciphers(value string) error {
	for name := range strings.SplitSeq(strings.ReplaceAll(value, ",", ":"), ":") {
		i := slices.IndexFunc(tls.CipherSuites(), func(c *tls.CipherSuite) bool { return c.Name == strings.TrimSpace(name) })
		if i < 0 {
			return fmt.Errorf("%w: there is no cipher suite %q", errVariable, name)
		}
		k.Ciphers = append(k.Ciphers, tls.CipherSuites()[i].ID)
	}
	return nil
}

// Watches tells whether objects of a namespace are looked at; those of none always are.
func (k *Keda) Watches(namespace string) bool {
	return namespace == "" || len(k.Namespaces) == 0 || slices.Contains(k.Namespaces, namespace)
}
