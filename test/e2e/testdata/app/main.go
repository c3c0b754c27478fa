// Command app is the end-to-end suite's workload: it greets, sleeps, burns CPU, exits, eats memory and calls
// others as its environment and the request's query say.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	if path := os.Getenv("WRITE"); path != "" {
		if err := os.WriteFile(path, []byte("written at the start"), 0o644); err != nil {
			log.Fatal(err)
		}
	}
	if code, err := strconv.Atoi(os.Getenv("EXIT")); err == nil {
		log.Printf("exiting with %d as told", code)
		os.Exit(code)
	}
	if d, err := time.ParseDuration(os.Getenv("START_DELAY")); err == nil {
		time.Sleep(d)
	}
	http.HandleFunc("/", handle)
	protocols(http.DefaultServeMux)
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	server := &http.Server{Addr: ":" + port, ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	if d, err := time.ParseDuration(os.Getenv("IDLE_TIMEOUT")); err == nil {
		server.IdleTimeout = d
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		log.Print("listening on ", server.Addr)
		if err := server.ListenAndServe(); err != nil {
			log.Fatal(err)
		}
	}()
	<-stop
	log.Print("stopping")
}

func handle(w http.ResponseWriter, r *http.Request) {
	log.Print(r.Method, " ", r.URL)
	q := r.URL.Query()
	if d, err := time.ParseDuration(q.Get("sleep")); err == nil {
		time.Sleep(d)
	}
	if d, err := time.ParseDuration(q.Get("burn")); err == nil {
		rounds := 0
		for end := time.Now().Add(d); time.Now().Before(end); rounds++ {
			rounds *= 3
		}
	}
	if code, err := strconv.Atoi(q.Get("exit")); err == nil {
		os.Exit(code)
	}
	if mb, err := strconv.Atoi(q.Get("eat")); err == nil {
		held := make([]byte, mb<<20)
		for i := 0; i < len(held); i += 4096 {
			held[i] = 1
		}
		fmt.Fprintf(w, "ate %d MB\n", len(held)>>20)
		return
	}
	if url := q.Get("call"); url != "" {
		client := http.Client{Timeout: 5 * time.Second}
		res, err := client.Get(url)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		fmt.Fprintf(w, "%d ", res.StatusCode)
		io.Copy(w, res.Body)
		return
	}
	if q.Has("host") {
		fmt.Fprintln(w, r.Host, r.Header.Get("K-Original-Host"))
		return
	}
	if path := q.Get("read"); path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		w.Write(data)
		return
	}
	if path := q.Get("write"); path != "" {
		if err := os.WriteFile(path, []byte(q.Get("data")), 0o644); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	if path := q.Get("remove"); path != "" {
		if err := os.Remove(path); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	greeting := os.Getenv("GREETING")
	if greeting == "" {
		greeting = "Hello"
	}
	host, _ := os.Hostname()
	fmt.Fprintf(w, "%s from %s\n", greeting, host)
}
