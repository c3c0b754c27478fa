// Package podtest has hand-written stand-ins for what pods run on.
package podtest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/component/node/pod"
)

// Runtime is a runtime without processes: containers run until the test or a signal ends them.
type Runtime struct {
	mu         sync.Mutex // guards all below
	sandboxes  map[string]*runtime.Sandbox
	containers map[string]*runtime.Container
	specs      map[string]runtime.ContainerSpec
	order      []string // names of containers as they were started
	signals    []string // "name:signal"
	next       byte
	exits      chan runtime.Container
	refused    map[string]error // by name of container
	// Stubborn containers ignore everything but SIGKILL.
	Stubborn map[string]bool
	// OnExec answers commands run in containers.
	OnExec func(container string, args []string) (int, string, error)
}

// NewRuntime returns an empty one.
func NewRuntime() *Runtime {
	return &Runtime{
		sandboxes: map[string]*runtime.Sandbox{}, containers: map[string]*runtime.Container{},
		specs: map[string]runtime.ContainerSpec{}, exits: make(chan runtime.Container, 1024), refused: map[string]error{}, Stubborn: map[string]bool{},
	}
}

// StartSandbox implements runtime.Runtime.
func (r *Runtime) StartSandbox(_ context.Context, s runtime.SandboxSpec) (runtime.Sandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if sb, ok := r.sandboxes[s.ID]; ok {
		return *sb, nil
	}
	r.next++
	sb := &runtime.Sandbox{ID: s.ID, Namespace: s.Namespace, Name: s.Name, IP: netip.AddrFrom4([4]byte{10, 0, 0, r.next}), Created: time.Now(), Annotations: s.Annotations}
	r.sandboxes[s.ID] = sb
	return *sb, nil
}

// StopSandbox implements runtime.Runtime.
func (r *Runtime) StopSandbox(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for cid, c := range r.containers {
		if c.SandboxID == id {
			r.end(c, 137, 9)
			delete(r.containers, cid)
		}
	}
	delete(r.sandboxes, id)
	return nil
}

// StartContainer implements runtime.Runtime.
func (r *Runtime) StartContainer(_ context.Context, s runtime.ContainerSpec) (runtime.Container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.refused[s.Name]; err != nil {
		return runtime.Container{}, err
	}
	if _, ok := r.sandboxes[s.SandboxID]; !ok {
		return runtime.Container{}, runtime.ErrNotFound
	}
	c := &runtime.Container{ID: s.ID, SandboxID: s.SandboxID, Name: s.Name, Attempt: s.Attempt, PID: 1000, Started: time.Now(), LogPath: s.LogPath, Annotations: s.Annotations}
	r.containers[s.ID] = c
	r.specs[s.ID] = s
	r.order = append(r.order, s.Name)
	return *c, nil
}

// Refuse fails starts of the container of that name, or lets them succeed again with nil.
func (r *Runtime) Refuse(name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused[name] = err
}

// end finishes a container; r.mu is held.
func (r *Runtime) end(c *runtime.Container, code, signal int) {
	if !c.Running() {
		return
	}
	c.Finished, c.ExitCode, c.Signal, c.PID = time.Now(), code, signal, 0
	r.exits <- *c
}

// End ends the running container of that name.
func (r *Runtime) End(sandbox types.UID, name string, code int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.SandboxID == string(sandbox) && c.Name == name && c.Running() {
			r.end(c, code, 0)
		}
	}
}

// SignalContainer implements runtime.Runtime.
func (r *Runtime) SignalContainer(_ context.Context, id string, signal int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.containers[id]
	if !ok {
		return runtime.ErrNotFound
	}
	if !c.Running() {
		return runtime.ErrNotRunning
	}
	r.signals = append(r.signals, fmt.Sprintf("%s:%d", c.Name, signal))
	if signal == 9 || !r.Stubborn[c.Name] {
		r.end(c, 128+signal, signal)
	}
	return nil
}

// RemoveContainer implements runtime.Runtime.
func (r *Runtime) RemoveContainer(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.containers, id)
	return nil
}

// List implements runtime.Runtime.
func (r *Runtime) List(context.Context) ([]runtime.Sandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []runtime.Sandbox
	for _, sb := range r.sandboxes {
		s := *sb
		for _, c := range r.containers {
			if c.SandboxID == s.ID {
				s.Containers = append(s.Containers, *c)
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// Exits implements runtime.Runtime.
func (r *Runtime) Exits() <-chan runtime.Container { return r.exits }

// Exec implements runtime.Runtime.
func (r *Runtime) Exec(_ context.Context, id string, e runtime.ExecSpec) (int, error) {
	r.mu.Lock()
	c, ok := r.containers[id]
	fn := r.OnExec
	r.mu.Unlock()
	if !ok {
		return 0, runtime.ErrNotFound
	}
	if fn == nil {
		return 0, nil
	}
	code, out, err := fn(c.Name, e.Args)
	if e.Out != nil {
		_, _ = io.WriteString(e.Out, out)
	}
	return code, err
}

// Attach implements runtime.Runtime.
func (r *Runtime) Attach(context.Context, string, runtime.Streams) error {
	return runtime.ErrUnsupported
}

// Dial implements runtime.Runtime.
func (r *Runtime) Dial(context.Context, string, uint16) (net.Conn, error) {
	return nil, runtime.ErrUnsupported
}

// Stats implements runtime.Runtime.
func (r *Runtime) Stats(_ context.Context, id string) (runtime.SandboxStats, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := runtime.SandboxStats{Time: time.Now(), Containers: map[string]runtime.ContainerStats{}}
	for _, c := range r.containers {
		if c.SandboxID == id && c.Running() {
			s.Containers[c.Name] = runtime.ContainerStats{Started: c.Started, CPUNanos: 5e9, WorkingSet: 1 << 20, MemoryBytes: 2 << 20}
		}
	}
	return s, nil
}

// Close implements runtime.Runtime.
func (r *Runtime) Close() error { return nil }

// Started lists the names of started containers in order.
func (r *Runtime) Started() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.order...)
}

// Signals lists what was sent, "name:number".
func (r *Runtime) Signals() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.signals...)
}

// Spec is the newest spec of the container of that name.
func (r *Runtime) Spec(name string) (runtime.ContainerSpec, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	best, ok := runtime.ContainerSpec{}, false
	for _, s := range r.specs {
		if s.Name == name && (!ok || s.Attempt > best.Attempt) {
			best, ok = s, true
		}
	}
	return best, ok
}

// Sandboxes counts those that are there.
func (r *Runtime) Sandboxes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sandboxes)
}

// Images has every image but those marked as missing.
type Images struct {
	mu    sync.Mutex // guards below
	Error error      // of pulls
	Image runtime.Image
	pulls int
}

// Fail makes pulls fail, or succeed again with nil.
func (i *Images) Fail(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.Error = err
}

// Pulls counts them.
func (i *Images) Pulls() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.pulls
}

// Pull implements runtime.Images.
func (i *Images) Pull(_ context.Context, r runtime.PullRequest) (runtime.Image, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pulls++
	return i.image(r.Reference), i.Error
}

// Present implements runtime.Images.
func (i *Images) Present(_ context.Context, ref string) (runtime.Image, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.Error != nil {
		return runtime.Image{}, runtime.ErrNotFound
	}
	return i.image(ref), nil
}

func (i *Images) image(ref string) runtime.Image {
	img := i.Image
	img.Reference = ref
	img.Digest = ref + "@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	if len(img.Entrypoint)+len(img.Cmd) == 0 {
		img.Entrypoint = []string{"/app"}
	}
	if img.RootFS == nil {
		img.RootFS = []string{"/nonexistent"}
	}
	return img
}

// List implements runtime.Images.
func (i *Images) List(context.Context) ([]runtime.Image, error) { return nil, nil }

// Remove implements runtime.Images.
func (i *Images) Remove(context.Context, string) error { return nil }

// Objects are config maps and secrets in memory.
type Objects struct {
	mu      sync.Mutex // guards below
	objects map[string]kruntime.Object
	users   map[int]func()
	next    int
}

// Put stores an object and tells the users.
func (o *Objects) Put(obj kruntime.Object) {
	o.mu.Lock()
	if o.objects == nil {
		o.objects = map[string]kruntime.Object{}
	}
	switch t := obj.(type) {
	case *corev1.ConfigMap:
		o.objects["configmap/"+t.Namespace+"/"+t.Name] = t
	case *corev1.Secret:
		o.objects["secret/"+t.Namespace+"/"+t.Name] = t
	}
	var tell []func()
	for _, fn := range o.users {
		tell = append(tell, fn)
	}
	o.mu.Unlock()
	for _, fn := range tell {
		fn()
	}
}

// ConfigMap implements pod.Objects.
func (o *Objects) ConfigMap(_ context.Context, ns, name string) (*corev1.ConfigMap, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if cm, ok := o.objects["configmap/"+ns+"/"+name].(*corev1.ConfigMap); ok {
		return cm, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
}

// Secret implements pod.Objects.
func (o *Objects) Secret(_ context.Context, ns, name string) (*corev1.Secret, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s, ok := o.objects["secret/"+ns+"/"+name].(*corev1.Secret); ok {
		return s, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
}

// Use implements pod.Objects.
func (o *Objects) Use(_ *corev1.Pod, changed func()) func() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.users == nil {
		o.users = map[int]func(){}
	}
	o.next++
	id := o.next
	o.users[id] = changed
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.users, id)
	}
}

// Observer keeps what it was told.
type Observer struct {
	mu     sync.Mutex // guards below
	states []pod.State
	gone   []types.UID
}

// PodChanged implements pod.Observer.
func (o *Observer) PodChanged(s pod.State) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.states = append(o.states, s)
}

// PodGone implements pod.Observer.
func (o *Observer) PodGone(uid types.UID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gone = append(o.gone, uid)
}

// Last is the newest state, zero for none.
func (o *Observer) Last() pod.State {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.states) == 0 {
		return pod.State{}
	}
	return o.states[len(o.states)-1]
}

// Gone counts pods that went.
func (o *Observer) Gone() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.gone)
}

// Leases keeps who leased what.
type Leases struct {
	mu    sync.Mutex // guards below
	Error error      // of new leases
	by    map[string]string
	taken int
}

// Lease implements pod.Leases.
func (l *Leases) Lease(owner, digest string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Error != nil {
		return l.Error
	}
	if l.by == nil {
		l.by = map[string]string{}
	}
	l.by[owner] = digest
	l.taken++
	return nil
}

// Release implements pod.Leases.
func (l *Leases) Release(owner string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.by, owner)
	return nil
}

// Owners implements node.Leases.
func (l *Leases) Owners() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.by))
}

// Collect implements node.Leases.
func (l *Leases) Collect(context.Context) error { return nil }

// Leased is what every owner leased.
func (l *Leases) Leased() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.by)
}

// Taken counts how often an image was leased.
func (l *Leases) Taken() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken
}
