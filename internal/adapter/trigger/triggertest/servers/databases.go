package servers

import (
	"context"
	"path/filepath"
	"testing"

	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

// PostgreSQLPassword is that of the user "postgres".
const PostgreSQLPassword = "s3cr et'"

// PostgreSQL makes a server on a port, which serves once a client can connect.
func PostgreSQL(t testing.TB) (p process.Program, port string) {
	t.Helper()
	initdb := process.Find(t, "initdb", "/usr/lib/postgresql/*/bin/initdb")
	dir, port := process.Dir(t, "postgres"), process.Port(t)
	data := filepath.Join(dir, "data")
	process.Run(t, process.Program{
		Path: "/bin/sh", Dir: dir, User: "postgres",
		Args: []string{"-c", `printf %s "$1" >pw && exec "$0" -N -A scram-sha-256 -U postgres --pwfile=pw -D "$2"`, initdb, PostgreSQLPassword, data},
	})
	return process.Program{
		Path: filepath.Join(filepath.Dir(initdb), "postgres"), Dir: dir, User: "postgres",
		Args: []string{"-D", data, "-p", port, "-k", dir, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"},
	}, port
}

// MariaDB makes a server on a port with a database "work" for the user "ebb" with the password
// "hunter2". It serves once a client can connect.
func MariaDB(t testing.TB) (p process.Program, port string) {
	t.Helper()
	install, daemon := process.Find(t, "mariadb-install-db"), process.Find(t, "mariadbd", "/usr/sbin/mariadbd")
	dir, port := process.Dir(t, "mysql"), process.Port(t)
	data, setup := filepath.Join(dir, "data"), filepath.Join(dir, "setup.sql")
	process.Run(t, process.Program{Path: install, Dir: dir, User: "mysql", Args: []string{
		"--no-defaults", "--datadir=" + data, "--auth-root-authentication-method=normal", "--skip-test-db",
	}})
	process.Run(t, process.Program{Path: "/bin/sh", Dir: dir, User: "mysql", Args: []string{
		"-c", `printf %s "$1" >"$0"`, setup,
		"CREATE DATABASE IF NOT EXISTS work;\nCREATE USER IF NOT EXISTS ebb@'127.0.0.1' IDENTIFIED BY 'hunter2';\nGRANT ALL ON work.* TO ebb@'127.0.0.1';\n",
	}})
	return process.Program{
		Path: daemon, Dir: dir, User: "mysql", Args: []string{
			"--no-defaults", "--datadir=" + data, "--port=" + port, "--bind-address=127.0.0.1", "--skip-name-resolve",
			"--socket=" + filepath.Join(dir, "sock"), "--init-file=" + setup, "--innodb-flush-log-at-trx-commit=2",
		},
	}, port
}

// MongoDB runs a MongoDB, or what speaks like one: FerretDB, which make builds into that folder.
func MongoDB(t testing.TB, bin string) Server {
	t.Helper()
	path, err := filepath.Abs(process.Find(t, "mongod", "ferretdb", filepath.Join(bin, "ferretdb")))
	if err != nil {
		t.Fatal(err)
	}
	dir, port := process.Dir(t, ""), process.Port(t)
	address := "127.0.0.1:" + port
	args := []string{address, dir}
	if filepath.Base(path) == "mongod" {
		args = []string{"--port", port, "--dbpath", dir, "--bind_ip", "127.0.0.1"}
	}
	return Server{process.Start(t, process.Program{
		Path: path, Dir: dir, Args: args, Ready: func(ctx context.Context) error { return dial(ctx, address) },
	}), address}
}

// Etcd makes a server at an address, https:// when arguments bring a certificate.
func Etcd(t testing.TB, scheme string, arguments ...string) (p process.Program, address string) {
	t.Helper()
	path, dir, peer := process.Find(t, "etcd"), process.Dir(t, ""), "http://127.0.0.1:"+process.Port(t)
	address = "127.0.0.1:" + process.Port(t)
	return process.Program{Path: path, Dir: dir, Args: append([]string{
		"--data-dir", filepath.Join(dir, "data"), "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", "default=" + peer, "--auth-token", "simple", "--logger", "zap", "--log-level", "error",
		"--listen-client-urls", scheme + "://" + address, "--advertise-client-urls", scheme + "://" + address,
	}, arguments...)}, address
}
