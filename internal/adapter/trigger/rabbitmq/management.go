package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

// quoted is how much of an answer an error quotes.
const quoted = 512

// A place is where the management API tells of a virtual host's queues, and as whom it is asked.
type place struct {
	queues, user, password string
}

// place takes the host apart: the last part of its path is the virtual host, what comes before leads
// to the API.
func (p *parameters) place() (place, error) {
	at, err := url.Parse(p.Host)
	if err != nil {
		return place{}, errors.New("parsing host: it is no URL of the form http://user:password@host:port/vhost") // the cause may quote a password
	}
	way, vhost := path.Split(at.EscapedPath())
	if p.Vhost != "" {
		vhost = segment(p.Vhost)
	}
	if vhost == "" {
		vhost = "%2F"
	}
	if way = path.Join("/", way); way == "/" {
		way = ""
	}
	to := place{queues: at.Scheme + "://" + at.Host + way + "/api/queues/" + vhost}
	if at.User != nil {
		to.user = at.User.Username()
		to.password, _ = at.User.Password()
	}
	if p.Username != "" {
		to.user, to.password = p.Username, p.Password
	}
	return to, nil
}

// segment escapes a name as one part of a path; unlike in a query, a plus is no space there.
func segment(name string) string { return strings.ReplaceAll(url.QueryEscape(name), "+", "%20") }

// reported is a trigger whose queues the management API tells of.
type reported struct {
	trigger.Single
	parameters parameters
	at         place
	client     *endpoint.HTTP
}

func newReported(metric trigger.Single, p parameters, c trigger.Config) (trigger.Source, error) {
	s := &reported{Single: metric, parameters: p}
	var err error
	if s.at, err = p.place(); err != nil {
		return nil, err
	}
	config := c.HTTP(p.Timeout)
	config.Certificate = p.tls()
	if p.Auth.Has(endpoint.OAuth) {
		config.OAuth(&s.parameters.Auth)
	}
	if s.client, err = endpoint.AcquireHTTP(c.Shared, config); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *reported) Read(ctx context.Context) ([]trigger.Reading, error) {
	found, err := s.ask(ctx)
	if err != nil {
		return nil, fmt.Errorf("inspecting RabbitMQ: %w", err)
	}
	if s.parameters.ReadyOnly {
		found.Messages = found.Ready
	}
	reading := s.Reading(0)
	value, active := found.judge(s.parameters.Mode, s.Activation)
	reading[0].Value, reading[0].Active = trigger.Quantity(value), active
	return reading, nil
}

func (s *reported) Close() error {
	s.client.Close()
	return nil
}

// ask returns the state of the trigger's queue, or of all that match.
func (s *reported) ask(ctx context.Context) (found state, err error) {
	p := &s.parameters
	if !p.UseRegex {
		err = s.get(ctx, s.at.queues+"/"+segment(p.Queue), &found)
		return found, err
	}
	var page struct {
		Queues []state `json:"items"`
		Pages  int     `json:"page_count"`
	}
	query := fmt.Sprintf("?page=1&use_regex=true&pagination=false&name=%s&page_size=%d", url.QueryEscape(p.Queue), p.PageSize)
	if err := s.get(ctx, s.at.queues+query, &page); err != nil {
		return found, err
	}
	if page.Pages > 1 {
		return found, errors.New("regex matches more queues than can be recovered at once")
	}
	return compose(page.Queues, p.Operation)
}

func (s *reported) get(ctx context.Context, at string, into any) error {
	request, err := endpoint.Get(ctx, at)
	if err != nil {
		return err
	}
	if s.at.user != "" || s.at.password != "" {
		request.SetBasicAuth(s.at.user, s.at.password)
	}
	status, body, err := s.client.Do(request)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("error requesting RabbitMQ API status: %d %s, response: %s, from: %s",
			status, http.StatusText(status), body[:min(quoted, len(body))], at)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("reading what the management API says: %w", err)
	}
	return nil
}
