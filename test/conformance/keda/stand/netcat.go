package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
)

// netcat sends what comes in to a host and port, and prints what comes back until that ends. Busybox has
// one, too, but linked so that it finds no host by name.
func netcat(ctx context.Context, args []string) error {
	const hostAndPort = 2
	if len(args) != hostAndPort {
		return errors.New("expected a host and a port")
	}
	connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(args[0], args[1]))
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	if _, err := io.Copy(connection, os.Stdin); err != nil {
		return err
	}
	if half, is := connection.(*net.TCPConn); is {
		if err := half.CloseWrite(); err != nil {
			return err
		}
	}
	_, err = io.Copy(os.Stdout, connection)
	return err
}
