package traffic

import (
	"errors"
	"fmt"
	"strings"
)

// maxHost is the longest name DNS allows.
const maxHost = 253

// canonical strips the port and a trailing dot and lowers the case, without allocating for a host
// that is in lower case already. It answers false to what cannot be a host with a port.
func canonical(host string) (string, bool) {
	if strings.HasPrefix(host, "[") {
		return "", false // an IPv6 address names no route
	}
	if i := strings.IndexByte(host, ':'); i >= 0 {
		for _, c := range []byte(host[i+1:]) {
			if c < '0' || c > '9' {
				return "", false
			}
		}
		host = host[:i]
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > maxHost {
		return "", false
	}
	for i := range len(host) {
		if c := host[i]; c >= 'A' && c <= 'Z' {
			return strings.ToLower(host), true
		}
	}
	return host, true
}

// unfit are characters that no host has.
const unfit = "/\\@ \t\r\n*"

// Sharable tells whether a rule with a Way may have a host: a name, a wildcard of one, or "*" or nothing
// for any.
func Sharable(host string) bool {
	name, wild := wildcard(host)
	if wild && name == "" {
		return host != "*."
	}
	name, ok := canonical(name)
	return ok && !strings.ContainsAny(name, unfit)
}

// check tells what is wrong with a rule.
func check(r *Rule) error {
	host, ok := canonical(r.Host)
	if r.Way != nil {
		ok = Sharable(r.Host)
	} else {
		ok = ok && !strings.ContainsAny(host, unfit)
	}
	if !ok {
		return fmt.Errorf("%w: route %s: %q is not a host", ErrInvalid, r.Route, r.Host)
	}
	if r.Backend != "" && len(r.Targets) > 0 {
		return fmt.Errorf("%w: route %s, host %s: has targets and a backend", ErrInvalid, r.Route, host)
	}
	if r.Backend != "" || r.Like != "" {
		return nil
	}
	if err := checkShares(r.Targets); err != nil {
		return fmt.Errorf("%w: route %s, host %s: %w", ErrInvalid, r.Route, host, err)
	}
	for tag, targets := range r.TagHeader {
		if err := checkShares(targets); err != nil {
			return fmt.Errorf("%w: route %s, host %s, tag %q: %w", ErrInvalid, r.Route, host, tag, err)
		}
	}
	return nil
}

func checkShares(targets []Target) error {
	sum := 0
	for _, t := range targets {
		if t.Percent < 0 || t.Percent > 100 {
			return fmt.Errorf("revision %s has %d percent", t.Revision, t.Percent)
		}
		if t.Revision.Name == "" {
			return errors.New("a target names no revision")
		}
		sum += t.Percent
	}
	if sum != 100 {
		return fmt.Errorf("shares sum to %d percent, not 100", sum)
	}
	return nil
}
