// Command hello is the smallest server the benchmarks start. Asked with ?sleep=20ms it takes its
// time; then it says which instance it is and when it was at work, in nanoseconds.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	host, err := os.Hostname()
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "" {
			_, _ = w.Write([]byte("hello\n"))
			return
		}
		began := time.Now()
		if d, err := time.ParseDuration(r.URL.Query().Get("sleep")); err == nil {
			time.Sleep(d)
		}
		_, _ = fmt.Fprintln(w, host, began.UnixNano(), time.Now().UnixNano())
	})
	log.Fatal(http.ListenAndServe(":8080", nil)) //nolint:gosec // it lives for a measurement
}
