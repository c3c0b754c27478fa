// Package admission completes and checks Serving's and KEDA's objects and settings before they are
// stored, so that a mistake is refused where it is made, with the path of the field.
//
// It is one HTTPS handler behind webhook configurations. Defaults and checks are upstream's; two
// more are ours: a template whose pod the API server would not take is refused with the Service, and
// a trigger's parameters are held against those its type has.
// Nothing here changes anything but the object in the request, dry run or not.
package admission

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	ctrladmission "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"ebb.dev/ebb/internal/platform/kube/settings"
)

// Paths of the handler.
const (
	pathDefault  = "/defaulting"
	pathValidate = "/resource-validation"
	pathSettings = "/config-validation"
	pathKeda     = "/keda-validation"
	pathClaim    = "/keda-claim"
)

// Config is what admission needs.
type Config struct {
	// Settings are the cluster's ConfigMaps.
	Settings *settings.Store
	// Client asks the API server whether it would take a pod, and reads targets of ScaledObjects.
	Client kubernetes.Interface
	// Neighbours of ScaledObjects.
	Neighbours *Neighbours
	// BuiltIn says whether triggers of a type work here; nil stands for all.
	BuiltIn func(kind string) bool
	// Registerer takes KEDA's numbers of what is judged. Optional.
	Registerer prometheus.Registerer
}

// Handler answers admission reviews. It refuses all until Use was called, since what it needs comes
// from the API server, which must know the handler before.
type Handler struct{ mux atomic.Pointer[http.ServeMux] }

// Use has the handler answer by c from now on.
func (h *Handler) Use(c Config) {
	mux := http.NewServeMux()
	mux.Handle("POST "+pathDefault, webhook(defaulter{c.Settings}.handle))
	t := triggers{c.BuiltIn}
	objects := scaledObjects{c.Neighbours, c.Client, t}
	mux.Handle("POST "+pathValidate, webhook(validator{c.Settings, pods{c.Client}, objects}.handle))
	mux.Handle("POST "+pathSettings, webhook(checkSettings))
	mux.Handle("POST "+pathClaim, webhook(claim))
	mux.Handle("POST "+pathKeda, webhook(kedaValidator{objects, t, newMetrics(c.Registerer)}.handle))
	h.mux.Store(mux)
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mux := h.mux.Load()
	if mux == nil {
		http.Error(w, "admission is starting", http.StatusServiceUnavailable)
		return
	}
	mux.ServeHTTP(w, r)
}

func webhook(handle ctrladmission.HandlerFunc) http.Handler {
	return &ctrladmission.Webhook{Handler: handle}
}

// Serve answers on a listener of its own until ctx ends, for an API server in another process.
func Serve(ctx context.Context, l net.Listener, t *tls.Config, h http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler:           h,
		TLSConfig:         t,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       20 * time.Second,
		IdleTimeout:       5 * time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := server.Shutdown(end); err != nil {
			log.Debug("closing admission", "error", err)
		}
	})
	defer stop()
	if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving admission on %s: %w", l.Addr(), err)
	}
	return nil
}
