// Package admission completes and checks Serving's objects and settings before they are stored, so
// that a mistake is refused where it is made, with the path of the field.
//
// It is one HTTPS handler behind webhook configurations. Defaults and checks are upstream's; one
// more is ours: a template whose pod the API server would not take is refused with the Service.
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
	"time"

	"k8s.io/client-go/kubernetes"
	ctrladmission "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"ebb.dev/ebb/internal/platform/kube/settings"
)

// Paths of the handler.
const (
	pathDefault  = "/defaulting"
	pathValidate = "/resource-validation"
	pathSettings = "/config-validation"
)

// Config is what admission needs.
type Config struct {
	// Settings are the cluster's ConfigMaps.
	Settings *settings.Store
	// Client asks the API server whether it would take a pod.
	Client kubernetes.Interface
	// Listener takes the API server's connections.
	Listener net.Listener
	// TLS holds the server's certificate.
	TLS *tls.Config
	// Log receives what goes wrong outside a request.
	Log *slog.Logger
}

// Handler answers admission reviews.
func Handler(c Config) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+pathDefault, webhook(defaulter{c.Settings}.handle))
	mux.Handle("POST "+pathValidate, webhook(validator{c.Settings, pods{c.Client}}.handle))
	mux.Handle("POST "+pathSettings, webhook(checkSettings))
	return mux
}

func webhook(handle ctrladmission.HandlerFunc) http.Handler {
	return &ctrladmission.Webhook{Handler: handle}
}

// Serve answers on the listener until ctx ends.
func Serve(ctx context.Context, c Config) error {
	server := &http.Server{
		Handler:           Handler(c),
		TLSConfig:         c.TLS,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       20 * time.Second,
		IdleTimeout:       5 * time.Minute,
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	stopped := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := server.Shutdown(end); err != nil {
			c.Log.Debug("closing admission", "error", err)
		}
	})
	defer stopped()
	if err := server.ServeTLS(c.Listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving admission on %s: %w", c.Listener.Addr(), err)
	}
	return nil
}
