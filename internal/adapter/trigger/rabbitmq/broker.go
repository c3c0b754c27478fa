package rabbitmq

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

const (
	// tick is how often queues that are watched are asked for, and most how many at a time: a thousand
	// queues have their turn within a second, and no number of them is a burden to a server.
	tick = 200 * time.Millisecond
	most = 250
	// soon and late bound how long a queue rests that cannot be asked for: soon where that is the way's
	// fault. A server logs each question that it refuses as an error, and closes a channel by it.
	soon = 500 * time.Millisecond
	late = 5 * time.Second
	// together is how many channels a connection has, so that many questions to a server far away are
	// on their way at once.
	together = 8
	// hello is how long connecting may take; a server lets who gives a wrong password wait for 3 s.
	hello = 5 * time.Second
	// enough is how long answers are waited for: a queue that is slow to answer must not keep others
	// waiting.
	enough = 3 * time.Second
	// patience is how long an answer may take before a connection is given up.
	patience = 15 * time.Second
	// goodbye is how long a server has to answer to that.
	goodbye = time.Second
)

// address returns where and as whom to connect, and to which virtual host.
func (p *parameters) address() (*url.URL, error) {
	at, err := url.Parse(p.Host)
	if err == nil {
		_, err = amqp091.ParseURI(p.Host)
	}
	if err != nil {
		return nil, errors.New("parsing host: it is no URL of the form amqp://user:password@host:port/vhost") // the cause may quote a password
	}
	if p.Vhost != "" {
		at.Path, at.RawPath = "/"+p.Vhost, "/"+url.PathEscape(p.Vhost)
	}
	if p.Username != "" {
		at.User = url.UserPassword(p.Username, p.Password)
	}
	return at, nil
}

var errSlow = fmt.Errorf("there was no answer within %s: %w", enough, endpoint.ErrLost)

// A depth is what a server says of a queue.
type depth struct {
	messages int
	err      error
}

// A broker is what triggers of one virtual host share. It connects when it is first asked, and again
// after a connection broke.
type broker struct {
	at        *url.URL
	tls       *tls.Config              // nil where the address says it all
	sasl      []amqp091.Authentication // nil where the address says it
	dial      func(ctx context.Context, network, address string) (net.Conn, error)
	questions *endpoint.Batch[string, depth]
	poller    *endpoint.Poller[string, int]

	turn   chan struct{} // whose value who connects has; guards the fields below
	link   *link
	closed bool

	mu      sync.Mutex // guards watched
	watched map[string]*followed
}

// A link is a connection with its channels. A channel is used by one at a time, and opened when it is
// needed and not there, since a server closes one on any question it does not like.
type link struct {
	*amqp091.Connection
	wire     net.Conn
	channels chan *amqp091.Channel
}

// followed is a queue the poller asks for.
type followed struct {
	due   time.Time
	rest  time.Duration // of a queue that could not be asked for; 0 for others
	depth int
}

func newBroker(at *url.URL, p parameters, env trigger.Environment) (*broker, func(), error) {
	b := &broker{at: at, dial: env.Dial, turn: make(chan struct{}, 1), watched: map[string]*followed{}}
	b.turn <- struct{}{}
	switch {
	case p.TLS == "enable":
		config, err := p.tls().TLS(env.TLS)
		if err != nil {
			return nil, nil, err
		}
		b.tls = config
		// A certificate alone says who we are, unless the address has a password.
		if _, password := at.User.Password(); !password && p.Cert != "" {
			b.sasl = []amqp091.Authentication{&amqp091.ExternalAuth{}}
		}
	case !slices.ContainsFunc([]string{"cacertfile", "certfile", "keyfile", "server_name_indication"}, at.Query().Has):
		b.tls = env.TLS
	}
	b.questions = endpoint.NewBatch(b.ask)
	b.poller = endpoint.NewPoller(env.Shared, tick, b.changes)
	return b, b.close, nil
}

func (b *broker) close() {
	<-b.turn
	b.closed = true
	if b.link != nil {
		_ = b.link.CloseDeadline(time.Now().Add(goodbye))
	}
	b.turn <- struct{}{}
}

// connect returns a connection that is open as far as anybody knows.
func (b *broker) connect(ctx context.Context) (*link, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-b.turn:
	}
	defer func() { b.turn <- struct{}{} }()
	if b.closed {
		return nil, net.ErrClosed
	}
	if b.link == nil || b.link.IsClosed() {
		fresh, err := b.open(ctx)
		if err != nil {
			return nil, fmt.Errorf("connecting: %w", err)
		}
		b.link = fresh
	}
	return b.link, nil
}

func (b *broker) open(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, hello)
	defer cancel()
	fresh := &link{channels: make(chan *amqp091.Channel, together)}
	for range together {
		fresh.channels <- nil
	}
	config := amqp091.Config{SASL: b.sasl, Properties: amqp091.Table{"connection_name": "ebb", "product": "ebb"}}
	if b.tls != nil {
		config.TLSClientConfig = b.tls.Clone() // the name of the server is written into it
	}
	var ended func() bool
	config.Dial = func(network, address string) (net.Conn, error) {
		conn, err := b.dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		fresh.wire = conn
		ended = context.AfterFunc(ctx, func() { _ = conn.Close() })
		return conn, nil
	}
	conn, err := amqp091.DialConfig(b.at.String(), config)
	switch {
	case err == nil && ended():
		fresh.Connection = conn
		return fresh, nil
	case fresh.wire != nil:
		_ = fresh.wire.Close()
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, told(err)
}

// told marks errors that the client makes of a connection that broke.
func told(err error) error {
	if said, is := errors.AsType[*amqp091.Error](err); is && !said.Server && (said.Code == amqp091.FrameError || said.Code == amqp091.ChannelError) {
		return fmt.Errorf("%w: %w", endpoint.ErrLost, err)
	}
	return err
}

// ask asks for the depths of queues. It fails as a whole if there is no connection.
func (b *broker) ask(ctx context.Context, queues []string) (map[string]depth, error) {
	l, err := b.connect(ctx)
	if err != nil {
		return nil, err
	}
	type answer struct {
		queue string
		depth depth
	}
	next, said := make(chan string, len(queues)), make(chan answer, len(queues))
	for _, queue := range queues {
		next <- queue
	}
	close(next)
	for range min(together, len(queues)) {
		go func() {
			for queue := range next {
				said <- answer{queue, l.depth(ctx, queue)}
			}
		}()
	}
	answers := make(map[string]depth, len(queues))
	for _, queue := range queues {
		answers[queue] = depth{err: errSlow}
	}
	limit := time.After(enough)
	for range queues {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-limit:
			return answers, nil
		case a := <-said:
			answers[a.queue] = a.depth
		}
	}
	return answers, nil
}

// depth asks for one queue. It may take as long as patience even if its context ends.
func (l *link) depth(ctx context.Context, queue string) depth {
	var channel *amqp091.Channel
	select {
	case <-ctx.Done():
		return depth{err: ctx.Err()}
	case channel = <-l.channels:
	}
	defer func() { l.channels <- channel }()
	defer time.AfterFunc(patience, func() { _ = l.wire.Close() }).Stop()
	if channel == nil || channel.IsClosed() {
		fresh, err := l.Channel()
		if err != nil {
			return depth{err: fmt.Errorf("opening a channel: %w", told(err))}
		}
		channel = fresh
	}
	found, err := channel.QueueDeclarePassive(queue, false, false, false, false, nil)
	return depth{found.Messages, told(err)}
}

// changes answers for the poller: it asks for the queues whose turn it is, and has the others be as
// they were.
func (b *broker) changes(ctx context.Context, queues []string) (map[string]int, error) {
	if due := b.due(queues); len(due) > 0 {
		answers, err := b.ask(ctx, due)
		if err != nil {
			return nil, err
		}
		b.note(answers)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	depths := make(map[string]int, len(queues))
	for _, queue := range queues {
		if f := b.watched[queue]; f != nil && f.rest == 0 && !f.due.IsZero() {
			depths[queue] = f.depth
		}
	}
	return depths, nil
}

// due returns the queues that wait longest for their turn, and forgets those nobody watches.
func (b *broker) due(queues []string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	watched := make(map[string]*followed, len(queues))
	var due []string
	now := time.Now()
	for _, queue := range queues {
		f := b.watched[queue]
		if f == nil {
			f = &followed{}
		}
		watched[queue] = f
		if !f.due.After(now) {
			due = append(due, queue)
		}
	}
	b.watched = watched
	slices.SortFunc(due, func(a, b string) int { return cmp.Or(watched[a].due.Compare(watched[b].due), cmp.Compare(a, b)) })
	return due[:min(most, len(due))]
}

func (b *broker) note(answers map[string]depth) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for queue, answer := range answers {
		f := b.watched[queue]
		switch {
		case f == nil:
		case endpoint.Lost(answer.err):
			f.rest = soon
			f.due = now.Add(f.rest)
		case answer.err != nil:
			f.rest = min(max(soon, 2*f.rest), late)
			f.due = now.Add(f.rest)
		default:
			f.depth, f.rest, f.due = answer.messages, 0, now
		}
	}
}
