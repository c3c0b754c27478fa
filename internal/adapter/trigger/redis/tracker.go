package redis

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// How often a key is asked about that was not changed: it shows that the server is there, which any key
// does for all of a connection, and that it still has the key. So the more keys a connection has, the more
// seldom each is asked about, within bounds.
const (
	review        = 10 * time.Second
	reviewPerKey  = 100 * time.Millisecond
	reviewAtLeast = time.Minute
)

// review is how often a key is asked about beside others.
func (t *tracker) review() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return min(max(review, time.Duration(len(t.followers))*reviewPerKey), reviewAtLeast)
}

// A refusal is the code of an error a server answers with; the rest may quote a password.
type refusal string

// Error says that a server refuses, and how.
func (r refusal) Error() string { return "the server refuses: " + string(r) }

// passes tells whether it may be otherwise soon: the server loads its data, or a slot moves.
func (r refusal) passes() bool {
	switch r {
	case "LOADING", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "BUSY":
		return true
	}
	return false
}

var (
	errClosed = errors.New("the connection was closed")
	errSilent = errors.New("the server does not answer")
)

// A tracker is a connection on which a server tells of changes to the keys it was asked about.
type tracker struct {
	conn net.Conn
	done chan struct{} // closed when the connection is

	mu        sync.Mutex // guards the fields below, and is held while writing
	err       error      // why it was closed
	asked     []chan value
	followers map[string]map[chan struct{}]struct{} // by key
}

// connect opens a connection of its own to the server of a client.
func connect(ctx context.Context, node *redis.Client) (*tracker, error) {
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	o := node.Options()
	conn, err := o.Dialer(limit, o.Network, o.Addr)
	if err != nil {
		return nil, err
	}
	t := &tracker{conn: conn, done: make(chan struct{}), followers: map[string]map[chan struct{}]struct{}{}}
	go t.read()
	hello := []string{"HELLO", "3"}
	if o.Password != "" {
		user := o.Username
		if user == "" {
			user = "default"
		}
		hello = append(hello, "AUTH", user, o.Password)
	}
	greetings := [][]string{hello, {"CLIENT", "TRACKING", "ON"}}
	if o.DB != 0 {
		greetings = append(greetings, []string{"SELECT", strconv.Itoa(o.DB)})
	}
	for _, greeting := range greetings {
		if err := t.do(limit, greeting...); err != nil {
			t.fail(err)
			return nil, err
		}
	}
	return t, nil
}

// lives tells whether the connection is open.
func (t *tracker) lives() bool {
	select {
	case <-t.done:
		return false
	default:
		return true
	}
}

func (t *tracker) close() { t.fail(errClosed) }

// fail closes the connection.
func (t *tracker) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failLocked(err)
}

func (t *tracker) failLocked(err error) {
	if t.err != nil {
		return
	}
	t.err = err
	close(t.done)
	_ = t.conn.Close()
}

func (t *tracker) read() {
	r := bufio.NewReaderSize(t.conn, buffer)
	for {
		v, err := readValue(r, 0)
		if err != nil {
			t.fail(err)
			return
		}
		if v.kind == push {
			t.told(v)
			continue
		}
		t.mu.Lock()
		var to chan value
		if len(t.asked) > 0 {
			to, t.asked = t.asked[0], t.asked[1:]
		}
		t.mu.Unlock()
		if to == nil {
			t.fail(errAnswer)
			return
		}
		to <- v
	}
}

// told signals those who follow keys that were changed: all of them when the server names none.
func (t *tracker) told(v value) {
	if len(v.items) != 2 || v.items[0].text != "invalidate" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if v.items[1].kind == null {
		for _, followers := range t.followers {
			signal(followers)
		}
		return
	}
	for _, key := range v.items[1].items {
		signal(t.followers[key.text])
	}
}

func signal(followers map[chan struct{}]struct{}) {
	for follower := range followers {
		select {
		case follower <- struct{}{}:
		default:
		}
	}
}

// do sends a command and waits for the server to have carried it out.
func (t *tracker) do(ctx context.Context, command ...string) error {
	to := make(chan value, 1)
	if err := t.send(to, command); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.done:
		return t.cause()
	case <-time.After(patience):
		t.fail(errSilent)
		return errSilent
	case v := <-to:
		if v.kind == failure {
			code, _, _ := strings.Cut(v.text, " ")
			return refusal(code)
		}
		return nil
	}
}

func (t *tracker) send(to chan value, command []string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return t.err
	}
	t.asked = append(t.asked, to)
	err := t.conn.SetWriteDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = t.conn.Write(encode(command))
	}
	if err != nil {
		t.failLocked(err)
	}
	return err
}

func (t *tracker) cause() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// follow calls wake after changes to a key, and at first, since what came before went unheard. It
// returns when the connection fails or the server does not answer for the key.
//
// A key's changes are told of from the moment it is asked about, once. So it is asked about first and
// read thereafter: what the reader does not see yet is told of.
func (t *tracker) follow(ctx context.Context, key interest, wake func()) error {
	changed := make(chan struct{}, 1)
	t.add(key.key, changed)
	defer t.remove(key.key, changed)
	command := []string{"TYPE", key.key}
	if key.measure != items {
		command[0] = "XLEN"
	}
	var last time.Time // when it was woken
	for news := true; ; {
		if err := t.do(ctx, command...); err != nil && !errors.Is(err, refusal("WRONGTYPE")) {
			return err
		}
		if news {
			last = time.Now()
			wake()
		}
		if news = t.wait(ctx, changed, t.review()); news {
			t.wait(ctx, nil, key.pause()-time.Since(last))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// wait tells whether the key changed before the time was over.
func (t *tracker) wait(ctx context.Context, changed <-chan struct{}, limit time.Duration) bool {
	select {
	case <-ctx.Done():
	case <-t.done:
	case <-time.After(limit):
	case <-changed:
		return true
	}
	return false
}

func (t *tracker) add(key string, changed chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.followers[key] == nil {
		t.followers[key] = map[chan struct{}]struct{}{}
	}
	t.followers[key][changed] = struct{}{}
}

func (t *tracker) remove(key string, changed chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.followers[key], changed)
	if len(t.followers[key]) == 0 {
		delete(t.followers, key)
	}
}
