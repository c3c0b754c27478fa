package node

import (
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// restful events are held back a moment, so that writing them does not compete with the start they
// tell of.
const restful = 300 * time.Millisecond

// recorder records pods' events. Virtual-kubelet's own "handed over" events are noise and left out.
type recorder struct {
	record.EventRecorder
	broadcaster record.EventBroadcaster

	mu    sync.Mutex // guards held and timer
	held  []func()
	timer *time.Timer
}

func newRecorder(client kubernetes.Interface, nodeName string) *recorder {
	b := record.NewBroadcaster()
	b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	return &recorder{broadcaster: b, EventRecorder: b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: nodeName})}
}

// Event implements record.EventRecorder.
func (r *recorder) Event(object runtime.Object, kind, reason, message string) {
	if strings.HasPrefix(reason, "Provider") && strings.HasSuffix(reason, "Success") {
		return
	}
	if len(message) > maxEvent {
		message = message[:maxEvent] + "…"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = append(r.held, func() { r.EventRecorder.Event(object, kind, reason, message) })
	switch {
	case kind != corev1.EventTypeNormal:
		r.release()
	case r.timer == nil:
		r.timer = time.AfterFunc(restful, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.release()
		})
	}
}

// maxEvent is the API's limit on an event's message, less some room.
const maxEvent = 1000

// Eventf implements record.EventRecorder.
func (r *recorder) Eventf(object runtime.Object, kind, reason, format string, args ...any) {
	r.Event(object, kind, reason, fmt.Sprintf(format, args...))
}

// release hands over what was held, in order; r.mu is held.
func (r *recorder) release() {
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	for _, fn := range r.held {
		fn()
	}
	r.held = nil
}

func (r *recorder) stop() {
	r.mu.Lock()
	r.release()
	r.mu.Unlock()
	r.broadcaster.Shutdown()
}
