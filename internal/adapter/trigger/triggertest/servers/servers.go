// Package servers knows how the servers that triggers are tested with are started: from Debian's
// packages, on loopback ports, with nothing kept, and within the process where a server is a library. It
// links no client of theirs; where only a client can tell that a server is ready, its Program is returned
// and Ready is the caller's.
package servers

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

// A Server is a running one.
type Server struct {
	*process.Process
	Address string // host and port
}

// dial tells whether somebody listens.
func dial(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err == nil {
		err = conn.Close()
	}
	return err
}

// Get tells whether a page is there.
func Get(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}
