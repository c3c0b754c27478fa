package route

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/traffic"
)

// A book holds every Route's entry and publishes the table made of them. The first table it
// publishes is Fill's, so that after a restart none is missing a Route.
type book struct {
	publish func(*traffic.Table)
	log     *slog.Logger
	filled  chan struct{} // closed by Fill

	mu      sync.Mutex // guards all below; held while publishing, so that tables appear in order
	entries map[types.NamespacedName]entry
	table   *traffic.Table // the one in force
	wrong   error          // what was wrong with its rules
}

func newBook(publish func(*traffic.Table), log *slog.Logger) *book {
	return &book{publish: publish, log: log, filled: make(chan struct{}), entries: map[types.NamespacedName]entry{}}
}

// Put sets a Route's entry, once the book is filled. The table with it is in force when Put returns.
// It answers with what was wrong with this Route's rules, a host that another Route has, say.
func (b *book) Put(ctx context.Context, route types.NamespacedName, e entry) error {
	select {
	case <-b.filled:
	case <-ctx.Done():
		return fmt.Errorf("waiting for the route table: %w", context.Cause(ctx))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !reflect.DeepEqual(b.entries[route], e) {
		b.entries[route] = e
		b.rebuild()
	}
	return b.fault(e, route)
}

// Drop takes a Route out.
func (b *book) Drop(route types.NamespacedName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.entries[route]; !ok {
		return // also before Fill, which lists no Route that is gone
	}
	delete(b.entries, route)
	b.rebuild()
}

// Fill sets the entries to begin with and publishes them. It is called once.
func (b *book) Fill(entries map[types.NamespacedName]entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer close(b.filled)
	b.entries = entries
	b.rebuild()
	if b.wrong != nil {
		b.log.Error("building the route table", "error", b.wrong)
	}
}

// rebuild publishes the table of all entries; mu is held. Routes are taken in the order of their
// names, so that the same one wins a contested host every time.
func (b *book) rebuild() {
	var rules []traffic.Rule
	revisions := map[types.NamespacedName]traffic.Settings{}
	for _, route := range slices.SortedFunc(maps.Keys(b.entries), func(x, y types.NamespacedName) int {
		return strings.Compare(x.String(), y.String())
	}) {
		e := b.entries[route]
		rules = append(rules, e.rules...)
		maps.Copy(revisions, e.revisions)
	}
	b.table, b.wrong = traffic.Build(rules, revisions)
	b.publish(b.table)
}

// fault tells what is wrong with the entry in the table in force: of any wrong rules, are some the
// Route's? It is asked again with each Put, as what was wrong stays so when nothing changes.
func (b *book) fault(e entry, route types.NamespacedName) error {
	if b.wrong == nil {
		return nil
	}
	for _, r := range e.rules {
		if got, ok := b.table.Match(r.Host, false); !ok || got.Route != route {
			return errors.Join(errHost, b.wrong)
		}
	}
	return nil
}
