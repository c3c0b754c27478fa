package vault

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// A Filter says which servers may be asked: whoever may write authentications may otherwise have
// tokens sent anywhere.
type Filter struct {
	// Mode is off (the default), warn or enforce.
	Mode string `json:"mode"`
	// Allowed are the origins of servers: https://vault.example:8200.
	Allowed []string `json:"allowedEndpoints"`
}

// ParseFilter reads a Filter as KEDA_OUTBOUND_FILTER has it: YAML or JSON with a section
// hashiCorpVault.
func ParseFilter(text string) (Filter, error) {
	all := struct {
		Vault *Filter `json:"hashiCorpVault"`
	}{Vault: &Filter{Mode: "off"}}
	if err := yaml.UnmarshalStrict([]byte(text), &all); err != nil {
		return Filter{}, fmt.Errorf("reading KEDA_OUTBOUND_FILTER: %w", err)
	}
	if all.Vault == nil || all.Vault.Mode == "" {
		return Filter{}, errors.New("KEDA_OUTBOUND_FILTER.hashiCorpVault.mode must be off, warn, or enforce")
	}
	return *all.Vault, all.Vault.validate()
}

func (f Filter) validate() error {
	switch f.Mode {
	case "", "off", "warn", "enforce":
	default:
		return fmt.Errorf("unsupported KEDA_OUTBOUND_FILTER.hashiCorpVault.mode %q: expected off, warn, or enforce", f.Mode)
	}
	for _, a := range f.Allowed {
		u, err := url.Parse(a)
		if err != nil || origin(a) == "" || strings.Contains(u.Host, "*") || strings.Trim(u.Path, "/") != "" || u.RawQuery+u.Fragment != "" {
			return errors.New("invalid KEDA_OUTBOUND_FILTER.hashiCorpVault.allowedEndpoints entry: expected an HTTP(S) origin without user information")
		}
	}
	return nil
}

// origin is scheme and host of an address, in lower case; empty if it has no such, or a password.
func origin(address string) string {
	u, err := url.Parse(strings.TrimSpace(address))
	if err != nil || u.User != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return ""
	}
	return u.Scheme + "://" + strings.ToLower(u.Host)
}

// check tells whether a server may be asked.
func (f Filter) check(address string, log *slog.Logger) error {
	if f.Mode == "" || f.Mode == "off" {
		return nil
	}
	at := origin(address)
	if at != "" && slices.ContainsFunc(f.Allowed, func(a string) bool { return origin(a) == at }) {
		return nil
	}
	if f.Mode == "warn" {
		log.Warn("Vault's server is not among the allowed ones; credentials may be sent where they should not", "vault", at)
		return nil
	}
	if len(f.Allowed) == 0 {
		return errors.New("no outbound endpoint allowlist is configured in enforce mode (KEDA_OUTBOUND_FILTER.hashiCorpVault.allowedEndpoints)")
	}
	return fmt.Errorf("vault endpoint %q is not in the configured allowlist (KEDA_OUTBOUND_FILTER.hashiCorpVault.allowedEndpoints)", at)
}
