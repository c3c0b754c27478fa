package object

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

// How long a broken watch waits: twice as long each time, up to the most.
const (
	leastPause = 200 * time.Millisecond
	mostPause  = 5 * time.Second
)

// errEnded says that the API closed a watch, as it does now and then.
var errEnded = errors.New("the watch ended")

// raw is an object as it came, and as it was made into.
type raw struct {
	object *unstructured.Unstructured
	made   atomic.Value
}

type listener struct {
	told  func(changed bool)
	first bool // wants to know of the first reading, too
}

// followed is an object that somebody follows. Its goroutine lists and watches it, again and again:
//
//	list ──ok──► watch ──ended──► list …
//	  └─error──► pause ──► list …
type followed struct {
	store  *Store
	key    Key
	cancel context.CancelFunc
	tried  chan struct{} // closed after the first attempt

	// These are guarded by the store's mu.
	listeners map[*listener]struct{}
	known     bool // have is what the API has
	have      *raw // nil if there is none
}

// current returns what is in memory.
func (f *followed) current() (have *raw, known bool) {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	return f.have, f.known
}

func (f *followed) run(ctx context.Context) {
	pause := leastPause
	for tries := 0; ; tries++ {
		begun := time.Now()
		err := f.pass(ctx, tries == 0)
		if ctx.Err() != nil {
			return
		}
		if time.Since(begun) > mostPause || errors.Is(err, errEnded) {
			pause = leastPause
		}
		if !errors.Is(err, errEnded) {
			f.store.log.Debug("following an object; will try again", "object", f.key.String(), "error", err)
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, mostPause)
	}
}

// pass lists and watches once, until something fails.
func (f *followed) pass(ctx context.Context, first bool) error {
	api := f.store.client.Resource(f.key.Resource).Namespace(f.key.Namespace)
	only := fields.OneTermEqualSelector(metav1.ObjectNameField, f.key.Name).String()
	list, err := api.List(ctx, metav1.ListOptions{FieldSelector: only})
	if err == nil {
		f.learn(found(list, f.key.Name))
	}
	if first {
		close(f.tried)
	}
	if err != nil {
		return fmt.Errorf("listing %s: %w", f.key, err)
	}
	return f.watch(ctx, api, metav1.ListOptions{
		FieldSelector: only, ResourceVersion: list.GetResourceVersion(), AllowWatchBookmarks: true,
	})
}

func (f *followed) watch(ctx context.Context, api dynamic.ResourceInterface, o metav1.ListOptions) error {
	w, err := api.Watch(ctx, o)
	if err != nil {
		return fmt.Errorf("watching %s: %w", f.key, err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, open := <-w.ResultChan():
			if !open {
				return errEnded
			}
			if e.Type == watch.Error {
				return fmt.Errorf("watching %s: %w", f.key, apierrors.FromObject(e.Object))
			}
			object, ok := e.Object.(*unstructured.Unstructured)
			if !ok || e.Type == watch.Bookmark || object.GetName() != f.key.Name {
				continue
			}
			if e.Type == watch.Deleted {
				object = nil
			}
			f.learn(object)
		}
	}
}

// found returns the object of that name, nil if it is not there.
func found(list *unstructured.UnstructuredList, name string) *unstructured.Unstructured {
	for i := range list.Items {
		if list.Items[i].GetName() == name {
			return &list.Items[i]
		}
	}
	return nil
}

// learn puts an object into memory (nil: there is none) and tells the listeners if it is another one
// than they may have read.
func (f *followed) learn(object *unstructured.Unstructured) {
	version := ""
	if object != nil {
		version = object.GetResourceVersion()
		object.SetManagedFields(nil)
	}
	s := f.store
	s.mu.Lock()
	var changed bool
	first := !f.known
	if first {
		before, read := s.recent[f.key]
		changed = read && before != version
	} else {
		changed = f.version() != version
	}
	if first || changed {
		f.known, f.have = true, nil
		if object != nil {
			f.have = &raw{object: object}
		}
	}
	var tell []func(bool)
	for l := range f.listeners {
		if changed || first && l.first {
			tell = append(tell, l.told)
		}
	}
	s.mu.Unlock()
	for _, told := range tell {
		told(changed)
	}
}

// version is that of the object in memory; the store's mu is held.
func (f *followed) version() string {
	if f.have == nil {
		return ""
	}
	return f.have.object.GetResourceVersion()
}
