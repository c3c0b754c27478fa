package servers

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"
)

// Endpoints are servers on loopback addresses of their own that share a port, as a Service's pods do: one
// for each handler.
func Endpoints(t testing.TB, handlers ...http.Handler) (port int32, addresses []string) {
	t.Helper()
	listen := net.ListenConfig{}
	for i, handler := range handlers {
		address := fmt.Sprintf("127.0.0.%d", i+1)
		l, err := listen.Listen(t.Context(), "tcp", fmt.Sprintf("%s:%d", address, port))
		if err != nil {
			t.Fatal(err)
		}
		port = int32(l.Addr().(*net.TCPAddr).Port)
		server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: handler}
		go func() { _ = server.Serve(l) }()
		t.Cleanup(func() { _ = server.Close() })
		addresses = append(addresses, address)
	}
	return port, addresses
}
