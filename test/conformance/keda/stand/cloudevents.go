package main

import (
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
)

// cloudEvents keeps the events it is sent and shows those of a reason.
func cloudEvents(context.Context, []string) error {
	var mu sync.Mutex
	var kept []map[string]any
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{$}", func(w http.ResponseWriter, r *http.Request) {
		event, err := read(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		kept = append(kept, event)
	})
	mux.HandleFunc("GET /getCloudEvent/{reason}", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		found := []map[string]any{}
		for _, event := range kept {
			if data, isMap := event["data"].(map[string]any); isMap && data["reason"] == r.PathValue("reason") {
				found = append(found, event)
			}
		}
		_ = json.NewEncoder(w).Encode(found)
	})
	return serve(":8899", mux)
}

// read takes an event in either mode of the HTTP binding.
func read(r *http.Request) (map[string]any, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	event := map[string]any{}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/cloudevents+json" {
		return event, json.Unmarshal(body, &event)
	}
	for name, values := range r.Header {
		if attribute, is := strings.CutPrefix(strings.ToLower(name), "ce-"); is {
			event[attribute] = values[0]
		}
	}
	event["datacontenttype"] = r.Header.Get("Content-Type")
	var data any
	if err := json.Unmarshal(body, &data); err != nil {
		return nil, err
	}
	event["data"] = data
	return event, nil
}
