package traffic

import (
	"cmp"
	"fmt"
	"net/textproto"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// A Way leads from a part of a host's requests to a rule.
type Way struct {
	// Path is what requests' paths begin with, by whole segments; slashes around it do not matter.
	Path string
	// Headers are what requests must have, all of them.
	Headers []Header
}

// Header is a field that a request must have.
type Header struct {
	Name string
	// Value is one of the field's values, unless Any will do.
	Value string
	Any   bool
}

// branch is where the rules of one host part, by path and then by header.
type branch struct {
	paths map[string][]*Rule // by path, the most particular first
	depth int                // segments of the longest path
}

// wildcard returns what follows the asterisk of a host that has one.
func wildcard(host string) (suffix string, ok bool) {
	if host == "" || host == "*" {
		return "", true
	}
	return strings.CutPrefix(host, "*.")
}

// broader returns the next wildcard that has a host, by what follows the asterisk: of "a.b.c" that
// is ".b.c", of ".b.c" it is ".c", and at last "", which has all hosts and is followed by none.
func broader(host string) (suffix string, more bool) {
	if i := strings.IndexByte(host[min(1, len(host)):], '.'); i >= 0 {
		return host[i+1:], true
	}
	return "", false
}

// share adds the rules that share hosts and tells which of them come too late.
func (t *Table) share(ways []Rule) []error {
	if len(ways) == 0 {
		return nil
	}
	t.hosts, t.wild = map[string]*branch{}, map[string]*branch{}
	var errs []error
	kept := make([]Rule, 0, len(ways))
	for _, r := range ways {
		r.Way = r.Way.tidy()
		branches, key, err := t.branchOf(&r)
		b := branches[key]
		if err == nil && b != nil {
			err = b.contest(&r)
		}
		if err != nil {
			t.lose(r.Route, err)
			errs = append(errs, err)
			continue
		}
		if b == nil {
			b = &branch{paths: map[string][]*Rule{}}
			branches[key] = b
		}
		kept = append(kept, r)
		b.add(&kept[len(kept)-1])
	}
	return errs
}

// branchOf finds where a rule's host is kept, and puts the host into its one form.
func (t *Table) branchOf(r *Rule) (branches map[string]*branch, key string, err error) {
	suffix, wild := wildcard(r.Host)
	if wild && suffix == "" {
		r.Host = "*"
		return t.wild, "", nil
	}
	host, _ := canonical(suffix)
	if wild {
		r.Host = "*." + host
		return t.wild, "." + host, nil
	}
	r.Host = host
	if other, taken := t.rules[host]; taken {
		return t.hosts, host, fmt.Errorf("%w: host %s of route %s is already taken by route %s", ErrInvalid, host, r.Route, other.Route)
	}
	return t.hosts, host, nil
}

// tidy returns the way with its path and fields in their one form.
func (w *Way) tidy() *Way {
	out := &Way{Path: strings.Trim(w.Path, "/"), Headers: slices.Clone(w.Headers)}
	for i := range out.Headers {
		out.Headers[i].Name = textproto.CanonicalMIMEHeaderKey(out.Headers[i].Name)
	}
	return out
}

// contest tells what of a rule's requests an earlier rule has: those of a path that is another
// namespace's, whole and with all below, or exactly the same in one's own.
func (b *branch) contest(r *Rule) error {
	for path, more := r.Way.Path, true; more; path, more = parent(path) {
		for _, other := range b.paths[path] {
			foreign := other.Route.Namespace != r.Route.Namespace
			same := path == r.Way.Path
			switch {
			case same && other.Route != r.Route && other.Way.equal(r.Way):
			case same && foreign && particular(r.Way, other.Way) < 0:
			case !same && foreign:
			default:
				continue
			}
			return fmt.Errorf("%w: host %s with path /%s of route %s is already taken by route %s, which has /%s",
				ErrInvalid, r.Host, r.Way.Path, r.Route, other.Route, path)
		}
	}
	return nil
}

// add takes a rule in, behind those as particular that came before.
func (b *branch) add(r *Rule) {
	path := r.Way.Path
	list := append(slices.Clone(b.paths[path]), r)
	slices.SortStableFunc(list, func(x, y *Rule) int { return particular(x.Way, y.Way) })
	b.paths[path] = list
	if path != "" {
		b.depth = max(b.depth, strings.Count(path, "/")+1)
	}
}

// particular compares ways of one path: more fields go before fewer, and those with a value before
// those with any.
func particular(x, y *Way) int {
	return cmp.Or(cmp.Compare(len(y.Headers), len(x.Headers)), cmp.Compare(y.values(), x.values()))
}

func (w *Way) values() (n int) {
	for i := range w.Headers {
		if !w.Headers[i].Any {
			n++
		}
	}
	return n
}

func (w *Way) equal(o *Way) bool {
	return len(w.Headers) == len(o.Headers) && !slices.ContainsFunc(w.Headers, func(h Header) bool { return !slices.Contains(o.Headers, h) })
}

// parent cuts a path's last segment; false at the root.
func parent(path string) (string, bool) {
	if path == "" {
		return "", false
	}
	return path[:max(0, strings.LastIndexByte(path, '/'))], true
}

// Find finds the rule for a request among those that share hosts: by its host, then by wildcards, the
// longest first. Of each the longest path alone is looked at, there the most particular fields
// first: if none are the request's, the next wildcard is asked, not a shorter path.
func (t *Table) Find(host, path string, header map[string][]string) (*Rule, bool) {
	if t == nil || len(t.hosts)+len(t.wild) == 0 {
		return nil, false
	}
	host, ok := canonical(host)
	path = strings.Trim(path, "/")
	if !ok { // no name, but any host includes it
		r := t.wild[""].find(path, header)
		return r, r != nil
	}
	if r := t.hosts[host].find(path, header); r != nil {
		return r, true
	}
	if len(t.wild) == 0 {
		return nil, false
	}
	for suffix, more := host, true; more; {
		suffix, more = broader(suffix)
		if r := t.wild[suffix].find(path, header); r != nil {
			return r, true
		}
	}
	return nil, false
}

func (b *branch) find(path string, header map[string][]string) *Rule {
	if b == nil {
		return nil
	}
	for path, more := first(path, b.depth), true; more; path, more = parent(path) {
		rules, ok := b.paths[path]
		if !ok {
			continue
		}
		for _, r := range rules {
			if r.Way.admits(header) {
				return r
			}
		}
		return nil
	}
	return nil
}

// first returns a path's first segments, of which there are at most n.
func first(path string, n int) string {
	at := 0
	for ; n > 0; n-- {
		i := strings.IndexByte(path[at:], '/')
		if i < 0 {
			return path
		}
		at += i + 1
	}
	return path[:max(0, at-1)]
}

func (w *Way) admits(header map[string][]string) bool {
	for i := range w.Headers {
		h := &w.Headers[i]
		values := header[h.Name]
		if len(values) == 0 || !h.Any && !slices.Contains(values, h.Value) {
			return false
		}
	}
	return true
}

// pseudo marks the names of what is no revision; those of revisions have no colon.
const pseudo = "http:"

// PseudoRevision names the pseudo-revision of a route to a Service.
func PseudoRevision(route types.NamespacedName) types.NamespacedName {
	return types.NamespacedName{Namespace: route.Namespace, Name: pseudo + route.Name}
}

// PseudoFallback names the pseudo-revision of the Service that stands in for a route's own.
func PseudoFallback(route types.NamespacedName) types.NamespacedName {
	return types.NamespacedName{Namespace: route.Namespace, Name: pseudo + route.Name + ":fallback"}
}

// IsPseudo tells names of pseudo-revisions from those of revisions.
func IsPseudo(rev types.NamespacedName) bool { return strings.HasPrefix(rev.Name, pseudo) }
