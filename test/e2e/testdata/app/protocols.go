package main

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// inFlight counts the requests inside /busy.
var inFlight atomic.Int64

// protocols adds what a test of the way between client and instance talks to.
func protocols(mux *http.ServeMux) {
	mux.HandleFunc("/busy", busy)
	mux.HandleFunc("/events", events)
	mux.HandleFunc("/upload", upload)
	mux.HandleFunc("/download", download)
	mux.HandleFunc("/trailer", trailer)
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/die", die)
	mux.HandleFunc("/trace", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("Traceparent")) })
	mux.HandleFunc("/proto", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.Proto, r.Host) })
	mux.HandleFunc("/grpc.health.v1.Health/Check", health)
}

// busy takes a moment and tells how many others were inside.
func busy(w http.ResponseWriter, r *http.Request) {
	n := inFlight.Add(1)
	defer inFlight.Add(-1)
	io.Copy(io.Discard, r.Body)
	time.Sleep(20 * time.Millisecond)
	fmt.Fprintln(w, n)
}

// events streams numbers, one each 100 ms.
func events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	n, _ := strconv.Atoi(r.URL.Query().Get("n"))
	for i := range n {
		fmt.Fprintf(w, "data: %d\n\n", i)
		w.(http.Flusher).Flush()
		time.Sleep(100 * time.Millisecond)
	}
}

// upload answers with the body's length, hash and trailer.
func upload(w http.ResponseWriter, r *http.Request) {
	h := sha256.New()
	n, err := io.Copy(h, r.Body)
	fmt.Fprintf(w, "%d %x %v %s\n", n, h.Sum(nil), err, r.Trailer.Get("X-End"))
}

// download sends megabytes.
func download(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.URL.Query().Get("mb"))
	chunk := make([]byte, 1<<20)
	for range n {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

func trailer(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Trailer", "X-End")
	io.WriteString(w, "body")
	w.Header().Set("X-End", "bye")
}

// echo is a WebSocket's handshake, then every byte comes back.
func echo(w http.ResponseWriter, r *http.Request) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		log.Print("upgrading: ", err)
		return
	}
	defer conn.Close()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	rw.Flush()
	io.Copy(conn, rw)
}

// die ends the process in the midst of a request, before or after the response began.
func die(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("partly") {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "part")
		w.(http.Flusher).Flush()
	}
	os.Exit(3)
}

// health answers gRPC's health check with SERVING.
func health(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	w.Write([]byte{0, 0, 0, 0, 2, 8, 1})
	w.Header().Set("Grpc-Status", "0")
}
