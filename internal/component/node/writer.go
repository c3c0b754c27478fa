package node

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"ebb.dev/ebb/internal/component/node/pod"
)

// writers patch statuses side by side, one at a time for each pod.
const writers = 8

const (
	writeRetryFirst = 100 * time.Millisecond
	writeRetryTop   = 10 * time.Second
)

// writer brings pods' statuses to the API: the newest only, as soon as its urgency asks, as a patch
// that leaves other owners' conditions alone.
type writer struct {
	n     *Node
	queue chan types.UID

	mu      sync.Mutex // guards entries and what is in them
	entries map[types.UID]*entry
	idle    *sync.Cond // signalled when an entry has nothing more to write
}

// entry is one pod's place in the writer.
type entry struct {
	base  *corev1.Pod // the newest the API is known to have
	due   bool        // something is to be written
	busy  bool        // a writer has it
	when  time.Time   // of the timer
	timer *time.Timer
	wait  time.Duration // between retries
}

func newWriter(n *Node) *writer {
	w := &writer{n: n, queue: make(chan types.UID, 4096), entries: map[types.UID]*entry{}}
	w.idle = sync.NewCond(&w.mu)
	return w
}

// run writes until ctx ends.
func (w *writer) run(ctx context.Context) {
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case uid := <-w.queue:
					w.one(ctx, uid)
				}
			}
		})
	}
	wg.Wait()
}

// changed asks for the pod's status to be written with that urgency.
func (w *writer) changed(m *pod.Pod, u pod.Urgency) { w.schedule(m.UID(), time.Duration(u)) }

func (w *writer) schedule(uid types.UID, in time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.entries[uid]
	if e == nil {
		e = &entry{}
		w.entries[uid] = e
	}
	when := time.Now().Add(in)
	if e.due && !e.when.After(when) {
		return
	}
	e.due, e.when = true, when
	if e.timer != nil {
		e.timer.Stop()
	}
	if e.busy {
		return // one looks at due when it is done
	}
	if in <= 0 {
		w.push(uid)
		return
	}
	e.timer = time.AfterFunc(in, func() { w.push(uid) })
}

// push never blocks: with a full queue the timer tries again.
func (w *writer) push(uid types.UID) {
	select {
	case w.queue <- uid:
	default:
		time.AfterFunc(writeRetryFirst, func() { w.push(uid) })
	}
}

// one writes a pod's status unless another writer has it.
func (w *writer) one(ctx context.Context, uid types.UID) {
	m := w.n.machine(uid)
	w.mu.Lock()
	e := w.entries[uid]
	if e == nil || e.busy || !e.due {
		w.mu.Unlock()
		return
	}
	if m == nil {
		delete(w.entries, uid)
		w.idle.Broadcast()
		w.mu.Unlock()
		return
	}
	e.busy, e.due = true, false
	base := e.base
	w.mu.Unlock()

	written, err := w.write(ctx, m, base)

	w.mu.Lock()
	defer w.mu.Unlock()
	e.busy = false
	if newer(written, e.base) {
		e.base = written
	}
	if err != nil && ctx.Err() == nil {
		w.n.config.Log.Warn("writing a pod's status", "namespace", m.Current().Namespace, "pod", m.Current().Name, "error", err)
		e.due = true
		e.wait = min(max(2*e.wait, writeRetryFirst), writeRetryTop)
		e.when = time.Now().Add(e.wait)
		e.timer = time.AfterFunc(e.wait, func() { w.push(uid) })
		return
	}
	e.wait = 0
	if e.due {
		w.queueAt(e, uid)
	}
	w.idle.Broadcast()
}

func (w *writer) queueAt(e *entry, uid types.UID) {
	if in := time.Until(e.when); in > 0 {
		e.timer = time.AfterFunc(in, func() { w.push(uid) })
		return
	}
	w.push(uid)
}

// newer says whether a is a later version of the pod than b.
func newer(a, b *corev1.Pod) bool {
	if a == nil || b == nil {
		return a != nil
	}
	va, errA := strconv.ParseUint(a.ResourceVersion, 10, 64)
	vb, errB := strconv.ParseUint(b.ResourceVersion, 10, 64)
	return errA != nil || errB != nil || va > vb
}

// write patches the status, and deletes the object of a pod that is to go and has nothing left.
func (w *writer) write(ctx context.Context, m *pod.Pod, base *corev1.Pod) (*corev1.Pod, error) {
	api, err := w.n.pods.Pods(m.Current().Namespace).Get(m.Current().Name)
	if err == nil && api.UID == m.UID() && newer(api, base) {
		base = api
	}
	if base == nil {
		base = m.Current()
	}
	own := m.Status()
	patch, err := statusPatch(base, &own)
	if err != nil {
		return nil, err
	}
	written := base
	if patch != nil {
		written, err = w.n.config.Client.CoreV1().Pods(base.Namespace).
			Patch(ctx, base.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil, nil // gone, or another pod of the same name by now
		}
		if err != nil {
			return nil, fmt.Errorf("patching status: %w", err)
		}
	}
	select {
	case <-m.Finished():
		if m.Current().DeletionTimestamp != nil {
			return written, w.delete(ctx, base)
		}
	default:
	}
	return written, nil
}

// statusPatch is nil when the API has it all.
func statusPatch(base *corev1.Pod, own *corev1.PodStatus) ([]byte, error) {
	merged := pod.Merge(&base.Status, own)
	before, err := json.Marshal(corev1.Pod{Status: base.Status})
	if err != nil {
		return nil, fmt.Errorf("encoding status: %w", err)
	}
	after, err := json.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: base.UID}, Status: *merged})
	if err != nil {
		return nil, fmt.Errorf("encoding status: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("comparing statuses: %w", err)
	}
	if string(patch) == `{"metadata":{"uid":"`+string(base.UID)+`"}}` {
		return nil, nil
	}
	return patch, nil
}

func (w *writer) delete(ctx context.Context, p *corev1.Pod) error {
	zero := int64(0)
	err := w.n.config.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name,
		metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &p.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("deleting the object of a stopped pod: %w", err)
	}
	return nil
}

// remove deletes the object of a pod that is to go and of which nothing runs here.
func (w *writer) remove(p *corev1.Pod) {
	go func() {
		if err := w.delete(w.n.ctx, p); err != nil && w.n.ctx.Err() == nil {
			w.n.config.Log.Warn("removing a pod that does not run", "namespace", p.Namespace, "pod", p.Name, "error", err)
		}
	}()
}

// seen takes note of a version that came by the watch; one that is not our own doing and differs
// from what we say is written over.
func (w *writer) seen(p *corev1.Pod) {
	w.mu.Lock()
	e := w.entries[p.UID]
	foreign := e != nil && e.base != nil && newer(p, e.base) && !e.busy
	if e != nil && newer(p, e.base) {
		e.base = p
	}
	w.mu.Unlock()
	if foreign || p.DeletionTimestamp != nil {
		w.schedule(p.UID, 0)
	}
}

func (w *writer) forget(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.entries[uid]; e != nil && e.timer != nil {
		e.timer.Stop()
	}
	delete(w.entries, uid)
	w.idle.Broadcast()
}

// flush waits until all that is due has been written.
func (w *writer) flush(ctx context.Context) {
	stop := context.AfterFunc(ctx, w.idle.Broadcast)
	defer stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for ctx.Err() == nil {
		left := false
		for _, e := range w.entries {
			left = left || e.due || e.busy
		}
		if !left {
			return
		}
		w.idle.Wait()
	}
}
