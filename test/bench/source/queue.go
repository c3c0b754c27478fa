package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	beanstalk "github.com/beanstalkd/go-beanstalk"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NATS starts a server with a stream whose one consumer's lag is the work.
func (s *Servers) NATS(ctx context.Context) (*Source, error) {
	path, err1 := find("nats-server")
	client, err2 := port()
	monitoring, err3 := port()
	dir, err4 := s.folder("nats", "")
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	url := "nats://127.0.0.1:" + client
	var conn *nats.Conn
	if err := s.start(ctx, program{
		path: path, args: []string{"-a", "127.0.0.1", "-p", client, "-m", monitoring, "-js", "-sd", dir},
		ready: func(context.Context) (err error) {
			conn, err = nats.Connect(url)
			return err
		},
	}); err != nil {
		return nil, err
	}
	s.later(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "JOBS", Subjects: []string{"jobs"}})
	if err != nil {
		return nil, err
	}
	_, err = stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy})
	return &Source{
		Name: "NATS JetStream", Port: client, Kind: "nats-jetstream",
		Metadata: map[string]string{
			"natsServerMonitoringEndpoint": "127.0.0.1:" + monitoring, "natsServerURL": url,
			"account": "$G", "stream": "JOBS", "consumer": "worker", "lagThreshold": "5",
		},
		Put: func(ctx context.Context, n int) error {
			for range n {
				if _, err := js.Publish(ctx, "jobs", []byte("work")); err != nil {
					return err
				}
			}
			return nil
		},
		Drain: func(ctx context.Context) error { return stream.Purge(ctx) },
	}, err
}

// Etcd starts a server with a key whose value is the work.
func (s *Servers) Etcd(ctx context.Context) (*Source, error) {
	path, err1 := find("etcd")
	client, err2 := port()
	other, err3 := port()
	dir, err4 := s.folder("etcd", "")
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	url, peer := "http://127.0.0.1:"+client, "http://127.0.0.1:"+other
	const key = "jobs"
	put := func(ctx context.Context, n int) error {
		return post(ctx, url+"/v3/kv/put", map[string][]byte{"key": []byte(key), "value": []byte(strconv.Itoa(n))})
	}
	watched := &Source{
		Name: "etcd", Port: client, Kind: "etcd",
		Metadata: map[string]string{"endpoints": "127.0.0.1:" + client, "watchKey": key, "value": "5"},
		Put:      put,
		Drain:    func(ctx context.Context) error { return put(ctx, 0) },
	}
	return watched, s.start(ctx, program{
		path: path,
		args: []string{
			"--data-dir", dir, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
			"--listen-client-urls", url, "--advertise-client-urls", url, "--logger", "zap", "--log-level", "error",
		},
		ready: func(ctx context.Context) error { return put(ctx, 0) },
	})
}

// post asks etcd in its JSON form, which spares the client.
func post(ctx context.Context, url string, body any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(data))
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("asking %s: %s", url, res.Status)
	}
	return nil
}

// Beanstalkd starts a server with a tube, which nothing tells of: it is asked at a constant cost.
func (s *Servers) Beanstalkd(ctx context.Context) (*Source, error) {
	path, err1 := find("beanstalkd")
	port, err2 := port()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	const name = "jobs"
	var conn *beanstalk.Conn
	err := s.start(ctx, program{
		path: path, args: []string{"-l", "127.0.0.1", "-p", port},
		ready: func(context.Context) (err error) {
			conn, err = beanstalk.Dial("tcp", "127.0.0.1:"+port)
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	s.later(func() { _ = conn.Close() })
	tube := beanstalk.NewTube(conn, name)
	return &Source{
		Name: "beanstalkd, asked at a constant cost", Port: port, Kind: "beanstalkd",
		Metadata: map[string]string{"server": "127.0.0.1:" + port, "tube": name, "value": "5"},
		Put: func(_ context.Context, n int) error {
			for range n {
				if _, err := tube.Put([]byte("work"), 1, 0, time.Minute); err != nil {
					return err
				}
			}
			return nil
		},
		Drain: func(context.Context) error {
			for {
				id, _, err := tube.PeekReady()
				if errors.Is(err, beanstalk.ErrNotFound) {
					return nil
				}
				if err != nil {
					return err
				}
				if err := conn.Delete(id); err != nil {
					return err
				}
			}
		},
	}, nil
}
