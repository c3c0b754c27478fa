package endpoint

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func config() HTTPConfig {
	return HTTPConfig{Dial: (&net.Dialer{}).DialContext, Timeout: 5 * time.Second}
}

func acquire(t *testing.T, p *Pool, c HTTPConfig) *HTTP {
	t.Helper()
	h, err := AcquireHTTP(p, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func ask(t *testing.T, h *HTTP, address string, change func(*http.Request)) (status int, body string, err error) {
	t.Helper()
	r, err := Get(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	status, b, err := h.Do(r)
	return status, string(b), err
}

func TestHTTPSharesConnections(t *testing.T) {
	var open atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) }))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			open.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	p := NewPool(t.Context())
	var all sync.WaitGroup
	for n := range 200 {
		h := acquire(t, p, config())
		all.Go(func() {
			want := fmt.Sprintf("/%d", n)
			if status, body, err := ask(t, h, server.URL+want, nil); status != 200 || body != want || err != nil {
				t.Errorf("%d %s, %v; want %s", status, body, err, want)
			}
		})
	}
	all.Wait()
	if n := open.Load(); n > connections {
		t.Errorf("200 triggers opened %d connections", n)
	}
	unsafe := config()
	unsafe.Certificate.Unsafe = true
	acquire(t, p, unsafe)
	if p.Len() != 2 {
		t.Errorf("%d sets of connections; want one for each way to trust", p.Len())
	}
}

func TestHTTPKeepsSecretsOutOfErrors(t *testing.T) {
	huge := make([]byte, 1<<20)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/huge":
			for range largest>>20 + 1 {
				_, _ = w.Write(huge)
			}
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "short")
		case "/slow":
			<-r.Context().Done()
		case "/round":
			http.Redirect(w, r, r.URL.String(), http.StatusFound)
		}
	}))
	defer server.Close()
	address := strings.Replace(server.URL, "http://", "http://user:hunter2@", 1)
	c := config()
	c.Timeout = 500 * time.Millisecond
	h := acquire(t, NewPool(t.Context()), c)
	for name, at := range map[string]string{
		"an answer without end": "/huge", "half an answer": "/cut", "no answer in time": "/slow", "redirects in a circle": "/round",
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := ask(t, h, address+at+"?key=hunter2", nil)
			if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), server.URL+at+":") {
				t.Errorf("it fails with %v; want an error that names the place and no secret", err)
			}
		})
	}
	server.Close()
	if _, _, err := ask(t, h, address+"/?key=hunter2", nil); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("where nobody answers it fails with %v", err)
	}
	for _, address := range []string{"http://user:hunter2@host:port/", "http://a%zz/?hunter2", "://hunter2"} {
		if _, err := Get(t.Context(), address); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestHTTPTrustsAsToldTo(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	authority := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	p := NewPool(t.Context())
	for name, test := range map[string]struct {
		certificate Certificate
		trusted     bool
	}{
		"nobody":       {},
		"an authority": {Certificate{CA: authority}, true},
		"anybody":      {Certificate{Unsafe: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := config()
			c.Certificate = test.certificate
			if _, _, err := ask(t, acquire(t, p, c), server.URL, nil); (err == nil) != test.trusted {
				t.Errorf("asking: %v; want trust: %v", err, test.trusted)
			}
		})
	}
	broken := config()
	broken.Certificate = Certificate{Cert: "ceert", Key: "keey"}
	if _, err := AcquireHTTP(p, broken); err == nil {
		t.Error("it took a certificate that is none")
	}
	if p.Len() != 0 {
		t.Errorf("%d things are kept", p.Len())
	}
}

func TestOAuthSignsWithOneToken(t *testing.T) {
	var asked atomic.Int32
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		user, password, basic := r.BasicAuth()
		if err := r.ParseForm(); err != nil || !basic || user != "me" || password != "hunter2" || r.Form.Has("client_secret") ||
			r.Form.Get("grant_type") != "client_credentials" || r.Form.Get("scope") != "a b" || r.Form.Get("audience") != "x" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":"invalid_client","error_description":"hunter2 is wrong"}`)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"fresh","token_type":"Bearer","expires_in":3600}`)
	}))
	defer issuer.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("Authorization"))
	}))
	defer server.Close()
	p := NewPool(t.Context())
	a := &Auth{TokenURI: issuer.URL + "?k=hunter2", ClientID: "me", ClientSecret: "hunter2", Scopes: []string{"a", "b"}, TokenParameters: "audience=x"}
	var all sync.WaitGroup
	for range 50 {
		c := config()
		c.OAuth(a)
		h := acquire(t, p, c)
		all.Go(func() {
			for range 3 {
				if _, body, err := ask(t, h, server.URL, nil); err != nil || body != "Bearer fresh" {
					t.Errorf("signed with %q, %v", body, err)
				}
			}
		})
	}
	all.Wait()
	if n := asked.Load(); n > 2 {
		t.Errorf("%d tokens were got for 150 requests", n)
	}
	c := config()
	wrong := *a
	wrong.ClientSecret = "hunter3"
	c.OAuth(&wrong)
	if _, _, err := ask(t, acquire(t, p, c), server.URL, nil); err == nil ||
		strings.Contains(err.Error(), "hunter") || !strings.Contains(err.Error(), "invalid_client") {
		t.Errorf("a wrong secret fails with %v", err)
	}
	issuer.Close()
	wrong.ClientSecret = "hunter4"
	c = config()
	c.OAuth(&wrong)
	if _, _, err := ask(t, acquire(t, p, c), server.URL, nil); err == nil || strings.Contains(err.Error(), "hunter") {
		t.Errorf("without an issuer it fails with %v", err)
	}
}

func TestTokensEndWithTheirAskers(t *testing.T) {
	p := NewPool(t.Context())
	c := config()
	c.Timeout = 100 * time.Millisecond
	ended := make(chan error, 1)
	c.TokenKey = "slow"
	c.Token = func(ctx context.Context, _ *http.Client) (*Token, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}
	if _, _, err := ask(t, acquire(t, p, c), "http://127.0.0.1:1", nil); err == nil {
		t.Error("it asked without a token")
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("getting the token ended with %v", err)
	}
}

func TestGoogleSignsAsAServiceAccount(t *testing.T) {
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" || strings.Count(r.FormValue("assertion"), ".") != 2 {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = io.WriteString(w, `{"access_token":"fresh","token_type":"Bearer","expires_in":3600}`)
	}))
	defer issuer.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("Authorization"))
	}))
	defer server.Close()
	key := serviceAccount(t, issuer.URL)
	file := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
	for name, given := range map[string]string{"by a key": key, "as the machine": ""} {
		t.Run(name, func(t *testing.T) {
			c := config()
			if err := c.Google(given, "https://scope"); err != nil {
				t.Fatal(err)
			}
			if _, body, err := ask(t, acquire(t, NewPool(t.Context()), c), server.URL, nil); err != nil || body != "Bearer fresh" {
				t.Errorf("signed with %q, %v", body, err)
			}
		})
	}
	for _, wrong := range []string{"hunter2", `{"type":"authorized_user","client_secret":"hunter2"}`} {
		c := config()
		if err := c.Google(wrong, "https://scope"); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

func serviceAccount(t *testing.T, issuer string) string {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "me@example.com", "token_uri": issuer,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(key)
}
