package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/traffic"
)

// ErrHost is wrapped by complaints about a host: one that is no name, or is another's.
var ErrHost = errors.New("domain name error")

// An Entry is what one object contributes to the route table.
type Entry struct {
	// Born is when the object was made, where that decides a contest: older ones keep what they have.
	// Entries without come before those with one.
	Born time.Time
	// Rules are the object's own; their Route names it.
	Rules []traffic.Rule
	// Revisions are those the rules lead to.
	Revisions map[types.NamespacedName]traffic.Settings
}

// A Book is the route table in the making: it holds the entries of every object that has hosts, and
// publishes the table made of them. Each kind of object has a chapter; the first table is published
// when all chapters are filled, so that after a restart none is missing a host.
type Book struct {
	publish func(*traffic.Table)
	filled  chan struct{} // closed when every chapter is filled

	mu       sync.Mutex // guards the chapters; held while publishing, so that tables appear in order
	chapters []*Chapter
	troubled bool // some object has a fault
}

// NewBook returns a book without chapters. publish puts a table in force before it returns.
func NewBook(publish func(*traffic.Table)) *Book {
	return &Book{publish: publish, filled: make(chan struct{})}
}

// A Chapter holds the entries of one kind of object.
type Chapter struct {
	book    *Book
	news    func(types.NamespacedName)
	full    bool
	entries map[types.NamespacedName]Entry
	faults  map[types.NamespacedName]error // of those whose rules are not in force as they are
}

// Chapter adds a chapter, before any is filled. A contested host goes to the chapter added first.
// news is told, and must not block, when an object loses a host to another or gets it after all.
func (b *Book) Chapter(news func(types.NamespacedName)) *Chapter {
	c := &Chapter{
		book: b, news: news,
		entries: map[types.NamespacedName]Entry{}, faults: map[types.NamespacedName]error{},
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.chapters = append(b.chapters, c)
	return c
}

// Put sets an object's entry, once the book is filled. The table with it is in force when Put
// returns. It answers with what was wrong with this object's rules: a host that another has, say.
func (c *Chapter) Put(ctx context.Context, name types.NamespacedName, e Entry) error {
	select {
	case <-c.book.filled:
	case <-ctx.Done():
		return fmt.Errorf("waiting for the route table: %w", context.Cause(ctx))
	}
	c.book.mu.Lock()
	defer c.book.mu.Unlock()
	if !reflect.DeepEqual(c.entries[name], e) {
		c.entries[name] = e
		c.book.rebuild()
	}
	return c.faults[name]
}

// Drop takes an object out.
func (c *Chapter) Drop(name types.NamespacedName) {
	c.book.mu.Lock()
	defer c.book.mu.Unlock()
	if _, ok := c.entries[name]; !ok {
		return // also before Fill, which lists no object that is gone
	}
	delete(c.entries, name)
	delete(c.faults, name)
	c.book.rebuild()
}

// Fill sets the entries to begin with; the last chapter's publishes them. It is called once.
func (c *Chapter) Fill(entries map[types.NamespacedName]Entry) {
	b := c.book
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.Copy(c.entries, entries)
	c.full = true
	for _, other := range b.chapters {
		if !other.full {
			return
		}
	}
	defer close(b.filled)
	b.rebuild()
}

// rebuild publishes the table of all entries; mu is held. Objects are taken in the order of their
// birth and names, so that the same one wins a contested host every time.
func (b *Book) rebuild() {
	var rules []traffic.Rule
	revisions := map[types.NamespacedName]traffic.Settings{}
	var born []dated
	for _, c := range b.chapters {
		for _, name := range slices.SortedFunc(maps.Keys(c.entries), byName) {
			e := c.entries[name]
			if !e.Born.IsZero() {
				born = append(born, dated{name, e})
				continue
			}
			rules = append(rules, e.Rules...)
			maps.Copy(revisions, e.Revisions)
		}
	}
	slices.SortStableFunc(born, func(x, y dated) int {
		return cmp.Or(x.entry.Born.Compare(y.entry.Born), byName(x.name, y.name))
	})
	for _, d := range born {
		rules = append(rules, d.entry.Rules...)
		maps.Copy(revisions, d.entry.Revisions)
	}
	table, err := traffic.Build(rules, revisions)
	b.publish(table)
	if err == nil && !b.troubled {
		return
	}
	b.troubled = err != nil
	for _, c := range b.chapters {
		c.judge(table, err)
	}
}

// dated is an entry that its birth gives a place among those of all chapters.
type dated struct {
	name  types.NamespacedName
	entry Entry
}

func byName(x, y types.NamespacedName) int { return strings.Compare(x.String(), y.String()) }

// judge finds out whose rules the table lacks, and tells where that changed.
func (c *Chapter) judge(table *traffic.Table, built error) {
	for name, e := range c.entries {
		fault := e.fault(name, table, built)
		was := c.faults[name]
		if delete(c.faults, name); fault != nil {
			c.faults[name] = fault
		}
		if (fault == nil) != (was == nil) {
			c.news(name)
		}
	}
}

// fault tells which of the entry's rules is not in the table; built is what was wrong with all.
func (e *Entry) fault(name types.NamespacedName, table *traffic.Table, built error) error {
	for i := range e.Rules {
		r := &e.Rules[i]
		if r.Way != nil {
			if lost := table.Lost(name); lost != nil {
				return fmt.Errorf("%w: %w", ErrHost, lost)
			}
			continue
		}
		got, ok := table.Match(r.Host, false)
		switch {
		case ok && got.Route != name:
			return fmt.Errorf("%w: host %s is already that of %s", ErrHost, r.Host, got.Route)
		case !ok && r.Like == "":
			return errors.Join(ErrHost, built)
		}
	}
	return nil
}
