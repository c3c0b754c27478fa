package postgresql

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

const (
	// quiet is after how long without a notification the connection is tried: a way that was cut is
	// silent.
	quiet = 20 * time.Second
	// patience is how long connecting and each statement may take.
	patience = 5 * time.Second
)

// listen follows the watched channels on one connection.
func listen(ctx context.Context, config *pgx.ConnConfig, h *endpoint.Hub[string]) error {
	limit, cancel := context.WithTimeout(ctx, patience)
	conn, err := pgx.ConnectConfig(limit, config.Copy())
	cancel()
	if err != nil {
		return err
	}
	defer func() {
		// The context has ended when this runs, mostly; a farewell is short.
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(limit)
	}()
	heard := map[string]bool{}
	for {
		channels, changed := h.Keys()
		if err := follow(ctx, conn, heard, channels); err != nil {
			return err
		}
		for _, channel := range channels {
			if !heard[channel] {
				heard[channel] = true
				h.Wake(channel)
			}
		}
		if err := hear(ctx, conn, h, changed); err != nil {
			return err
		}
	}
}

// follow has the server tell of these channels and no others.
func follow(ctx context.Context, conn *pgx.Conn, heard map[string]bool, channels []string) error {
	wanted := make(map[string]bool, len(channels))
	for _, channel := range channels {
		wanted[channel] = true
		if !heard[channel] {
			if err := run(ctx, conn, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
				return fmt.Errorf("listening on channel %s: %w", channel, err)
			}
		}
	}
	for channel := range heard {
		if !wanted[channel] {
			if err := run(ctx, conn, "UNLISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
				return fmt.Errorf("leaving channel %s: %w", channel, err)
			}
			delete(heard, channel)
		}
	}
	return nil
}

func run(ctx context.Context, conn *pgx.Conn, statement string) error {
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := conn.Exec(limit, statement, pgx.QueryExecModeSimpleProtocol)
	return err
}

// hear wakes those whose channels are notified, until the channels change or the connection ends.
func hear(ctx context.Context, conn *pgx.Conn, h *endpoint.Hub[string], changed <-chan struct{}) error {
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-changed:
			cancel()
		case <-wait.Done():
		}
	}()
	for wait.Err() == nil {
		limit, done := context.WithTimeout(wait, quiet)
		notice, err := conn.WaitForNotification(limit)
		silent := limit.Err() != nil
		done()
		switch {
		case err == nil:
			h.Wake(notice.Channel)
		case ctx.Err() != nil:
			return ctx.Err()
		case !silent || conn.IsClosed():
			return fmt.Errorf("waiting for notifications: %w", err)
		case wait.Err() == nil:
			if err := run(ctx, conn, ";"); err != nil {
				return fmt.Errorf("trying the connection: %w", err)
			}
		}
	}
	return ctx.Err()
}
