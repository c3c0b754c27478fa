// Package traffic is the route table: which revisions answer for a host, and in what shares.
//
// A Table is built once from rules and never changes; a change of routes swaps the whole table.
// Matching is one map look-up, whatever the number of routes. Only where rules share a host, each
// with its Way to a part of the requests, paths and header fields are looked at as well.
package traffic

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// ErrInvalid is wrapped by every complaint Build makes about a rule.
var ErrInvalid = errors.New("invalid route")

// Target is one revision's share of a rule's requests.
type Target struct {
	// Revision answers the request.
	Revision types.NamespacedName
	// Percent of requests it gets; a rule's targets sum to 100.
	Percent int
	// Tag is the target's name within its route, if it has one.
	Tag string
}

// Rule says who answers for one host.
type Rule struct {
	// Host is matched without port, case or trailing dot.
	Host string
	// Way, if not nil, narrows the rule to a part of the host's requests and lets it share the host
	// with others of its kind. Such a host may also be "*.domain", or "*" for any.
	Way *Way
	// ClusterLocal hosts are known inside the cluster only.
	ClusterLocal bool
	// Route is where the rule comes from.
	Route types.NamespacedName
	// Targets share the requests.
	Targets []Target
	// HostRewrite, if set, replaces the Host the application sees. A rule that is like another's
	// host has it for its backend only: a revision sees the host the client asked for.
	HostRewrite string
	// TagHeader, if not nil, lets a request choose a tag by header on the main host: tag to targets.
	TagHeader map[string][]Target
	// Tag is set for the host of one tag.
	Tag string
	// Like, if set, is another host of the table: its targets and tags are this rule's, too. Rules
	// that are like others come last in the contest for a host, and are not like each other.
	Like string
	// Backend, if set, answers when no rule has targets for the host: the address ("name:port") of
	// a server that is no revision. It is empty in a rule that has targets.
	Backend string
	// Secret holds the host's certificate and key; without a name there is none.
	Secret types.NamespacedName
	// Redirect sends plain requests from outside to https.
	Redirect bool
}

// Labels name a revision in metrics.
type Labels struct {
	// Service is empty for a Configuration without one.
	Service string
	// Configuration made the revision.
	Configuration string
}

// Settings is what the request path needs to know of a revision.
type Settings struct {
	// ContainerConcurrency is the hard limit of requests in one instance; 0 means none.
	ContainerConcurrency int
	// Timeout bounds a request from dispatch to its last byte; 0 means none.
	Timeout time.Duration
	// ResponseStartTimeout bounds the time from dispatch to the first byte; 0 means none.
	ResponseStartTimeout time.Duration
	// IdleTimeout bounds the time without a byte from the application; 0 means none.
	IdleTimeout time.Duration
	// H2C says that the application speaks HTTP/2 without TLS.
	H2C bool
	// DetectH2C says that it is to be found out whether the application does.
	DetectH2C bool
	// Port is where the application listens.
	Port uint16
	// Labels name the revision in metrics.
	Labels Labels
	// Service, if not nil, says that the instances are not a revision's pods but a Service's.
	Service *Service
}

// Table maps hosts to rules. It is immutable and safe for concurrent use; the zero value is empty.
type Table struct {
	rules    map[string]*Rule
	hosts    map[string]*branch // those that rules share
	wild     map[string]*branch // by what follows the asterisk: ".example.com", or "" for any host
	lost     map[types.NamespacedName]error
	settings map[types.NamespacedName]Settings
}

// Build makes a table of the rules. It always returns a table that can be used: a rule that is
// invalid, or whose host an earlier rule has, is left out and told of in the error, so that one
// bad route cannot stop the others. A rule that is like an unknown host and has no backend is left
// out, too, but nothing is wrong with it: the other may come later. Rules with a Way come last in
// the contest for a host, and among them earlier ones keep what later ones would take.
func Build(rules []Rule, settings map[types.NamespacedName]Settings) (*Table, error) {
	t := &Table{
		rules:    make(map[string]*Rule, len(rules)),
		settings: make(map[types.NamespacedName]Settings, len(settings)),
	}
	maps.Copy(t.settings, settings)
	var errs []error
	kept := make([]Rule, 0, len(rules)) // one allocation for all, so that neighbours share cache lines
	add := func(r Rule) {
		host, _ := canonical(r.Host)
		if other, taken := t.rules[host]; taken {
			errs = append(errs, fmt.Errorf("%w: host %s of route %s is already taken by route %s",
				ErrInvalid, host, r.Route, other.Route))
			return
		}
		r.Host = host
		kept = append(kept, r)
		t.rules[host] = &kept[len(kept)-1]
	}
	var alike, ways []Rule
	for _, r := range rules {
		switch err := check(&r); {
		case err != nil:
			t.lose(r.Route, err)
			errs = append(errs, err)
		case r.Way != nil:
			ways = append(ways, r)
		case r.Like != "":
			alike = append(alike, r)
		default:
			add(r)
		}
	}
	known := maps.Clone(t.rules)
	for _, r := range alike {
		if r = r.resolved(known); len(r.Targets) > 0 || r.Backend != "" {
			add(r)
		}
	}
	errs = append(errs, t.share(ways)...)
	return t, errors.Join(errs...)
}

// resolved returns the rule with the targets of the one it is like, if there is that one.
func (r Rule) resolved(known map[string]*Rule) Rule {
	host, _ := canonical(r.Like)
	model := known[host]
	if model == nil || model.Backend != "" {
		return r
	}
	r.Targets, r.TagHeader, r.Tag, r.HostRewrite, r.Backend = model.Targets, model.TagHeader, model.Tag, "", ""
	return r
}

// Match finds the rule for a host, whose port is ignored. External requests do not see
// cluster-local hosts.
func (t *Table) Match(host string, external bool) (*Rule, bool) {
	if t == nil {
		return nil, false
	}
	host, ok := canonical(host)
	if !ok {
		return nil, false
	}
	r, ok := t.rules[host]
	if !ok || external && r.ClusterLocal {
		return nil, false
	}
	return r, true
}

// Settings returns what is known of a revision.
func (t *Table) Settings(rev types.NamespacedName) (Settings, bool) {
	if t == nil {
		return Settings{}, false
	}
	s, ok := t.settings[rev]
	return s, ok
}

// Revisions calls yield for every revision that has settings, in no order, until it returns false.
func (t *Table) Revisions(yield func(types.NamespacedName, Settings) bool) {
	if t == nil {
		return
	}
	for rev, s := range t.settings {
		if !yield(rev, s) {
			return
		}
	}
}

// Has says whether some rule answers for a host, for all of its requests or a part, and tells the
// Secret of its certificate.
func (t *Table) Has(host string, external bool) (secret types.NamespacedName, ok bool) {
	if r, ok := t.Match(host, external); ok {
		return r.Secret, true
	}
	if t == nil || len(t.hosts)+len(t.wild) == 0 {
		return secret, false
	}
	host, valid := canonical(host)
	if !valid {
		return secret, false
	}
	if t.hosts[host] != nil {
		return secret, true
	}
	for suffix, more := host, true; more; {
		suffix, more = broader(suffix)
		if t.wild[suffix] != nil {
			return secret, true
		}
	}
	return secret, false
}

// Lost tells what is wrong with a route's rules, or what of theirs an earlier route has; nil if all of
// them are in the table. It knows of rules with a Way, and of invalid ones.
func (t *Table) Lost(route types.NamespacedName) error {
	if t == nil {
		return nil
	}
	return t.lost[route]
}

// lose remembers why a route's rule is left out.
func (t *Table) lose(route types.NamespacedName, err error) {
	if t.lost == nil {
		t.lost = map[types.NamespacedName]error{}
	}
	t.lost[route] = errors.Join(t.lost[route], err)
}

// Secrets lists, each once, the Secrets of all hosts.
func (t *Table) Secrets() map[types.NamespacedName]struct{} {
	out := map[types.NamespacedName]struct{}{}
	if t == nil {
		return out
	}
	for _, r := range t.rules {
		if r.Secret.Name != "" {
			out[r.Secret] = struct{}{}
		}
	}
	return out
}

// Hosts counts the hosts in the table.
func (t *Table) Hosts() int {
	if t == nil {
		return 0
	}
	return len(t.rules) + len(t.hosts) + len(t.wild)
}

// Pick chooses a target by its share; n is spread evenly over all values of its type.
func (r *Rule) Pick(n uint32) Target { return pick(r.Targets, n) }

// PickTag chooses among the targets of the tag that a request names in its header; false means
// that the rule does not route by header or has no such tag.
func (r *Rule) PickTag(tag string, n uint32) (Target, bool) {
	targets, ok := r.TagHeader[tag]
	if !ok || len(targets) == 0 {
		return Target{}, false
	}
	return pick(targets, n), true
}

func pick(targets []Target, n uint32) Target {
	if len(targets) == 1 {
		return targets[0]
	}
	share := int(uint64(n) * 100 >> 32) // 0..99, each as likely as the next to one part in 40 million
	for _, t := range targets {
		if share -= t.Percent; share < 0 {
			return t
		}
	}
	return Target{}
}
