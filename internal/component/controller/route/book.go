package route

import (
	"errors"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/traffic"
)

// A book holds every Route's entry and publishes the table made of them.
type book struct {
	publish func(*traffic.Table)
	log     *slog.Logger

	mu      sync.Mutex // guards entries; held while publishing, so that tables appear in order
	entries map[types.NamespacedName]entry
}

func newBook(publish func(*traffic.Table), log *slog.Logger) *book {
	return &book{publish: publish, log: log, entries: map[types.NamespacedName]entry{}}
}

// Put sets a Route's entry. The table with it is in force when Put returns. It answers with what
// was wrong with this Route's rules, a host that another Route has, say.
func (b *book) Put(route types.NamespacedName, e entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if reflect.DeepEqual(b.entries[route], e) {
		return nil
	}
	b.entries[route] = e
	return b.rebuild(route)
}

// Has tells whether the Route has an entry.
func (b *book) Has(route types.NamespacedName) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.entries[route]
	return ok
}

// Drop takes a Route out.
func (b *book) Drop(route types.NamespacedName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.entries[route]; !ok {
		return
	}
	delete(b.entries, route)
	if err := b.rebuild(route); err != nil {
		b.log.Error("building the route table", "route", route.String(), "error", err)
	}
}

// Fill sets many entries and publishes once.
func (b *book) Fill(entries map[types.NamespacedName]entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for route, e := range entries {
		if _, ok := b.entries[route]; !ok {
			b.entries[route] = e
		}
	}
	if err := b.rebuild(types.NamespacedName{}); err != nil {
		b.log.Error("building the route table", "error", err)
	}
}

// rebuild publishes the table of all entries; mu is held. Routes are taken in the order of their
// names, so that the same one wins a contested host every time.
func (b *book) rebuild(changed types.NamespacedName) error {
	var rules []traffic.Rule
	revisions := map[types.NamespacedName]traffic.Settings{}
	for _, route := range slices.SortedFunc(maps.Keys(b.entries), func(x, y types.NamespacedName) int {
		return strings.Compare(x.String(), y.String())
	}) {
		e := b.entries[route]
		rules = append(rules, e.rules...)
		maps.Copy(revisions, e.revisions)
	}
	table, err := traffic.Build(rules, revisions)
	b.publish(table)
	if err == nil || changed == (types.NamespacedName{}) {
		return err
	}
	for _, r := range b.entries[changed].rules { // is it this Route's fault?
		if got, ok := table.Match(r.Host, false); !ok || got.Route != changed {
			return errors.Join(errHost, err)
		}
	}
	return nil
}
