// Package mysql reads work from a MySQL or MariaDB database by a query.
package mysql

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

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
var errConnection = errors.New("parsing connectionString: it is not of the form user:password@tcp(host:port)/database")

type parameters struct {
	TriggerIndex int

	Connection       string  `keda:"name=connectionString, order=authParams;resolvedEnv, optional"`
	Username         string  `keda:"name=username, order=triggerMetadata;authParams;resolvedEnv, optional"`
	Password         string  `keda:"name=password, order=authParams;resolvedEnv, optional"`
	Host             string  `keda:"name=host, order=triggerMetadata;authParams, optional"`
	Port             string  `keda:"name=port, order=triggerMetadata;authParams, optional"`
	DBName           string  `keda:"name=dbName, order=triggerMetadata;authParams, optional"`
	Query            string  `keda:"name=query, order=triggerMetadata"`
	Target           float64 `keda:"name=queryValue, order=triggerMetadata"`
	ActivationTarget float64 `keda:"name=activationQueryValue, order=triggerMetadata, default=0"`
	// MetricName is taken and ignored: the metric is named after the database.
	MetricName string `keda:"name=metricName, order=triggerMetadata, optional"`
}

// database returns the part of the metric's name that tells the database apart: all that follows the
// last slash of a connection string.
func (p *parameters) database() string {
	if p.Connection == "" {
		return p.DBName
	}
	return p.Connection[strings.LastIndex(p.Connection, "/")+1:]
}

// config returns how to connect.
func (p *parameters) config() (*mysql.Config, error) {
	if p.Connection != "" {
		config, err := mysql.ParseDSN(p.Connection)
		if err != nil {
			return nil, errConnection
		}
		return config, nil
	}
	config := mysql.NewConfig()
	config.Net, config.Addr = "tcp", net.JoinHostPort(p.Host, p.Port)
	config.User, config.Passwd, config.DBName = p.Username, p.Password, p.DBName
	return config, nil
}

type source struct {
	trigger.Single

	parameters parameters
	pool       *sql.DB
	release    func()
}

// New makes a trigger of type mysql.
func New(c trigger.Config) (trigger.Source, error) {
	s := &source{}
	var err error
	if s.Single, err = c.Parameters(&s.parameters); err != nil {
		return nil, err
	}
	p := &s.parameters
	s.Name = trigger.Name(c.TriggerIndex, "mysql-"+p.database())
	s.Target, s.Activation = trigger.Quantity(p.Target), p.ActivationTarget
	config, err := p.config()
	if err != nil {
		return nil, err
	}
	s.pool, s.release, err = endpoint.Acquire(c.Shared, "mysql "+config.FormatDSN(), func() (*sql.DB, func(), error) {
		return open(config, c.Environment)
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// quiet drops what the driver would print by itself; every failure is returned as well.
type quiet struct{ log *slog.Logger }

// Print takes what the driver has to say.
func (q quiet) Print(v ...any) { q.log.Debug("talking to MySQL", "message", fmt.Sprint(v...)) }

func open(config *mysql.Config, env trigger.Environment) (*sql.DB, func(), error) {
	config.DialFunc = env.Dial
	config.AllowAllFiles = false // a server could ask for any file
	config.Logger = quiet{env.Log}
	if config.TLS != nil {
		config.TLS = trust(config.TLS, env.TLS)
	}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, nil, errConnection
	}
	pool := sql.OpenDB(connector)
	pool.SetMaxOpenConns(most)
	pool.SetMaxIdleConns(most)
	pool.SetConnMaxIdleTime(rest)
	return pool, func() { _ = pool.Close() }, nil
}

// trust has a connection believe the authorities the process does.
func trust(config, base *tls.Config) *tls.Config {
	if base == nil {
		return config
	}
	config = config.Clone()
	config.MinVersion = base.MinVersion
	if config.RootCAs == nil {
		config.RootCAs = base.RootCAs
	}
	return config
}

// Read implements trigger.Source.
func (s *source) Read(ctx context.Context) ([]trigger.Reading, error) {
	var value float64
	if err := s.pool.QueryRowContext(ctx, s.parameters.Query).Scan(&value); err != nil {
		return nil, fmt.Errorf("querying MySQL: %w", err)
	}
	return s.Reading(value), nil
}

// Close implements trigger.Source.
func (s *source) Close() error {
	s.release()
	return nil
}
