package servers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

// Redis runs a server with more configuration, as arguments.
func Redis(t testing.TB, arguments ...string) Server {
	t.Helper()
	port, dir := process.Port(t), process.Dir(t, "redis")
	address := "127.0.0.1:" + port
	return Server{process.Start(t, process.Program{
		Path: process.Find(t, "redis-server"), Dir: dir, User: "redis",
		Args:  append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir}, arguments...),
		Ready: func(ctx context.Context) error { return ping(ctx, address) },
	}), address}
}

// ping tells whether a server answers, if only that it wants a password.
func ping(ctx context.Context, address string) error {
	said, err := say(ctx, address, "PING")
	if err == nil && said != "+PONG" && !strings.HasPrefix(said, "-NOAUTH") {
		err = errors.New(said)
	}
	return err
}

// say has a server do a command and returns its answer, as it came.
func say(ctx context.Context, address, command string) (string, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte(command + "\r\n")); err != nil {
		return "", err
	}
	reader := bufio.NewReader(conn)
	said, err := reader.ReadString('\n')
	if err != nil {
		return "", err
	}
	said = strings.TrimSpace(said)
	length, bulk := strings.CutPrefix(said, "$")
	if !bulk {
		return said, nil
	}
	n, err := strconv.Atoi(length)
	if err != nil {
		return "", err
	}
	text := make([]byte, n)
	_, err = io.ReadFull(reader, text)
	return string(text), err
}

// RedisCluster runs three servers that share the slots.
func RedisCluster(t testing.TB) []Server {
	t.Helper()
	var nodes []Server
	var buses []string
	for range 3 {
		bus := process.Port(t)
		buses = append(buses, bus)
		nodes = append(nodes, Redis(t, "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "2000"))
	}
	for i, node := range nodes {
		host, port, _ := strings.Cut(node.Address, ":")
		for address, command := range map[string]string{
			node.Address:                    fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", i*16384/3, (i+1)*16384/3-1),
			nodes[(i+1)%len(nodes)].Address: fmt.Sprintf("CLUSTER MEET %s %s %s", host, port, buses[i]),
		} {
			if said, err := say(t.Context(), address, command); err != nil || said != "+OK" {
				t.Fatalf("%s: %s, %v", command, said, err)
			}
		}
	}
	deadline, tick := time.After(30*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for _, node := range nodes {
		for {
			said, err := say(t.Context(), node.Address, "CLUSTER INFO")
			if err == nil && strings.Contains(said, "cluster_state:ok") && strings.Contains(said, "cluster_known_nodes:3") {
				break
			}
			select {
			case <-deadline:
				t.Fatalf("the cluster does not become whole: %s, %v", said, err)
			case <-tick.C:
			}
		}
	}
	return nodes
}

// Who is let in by Redis and by its sentinel.
const (
	RedisPassword    = "pw-of-redis"
	SentinelUser     = "watcher"
	SentinelPassword = "pw-of-sentinel"
)

// A Sentinel watches over a server named "jobs" and its replica; all have passwords.
type Sentinel struct {
	Server
	Main, Replica Server
}

// RedisSentinel runs a server, a replica and a sentinel, which may not know of the replica yet.
func RedisSentinel(t testing.TB) Sentinel {
	t.Helper()
	const word = RedisPassword
	main := Redis(t, "--requirepass", word, "--masterauth", word, "--repl-diskless-sync-delay", "0")
	host, port, _ := strings.Cut(main.Address, ":")
	replica := Redis(t, "--requirepass", word, "--masterauth", word, "--replicaof", host+" "+port)
	own, dir := process.Port(t), process.Dir(t, "redis")
	address, config := "127.0.0.1:"+own, filepath.Join(dir, "sentinel.conf")
	text := fmt.Sprintf(`port %s
bind 127.0.0.1
dir %s
user default off
user %s on >%s allchannels +@all
sentinel sentinel-user %[3]s
sentinel sentinel-pass %[4]s
sentinel monitor jobs %s %s 1
sentinel auth-pass jobs %s
sentinel down-after-milliseconds jobs 1000
sentinel failover-timeout jobs 5000
`, own, dir, SentinelUser, SentinelPassword, host, port, word)
	if err := os.WriteFile(config, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(config, 0o666); err != nil { // it keeps its state in there
		t.Fatal(err)
	}
	return Sentinel{Server{process.Start(t, process.Program{
		Path: process.Find(t, "redis-sentinel"), Dir: dir, User: "redis", Args: []string{config},
		Ready: func(ctx context.Context) error { return ping(ctx, address) },
	}), address}, main, replica}
}
