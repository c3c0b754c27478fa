// Package demand counts the requests of every revision: the gateway writes, the autoscaler reads.
//
// A Meter keeps three numbers under one short lock, so a request costs two lock round trips and no
// allocation, and a revision without requests costs nothing but its few words of memory: there is no
// goroutine, no timer and no bucket here. Averages over windows are domain/scale's business.
package demand

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// A Sink is told the edges of demand the moment they happen. Its methods are called in the request
// path, so they must not block.
type Sink interface {
	// Wake says that a request waits for a slot: there is no instance, or every slot is taken.
	Wake(revision types.NamespacedName)
	// Active says that a revision got its first request after quiet; Meter.In reports that moment.
	Active(revision types.NamespacedName)
}

// A Book holds the meters of all revisions. Its methods may be called from many goroutines.
type Book struct {
	meters sync.Map // types.NamespacedName -> *Meter
}

// NewBook returns an empty book.
func NewBook() *Book { return &Book{} }

// Meter returns the revision's meter, made on first use. Callers may keep it as long as the revision
// lives, which saves the look-up.
func (b *Book) Meter(revision types.NamespacedName) *Meter {
	if m, ok := b.meters.Load(revision); ok {
		return m.(*Meter)
	}
	m, _ := b.meters.LoadOrStore(revision, newMeter())
	return m.(*Meter)
}

// Forget drops the meter of a revision that is gone. Requests still holding it may go on using it.
func (b *Book) Forget(revision types.NamespacedName) { b.meters.Delete(revision) }
