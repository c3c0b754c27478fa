package postgresql

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

const (
	// most is how many connections queries of one connection string may use.
	most = 2
	// rest is how long one of them stays open unused; triggers are mostly read every 30 s.
	rest = 2 * time.Minute
)

// errConnection says nothing of its cause, which may quote a password.
var errConnection = errors.New("parsing the connection to PostgreSQL: it is neither a URL nor a list of keywords and values that PostgreSQL knows")

// A database is what triggers of one connection string share.
type database struct {
	pool    *sql.DB
	notices *endpoint.Hub[string] // by channel
}

func open(connection string, env trigger.Environment) (*database, func(), error) {
	config, err := pgx.ParseConfig(connection)
	if err != nil {
		return nil, nil, errConnection
	}
	config.DialFunc = env.Dial
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	trust(config.TLSConfig, env.TLS)
	for _, fallback := range config.Fallbacks {
		trust(fallback.TLSConfig, env.TLS)
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "ebb"
	}
	if config.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
		// Named statements break behind poolers that give a connection for a transaction only.
		config.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	pool := stdlib.OpenDB(*config)
	pool.SetMaxOpenConns(most)
	pool.SetMaxIdleConns(most)
	pool.SetConnMaxIdleTime(rest)
	d := &database{pool: pool}
	d.notices = endpoint.NewHub(env.Shared, "PostgreSQL at "+config.Host, env.Log, func(ctx context.Context, h *endpoint.Hub[string]) error {
		return listen(ctx, config, h)
	})
	return d, func() {
		d.notices.Close()
		_ = pool.Close()
	}, nil
}

// trust has a connection believe the authorities the process does, unless it names its own.
func trust(config, base *tls.Config) {
	if config == nil || base == nil {
		return
	}
	config.MinVersion = base.MinVersion
	if config.RootCAs == nil {
		config.RootCAs = base.RootCAs
	}
}

// query returns the number that the first row is.
func (d *database) query(ctx context.Context, query string) (value float64, err error) {
	err = d.pool.QueryRowContext(ctx, query).Scan(&value)
	return value, err
}
