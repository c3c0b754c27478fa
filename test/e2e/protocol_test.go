package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// TestProtocols passes each protocol through the gateway to real pods, one that speaks HTTP/1.1 and
// one that says by its port's name that it speaks HTTP/2.
func TestProtocols(t *testing.T) {
	image := greeter(t, shared, "speaks-http1")
	shared.apply(t, service("speaks-h2c", image)+"        ports:\n        - name: h2c\n          containerPort: 8080\n")
	awaitReady(t, shared, "speaks-h2c")
	for name, proto := range map[string]string{"speaks-http1": "HTTP/1.1", "speaks-h2c": "HTTP/2.0"} {
		t.Run(name, func(t *testing.T) {
			for client, transport := range map[string]*http.Transport{"HTTP/1.1 client": {}, "HTTP/2 client": h2cOnly()} {
				t.Run(client, func(t *testing.T) {
					defer transport.CloseIdleConnections()
					c := &http.Client{Transport: transport}
					if out := roundTrip(t, c, name, "/proto", nil); out != proto+" "+host(name)+"\n" {
						t.Errorf("the application saw %q, want %s", out, proto)
					}
					checkBodies(t, c, name)
					checkTrailers(t, c, name)
					checkStream(t, c, name)
				})
			}
			checkWebSocket(t, name)
		})
	}
	checkGRPC(t, "speaks-h2c")
}

func h2cOnly() *http.Transport {
	p := &http.Protocols{}
	p.SetUnencryptedHTTP2(true)
	return &http.Transport{Protocols: p}
}

// roundTrip returns the body of an answer that must be 200; with a body it is a POST.
func roundTrip(t *testing.T, c *http.Client, name, path string, body io.Reader) string {
	t.Helper()
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+shared.http+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host(name)
	res, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = res.Body.Close() }()
	out, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %d %v %s", method, path, res.StatusCode, err, out)
	}
	return string(out)
}

// checkBodies sends and receives 32 MB, with a length and without.
func checkBodies(t *testing.T, c *http.Client, name string) {
	t.Helper()
	data := bytes.Repeat([]byte("0123456789abcdef"), 2<<20)
	sum := sha256.Sum256(data)
	want := fmt.Sprintf("%d %s <nil>", len(data), hex.EncodeToString(sum[:]))
	for kind, body := range map[string]io.Reader{
		"known length": bytes.NewReader(data), "unknown length": io.MultiReader(bytes.NewReader(data)),
	} {
		if out := roundTrip(t, c, name, "/upload", body); !strings.HasPrefix(out, want) {
			t.Errorf("upload of %s: the application saw %q", kind, out)
		}
	}
	if out := roundTrip(t, c, name, "/download?mb=32", nil); len(out) != 32<<20 {
		t.Errorf("downloaded %d bytes", len(out))
	}
}

func checkTrailers(t *testing.T, c *http.Client, name string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+shared.http+"/upload", io.MultiReader(strings.NewReader("abc")))
	if err != nil {
		t.Fatal(err)
	}
	req.Host, req.Trailer = host(name), http.Header{"X-End": {"so long"}}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil || !strings.Contains(string(out), "so long") {
		t.Errorf("the application saw %q, %v; want the request's trailer", out, err)
	}
	req, err = http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+shared.http+"/trailer", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host(name)
	if res, err = c.Do(req); err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	if err != nil || res.Trailer.Get("X-End") != "bye" {
		t.Errorf("trailer %v, %v", res.Trailer, err)
	}
}

// checkStream reads events, which must come one by one as they are made.
func checkStream(t *testing.T, c *http.Client, name string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+shared.http+"/events?n=4", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host(name)
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var first, last time.Time
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: 0") {
			first = time.Now()
		}
		if strings.HasPrefix(lines.Text(), "data: 3") {
			last = time.Now()
		}
	}
	if apart := last.Sub(first); apart < 200*time.Millisecond {
		t.Errorf("first and last event came %s apart, want about 300ms: %v", apart, lines.Err())
	}
}

func checkWebSocket(t *testing.T, name string) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", shared.http)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET /echo HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", host(name))
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("upgrade: %v %+v", err, res)
	}
	for _, word := range []string{"hello", "again"} {
		got := make([]byte, len(word))
		if _, err := io.WriteString(conn, word); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(in, got); err != nil || string(got) != word {
			t.Errorf("echo of %q: %q, %v", word, got, err)
		}
	}
}

func checkGRPC(t *testing.T, name string) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+shared.http, grpc.WithAuthority(host(name)), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	res, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil || res.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("gRPC call: %v, %v", res, err)
	}
}
