package main

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// metricsAPI keeps a number that is set by POST /api/value/N and read by GET, also behind
// authentication.
func metricsAPI(context.Context, []string) error {
	var value atomic.Int64
	get := func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"value": value.Load(), "success": true})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/value", get)
	mux.HandleFunc("GET /api/basic/value", func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if !same(user, os.Getenv("AUTH_USERNAME")) || !same(password, os.Getenv("AUTH_PASSWORD")) {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		get(w, r)
	})
	mux.HandleFunc("GET /api/token/value", func(w http.ResponseWriter, r *http.Request) {
		if !same(r.Header.Get("Authorization"), "Bearer "+os.Getenv("AUTH_TOKEN")) {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		get(w, r)
	})
	mux.HandleFunc("POST /api/value/{number}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.PathValue("number"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		value.Store(n)
		_ = json.NewEncoder(w).Encode(n)
		fmt.Println("new value:", n)
	})
	ended := make(chan error, 2)
	go func() { ended <- serve(":8080", mux) }()
	if os.Getenv("USE_TLS") == "true" {
		secure := &http.Server{Addr: ":4333", Handler: mux, ReadHeaderTimeout: 10 * time.Second}
		go func() { ended <- secure.ListenAndServeTLS("/certs/tls.crt", "/certs/tls.key") }()
	}
	return <-ended
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
