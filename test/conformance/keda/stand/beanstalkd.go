package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// beanstalk puts a job into the default tube, or takes one off it: --host=H put TEXT, or pop.
func beanstalk(ctx context.Context, args []string) error {
	words, flags := parseFlags(args)
	connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(flags["host"], "11300"))
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	replies := bufio.NewReader(connection)
	ask := func(want, format string, values ...any) (string, error) {
		if _, err := fmt.Fprintf(connection, format, values...); err != nil {
			return "", err
		}
		line, err := replies.ReadString('\n')
		if err != nil {
			return "", err
		}
		rest, is := strings.CutPrefix(strings.TrimSpace(line), want)
		if !is {
			return "", errors.New(strings.TrimSpace(line))
		}
		return rest, nil
	}
	switch first(words) {
	case "put":
		text := strings.Join(words[1:], " ")
		_, err := ask("INSERTED", "put 0 0 60 %d\r\n%s\r\n", len(text), text)
		return err
	case "pop":
		reserved, err := ask("RESERVED", "reserve-with-timeout 1\r\n")
		if err != nil {
			return err
		}
		var id, size int
		if _, err := fmt.Sscan(reserved, &id, &size); err != nil {
			return err
		}
		if _, err := replies.Discard(size + len("\r\n")); err != nil {
			return err
		}
		_, err = ask("DELETED", "delete %d\r\n", id)
		return err
	default:
		return errors.New("expected put or pop")
	}
}
