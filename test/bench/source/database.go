package source

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
)

// Redis is a server with lists and streams.
type Redis struct {
	Port   string
	client *redis.Client
}

// Redis starts one.
func (s *Servers) Redis(ctx context.Context) (*Redis, error) {
	path, err1 := find("redis-server")
	port, err2 := port()
	dir, err3 := s.folder("redis", "")
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	r := &Redis{Port: port, client: redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + port})}
	s.later(func() { _ = r.client.Close() })
	return r, s.start(ctx, program{
		path: path, args: []string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", dir},
		ready: func(ctx context.Context) error { return r.client.Ping(ctx).Err() },
	})
}

// List is a list by that name, five items of which are one replica's work.
func (r *Redis) List(name string) *Source {
	return &Source{
		Name: "Redis list", Port: r.Port, Kind: "redis",
		Metadata: map[string]string{"address": "127.0.0.1:" + r.Port, "listName": name, "listLength": "5"},
		Put: func(ctx context.Context, n int) error {
			items := make([]any, n)
			for k := range items {
				items[k] = k
			}
			return r.client.LPush(ctx, name, items...).Err()
		},
		Drain: func(ctx context.Context) error { return r.client.Del(ctx, name).Err() },
	}
}

// Stream is a stream by that name, read by a group whose lag is the work.
func (r *Redis) Stream(ctx context.Context, name string) (*Source, error) {
	const group = "workers"
	return &Source{
		Name: "Redis stream", Port: r.Port, Kind: "redis-streams",
		Metadata: map[string]string{"address": "127.0.0.1:" + r.Port, "stream": name, "consumerGroup": group, "lagCount": "5"},
		Put: func(ctx context.Context, n int) error {
			for range n {
				if err := r.client.XAdd(ctx, &redis.XAddArgs{Stream: name, Values: []string{"work", "1"}}).Err(); err != nil {
					return err
				}
			}
			return nil
		},
		Drain: func(ctx context.Context) error {
			err := r.client.XReadGroup(ctx, &redis.XReadGroupArgs{Group: group, Consumer: "one", Streams: []string{name, ">"}, Count: 1000, Block: -1, NoAck: true}).Err()
			if errors.Is(err, redis.Nil) {
				return nil
			}
			return err
		},
	}, r.client.XGroupCreateMkStream(ctx, name, group, "$").Err()
}

// PostgreSQL is a server with a table of work whose changes are told on a channel.
type PostgreSQL struct {
	Port string
	conn *pgx.Conn
}

// channel is where new work is told of.
const channel = "work"

// PostgreSQL starts one.
func (s *Servers) PostgreSQL(ctx context.Context) (*PostgreSQL, error) {
	initdb, err1 := find("initdb", "/usr/lib/postgresql/*/bin/initdb")
	port, err2 := port()
	dir, err3 := s.folder("postgresql", "postgres")
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	initialise, err := command(s.dir, program{path: initdb, args: []string{"-N", "-A", "trust", "-U", "postgres", "-D", data}, user: "postgres"})
	if err != nil {
		return nil, err
	}
	if out, err := initialise.CombinedOutput(); err != nil {
		return nil, errors.Join(errors.New("making a database: "+string(out)), err)
	}
	p := &PostgreSQL{Port: port}
	if err := s.start(ctx, program{
		path: filepath.Join(filepath.Dir(initdb), "postgres"), user: "postgres",
		args: []string{"-D", data, "-p", port, "-k", dir, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"},
		ready: func(ctx context.Context) (err error) {
			p.conn, err = pgx.Connect(ctx, "postgres://postgres@127.0.0.1:"+port+"/postgres?sslmode=disable")
			return err
		},
	}); err != nil {
		return nil, err
	}
	s.later(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = p.conn.Close(ctx)
	})
	_, err = p.conn.Exec(ctx, `CREATE TABLE jobs (queue text, id serial);
		CREATE INDEX ON jobs (queue);
		CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('`+channel+`', ''); RETURN NULL; END $$;
		CREATE TRIGGER tell AFTER INSERT ON jobs FOR EACH STATEMENT EXECUTE FUNCTION tell()`)
	return p, err
}

// Queue is the work of that name; told on the channel, or found out by asking often.
func (p *PostgreSQL) Queue(name string, told bool) *Source {
	s := &Source{
		Name: "PostgreSQL, asked by ebb.dev/fast-poll", Port: p.Port, Kind: "postgresql", Fast: !told,
		Metadata: map[string]string{
			"host": "127.0.0.1", "port": p.Port, "userName": "postgres", "dbName": "postgres", "sslmode": "disable",
			"query": "SELECT count(*) FROM jobs WHERE queue = '" + name + "'", "targetQueryValue": "5",
		},
		Put: func(ctx context.Context, n int) error {
			_, err := p.conn.Exec(ctx, `INSERT INTO jobs (queue) SELECT '`+name+`' FROM generate_series(1, `+strconv.Itoa(n)+`)`)
			return err
		},
		Drain: func(ctx context.Context) error {
			_, err := p.conn.Exec(ctx, `DELETE FROM jobs WHERE queue = $1`, name)
			return err
		},
	}
	if told {
		s.Name, s.Metadata["notifyChannel"] = "PostgreSQL with notifyChannel", channel
	}
	return s
}
