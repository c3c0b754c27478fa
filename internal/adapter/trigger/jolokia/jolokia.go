// Package jolokia is what triggers have in common that read one number of a Java program from its
// Jolokia agent, which answers for JMX by HTTP.
package jolokia

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

// A Question is which number to read, and as whom.
type Question struct {
	// Server is what kind of server is asked, as errors name it.
	Server string
	// URL is the agent's, followed by "read", the object and its attribute.
	URL                string
	Username, Password string
	// Origin is what the agent may want to know of who asks.
	Origin string
}

// Attributes takes apart the name of the object in the path of a Question's URL: "type=Broker,name=a"
// stands after the first colon and before the next slash.
func Attributes(path string) (url.Values, error) {
	_, name, found := strings.Cut(path, ":")
	if !found {
		return nil, errors.New("there is no object in it")
	}
	name, _, _ = strings.Cut(name, "/")
	name, _, _ = strings.Cut(name, ":")
	return url.ParseQuery(strings.ReplaceAll(name, ",", "&"))
}

type source struct {
	trigger.Single
	question Question
	client   *endpoint.HTTP
}

// New makes a Source of a number.
func New(c trigger.Config, metric trigger.Single, q Question, certificate endpoint.Certificate) (trigger.Source, error) {
	config := c.HTTP(0)
	config.Certificate = certificate
	client, err := endpoint.AcquireHTTP(c.Shared, config)
	if err != nil {
		return nil, err
	}
	return &source{metric, q, client}, nil
}

func (s *source) Read(ctx context.Context) ([]trigger.Reading, error) {
	value, err := s.ask(ctx)
	if err != nil {
		return nil, fmt.Errorf("inspecting %s queue size: %w", s.question.Server, err)
	}
	return s.Reading(float64(value)), nil
}

func (s *source) ask(ctx context.Context) (int64, error) {
	request, err := endpoint.Get(ctx, s.question.URL)
	if err != nil {
		return 0, err
	}
	request.SetBasicAuth(s.question.Username, s.question.Password)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Origin", s.question.Origin)
	status, body, err := s.client.Do(request)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Value  int64 `json:"value"`
		Status int   `json:"status"`
	}
	err = json.NewDecoder(bytes.NewReader(body)).Decode(&answer) // what follows is none of ours, as upstream
	switch {
	case status != http.StatusOK || err == nil && answer.Status != http.StatusOK:
		return 0, fmt.Errorf("%s management endpoint response error code : %d %d", s.question.Server, status, answer.Status)
	case err != nil:
		return 0, fmt.Errorf("reading the answer: %w", err)
	}
	return answer.Value, nil
}

func (s *source) Close() error {
	s.client.Close()
	return nil
}
