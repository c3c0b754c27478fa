package servers

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

// A RabbitMQ has a user "ebb" with the password "hunter2", and the virtual hosts "/" and "shop", where
// there is a queue "jobs".
type RabbitMQ struct {
	*process.Process

	AMQP, AMQPS, API string // host and port
	// Certificate is the server's and that of a client.
	process.Certificate
}

const rabbitmq = `
listeners.ssl.1 = AMQPS
ssl_options.cacertfile = DIR/ca.pem
ssl_options.certfile = DIR/cert.pem
ssl_options.keyfile = DIR/key.pem
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
ssl_cert_login_from = common_name
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = EXTERNAL
default_user = ebb
default_pass = hunter2
management.tcp.ip = 127.0.0.1
management.tcp.port = API
collect_statistics_interval = 200
management.sample_retention_policies.global.minute = 1
management.sample_retention_policies.basic.minute = 1
management.sample_retention_policies.detailed.minute = 1
log.console = true
log.console.level = warning
`

// StartRabbitMQ runs one, with the management API.
func StartRabbitMQ(t testing.TB) RabbitMQ {
	t.Helper()
	path := process.Find(t, "/usr/lib/rabbitmq/bin/rabbitmq-server")
	names := process.Find(t, "epmd")
	dir := process.Dir(t, "rabbitmq")
	var ports [5]string
	for i := range ports {
		ports[i] = process.Port(t)
	}
	s := RabbitMQ{AMQP: "127.0.0.1:" + ports[0], AMQPS: "127.0.0.1:" + ports[1], API: "127.0.0.1:" + ports[2]}
	s.Certificate = process.Certify(t)
	for name, content := range map[string]string{
		"rabbitmq.conf": strings.NewReplacer("DIR", dir, "AMQPS", s.AMQPS, "API", ports[2]).Replace(rabbitmq),
		"plugins":       "[rabbitmq_auth_mechanism_ssl,rabbitmq_management].",
		"ca.pem":        s.CA, "cert.pem": s.Cert, "key.pem": s.Key,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	process.Start(t, process.Program{ // one of its own, as the server's would outlive it
		Path: names, Args: []string{"-address", "127.0.0.1", "-port", ports[4]}, Dir: dir, User: "rabbitmq",
		Ready: func(ctx context.Context) error { return dial(ctx, "127.0.0.1:"+ports[4]) },
	})
	s.Process = process.Start(t, process.Program{
		Path: "/usr/bin/env", Dir: dir, User: "rabbitmq", Within: 3 * time.Minute,
		Args: []string{
			"-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=" + dir,
			"RABBITMQ_NODENAME=ebb" + ports[0] + "@localhost", "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT=" + ports[0],
			"RABBITMQ_DIST_PORT=" + ports[3], "ERL_EPMD_ADDRESS=127.0.0.1", "ERL_EPMD_PORT=" + ports[4],
			"RABBITMQ_MNESIA_BASE=" + filepath.Join(dir, "mnesia"), "RABBITMQ_LOG_BASE=" + dir, "RABBITMQ_LOGS=-",
			"RABBITMQ_CONFIG_FILE=" + filepath.Join(dir, "rabbitmq.conf"), "RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(dir, "plugins"),
			"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}",
			path,
		},
		Ready: func(ctx context.Context) error { return s.request(ctx, http.MethodGet, "overview", "") },
	})
	for _, put := range []string{"vhosts/shop", "permissions/shop/ebb", "queues/shop/jobs"} {
		if err := s.request(t.Context(), http.MethodPut, put, `{"configure":".*","write":".*","read":".*","durable":true}`); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// request asks the management API, which makes what is put.
func (s RabbitMQ) request(ctx context.Context, method, what, body string) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+s.API+"/api/"+what, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.SetBasicAuth("ebb", "hunter2")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if said, err := io.ReadAll(response.Body); err != nil || response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s %s: %s %s, %w", method, what, response.Status, said, err)
	}
	return nil
}
