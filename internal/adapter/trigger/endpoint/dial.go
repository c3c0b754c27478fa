package endpoint

import (
	"context"
	"net"
	"syscall"
)

// A Dial opens connections.
type Dial = func(ctx context.Context, network, address string) (net.Conn, error)

// Until returns a Dial whose connections end with a lifetime, whoever waits for what on them: clients
// that look at no context while a server does not answer end with it, too.
func Until(lifetime context.Context, dial Dial) Dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(lifetime, cancel)()
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		b := &bound{conn, context.AfterFunc(lifetime, func() { _ = conn.Close() })}
		if system, is := conn.(syscall.Conn); is {
			return &tested{b, system}, nil
		}
		return b, nil
	}
}

// bound is a connection that ends with a lifetime.
type bound struct {
	net.Conn
	stop func() bool
}

// Close closes it.
func (b *bound) Close() error {
	b.stop()
	return b.Conn.Close()
}

// tested is a bound connection of the system's, which clients look at before they use it again.
type tested struct {
	*bound
	syscall.Conn
}
