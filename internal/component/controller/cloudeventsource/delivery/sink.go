package delivery

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	protocol "github.com/cloudevents/sdk-go/v2/protocol/http"
)

// maxAnswer is how much of a sink's answer is read, to use its connection again.
const maxAnswer = 64 << 10

// A Sender says who sends: it stands in what events say of themselves.
type Sender struct {
	// Cluster is the cluster's name.
	Cluster string
	// Namespace is where KEDA is or would be.
	Namespace string
}

// data is what an event holds.
type data struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func (s Sender) source() string { return "/" + s.Cluster + "/" + s.Namespace + "/keda" }

func (s Sender) subject(e *Event) string {
	return "/" + s.Cluster + "/" + e.Namespace + "/" + e.Kind + "/" + e.Name
}

// cloudEvent is the event as it is sent.
func (s Sender) cloudEvent(e *Event) (*event.Event, error) {
	out := event.New()
	out.SetID(e.ID)
	out.SetSource(s.source())
	out.SetSubject(s.subject(e))
	out.SetType(string(e.Type))
	out.SetTime(e.Time)
	if err := out.SetData(event.ApplicationJSON, data{Reason: e.Reason, Message: e.Message}); err != nil {
		return nil, fmt.Errorf("writing the data of an event: %w", err)
	}
	return &out, nil
}

// HTTP is a Sink that takes CloudEvents by HTTP, in binary mode as KEDA sends them.
type HTTP struct {
	sender Sender
	uri    string
	client *http.Client
}

// NewHTTP returns a Sink at a URI.
func NewHTTP(sender Sender, uri string, client *http.Client) (*HTTP, error) {
	if err := checkURI(uri, "http", "https"); err != nil {
		return nil, err
	}
	return &HTTP{sender, uri, client}, nil
}

func checkURI(uri string, schemes ...string) error {
	u, err := url.ParseRequestURI(uri)
	if err != nil || u.Host == "" {
		return fmt.Errorf("the destination %q is no URI", uri)
	}
	if slices.Contains(schemes, u.Scheme) {
		return nil
	}
	return fmt.Errorf("the destination must begin with %s://", cmp.Or(schemes...))
}

// Kind implements Sink.
func (*HTTP) Kind() string { return "http" }

// Send implements Sink.
func (h *HTTP) Send(ctx context.Context, e *Event) error {
	out, err := h.sender.cloudEvent(e)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.uri, nil)
	if err != nil {
		return fmt.Errorf("making a request: %w", err)
	}
	if err := protocol.WriteRequest(ctx, binding.ToMessage(out), request); err != nil {
		return fmt.Errorf("writing an event: %w", err)
	}
	return post(h.client, request)
}

func post(client *http.Client, request *http.Request) error {
	answer, err := client.Do(request)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok { // names the URI, which may have a password in it
			err = wrapped.Err
		}
		return fmt.Errorf("sending an event to %s: %w", request.URL.Host, err)
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer))
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return fmt.Errorf("sending an event to %s: it answered %s", request.URL.Host, answer.Status)
	}
	if err != nil {
		return fmt.Errorf("reading the answer of %s: %w", request.URL.Host, err)
	}
	return nil
}

// A Ticket lets a request through to an Event Grid topic: one of both is given.
type Ticket struct{ AccessKey, Token string }

// EventGrid is a Sink that is a topic of Azure Event Grid.
type EventGrid struct {
	sender   Sender
	endpoint string
	client   *http.Client
	ticket   func(context.Context) (Ticket, error)
}

// eventGridVersion is that of the publishing API of custom topics.
const eventGridVersion = "2018-01-01"

// NewEventGrid returns a Sink at a topic's endpoint; ticket is asked before each event.
func NewEventGrid(sender Sender, endpoint string, client *http.Client, ticket func(context.Context) (Ticket, error)) (*EventGrid, error) {
	if err := checkURI(endpoint, "https"); err != nil {
		return nil, err
	}
	return &EventGrid{sender, endpoint, client, ticket}, nil
}

// Kind implements Sink.
func (*EventGrid) Kind() string { return "azureEventGridTopic" }

// Send implements Sink: one batch of one event.
func (g *EventGrid) Send(ctx context.Context, e *Event) error {
	ticket, err := g.ticket(ctx)
	if err != nil {
		return err
	}
	body, err := json.Marshal([]any{struct {
		SpecVersion     string `json:"specversion"`
		ID              string `json:"id"`
		Source          string `json:"source"`
		Subject         string `json:"subject"`
		Type            string `json:"type"`
		Time            string `json:"time"`
		DataContentType string `json:"datacontenttype"`
		Data            data   `json:"data"`
	}{
		"1.0", e.ID, g.sender.source(), g.sender.subject(e), string(e.Type), e.Time.UTC().Format(time.RFC3339Nano),
		event.ApplicationJSON,
		data{Reason: e.Reason, Message: e.Message},
	}})
	if err != nil {
		return fmt.Errorf("writing an event: %w", err)
	}
	at, err := url.Parse(g.endpoint)
	if err != nil {
		return fmt.Errorf("reading the topic's endpoint: %w", err)
	}
	query := at.Query()
	query.Set("api-version", eventGridVersion)
	at.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("making a request: %w", err)
	}
	request.Header.Set("Content-Type", "application/cloudevents-batch+json; charset=utf-8")
	if ticket.AccessKey != "" {
		request.Header.Set("Aeg-Sas-Key", ticket.AccessKey)
	} else {
		request.Header.Set("Authorization", "Bearer "+ticket.Token)
	}
	return post(g.client, request)
}
