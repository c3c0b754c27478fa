package mongodb

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
)

// The kinds of messages.
const (
	opReply = 1
	opQuery = 2004
	opMsg   = 2013
)

// replica speaks as much of MongoDB's protocol as the primary of a replica set whose one collection
// counts documents and has a change stream.
type replica struct {
	net.Listener

	mu      sync.Mutex // guards the fields below
	count   int
	changed chan struct{} // closed when count changes
	conns   map[net.Conn]bool
	changes int           // so far
	told    map[int64]int // of them, by stream
	refuse  bool          // to give change streams, as a server on its own does
}

func newReplica(t testing.TB) *replica {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{Listener: l, changed: make(chan struct{}), conns: map[net.Conn]bool{}, told: map[int64]int{}}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns[conn] = true
			r.mu.Unlock()
			go r.serve(conn)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		r.drop()
	})
	return r
}

// drop ends all connections.
func (r *replica) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.conns {
		_ = conn.Close()
	}
	clear(r.conns)
}

func (r *replica) set(_ *testing.T, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count = n
	r.changes++
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *replica) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	var head [16]byte
	for {
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return
		}
		body := make([]byte, binary.LittleEndian.Uint32(head[:])-16)
		if _, err := io.ReadFull(conn, body); err != nil {
			return
		}
		var command bson.D
		legacy := binary.LittleEndian.Uint32(head[12:]) == opQuery
		start := body[5:] // flags and the section's kind
		if legacy {
			for start = body[4:]; start[0] != 0; start = start[1:] { // flags and the collection's name
			}
			start = start[9:] // the name's end, and how many to skip and to return
		}
		if err := bson.Unmarshal(start[:binary.LittleEndian.Uint32(start)], &command); err != nil {
			return
		}
		reply, err := bson.Marshal(r.answer(command))
		if err != nil {
			return
		}
		kind, front := uint32(opMsg), make([]byte, 5)
		if legacy {
			kind, front = opReply, append(make([]byte, 16), 1, 0, 0, 0)
		}
		out := binary.LittleEndian.AppendUint32(nil, uint32(16+len(front)+len(reply)))
		out = binary.LittleEndian.AppendUint32(out, 0)
		out = append(out, head[4:8]...)
		out = binary.LittleEndian.AppendUint32(out, kind)
		if _, err := conn.Write(append(append(out, front...), reply...)); err != nil {
			return
		}
	}
}

func (r *replica) answer(command bson.D) bson.M {
	r.mu.Lock()
	defer r.mu.Unlock()
	cursor := func(id int64, batch string, documents ...any) bson.M {
		return bson.M{"ok": 1, "cursor": bson.M{"id": id, "ns": "work.jobs", batch: append(bson.A{}, documents...), "postBatchResumeToken": token(r.told[id])}}
	}
	switch command[0].Key {
	case "hello", "isMaster", "ismaster":
		address := r.Addr().String()
		return bson.M{
			"ok": 1, "helloOk": true, "isWritablePrimary": true, "ismaster": true, "maxWireVersion": 21, "minWireVersion": 0,
			"maxBsonObjectSize": 16 << 20, "maxMessageSizeBytes": 48 << 20, "maxWriteBatchSize": 100000,
			"logicalSessionTimeoutMinutes": 30, "setName": "rs0", "setVersion": 1, "hosts": bson.A{address}, "me": address, "primary": address,
		}
	case "aggregate":
		stage := command[1].Value.(bson.A)[0].(bson.D)[0]
		switch {
		case stage.Key == "$changeStream" && r.refuse:
			return bson.M{"ok": 0, "code": 40573, "errmsg": "The $changeStream stage is only supported on replica sets"}
		case stage.Key == "$changeStream":
			id := int64(len(r.told) + 1)
			r.told[id] = r.changes
			for _, option := range stage.Value.(bson.D) {
				if option.Key == "resumeAfter" || option.Key == "startAfter" {
					r.told[id], _ = strconv.Atoi(option.Value.(bson.D)[0].Value.(string))
				}
			}
			return cursor(id, "firstBatch")
		case r.count == 0:
			return cursor(0, "firstBatch")
		default:
			return cursor(0, "firstBatch", bson.M{"_id": 1, "n": r.count})
		}
	case "getMore":
		id, _ := command[0].Value.(int64)
		if r.told[id] == r.changes {
			changed := r.changed
			r.mu.Unlock()
			select {
			case <-changed:
			case <-time.After(2 * time.Second):
			}
			r.mu.Lock()
		}
		if r.told[id] == r.changes {
			return cursor(id, "nextBatch")
		}
		r.told[id]++
		return cursor(id, "nextBatch", bson.M{"_id": token(r.told[id]), "operationType": "insert"})
	default:
		return bson.M{"ok": 1}
	}
}

func token(change int) bson.M { return bson.M{"_data": fmt.Sprintf("%04d", change)} }

func (r *replica) auth() map[string]string {
	return map[string]string{"connectionString": "mongodb://" + r.Addr().String()}
}

func TestMongoDBByChangeStream(t *testing.T) {
	r := newReplica(t)
	subject := triggertest.Subject{
		Type: "mongodb", Build: New, Metadata: metadata(), Auth: r.auth(), Metric: "mongodb-jobs", Target: "5",
		Wrong: map[string]string{"changeStream": "perhaps"}, Set: r.set, Within: 300 * time.Millisecond,
	}
	subject.Metadata["changeStream"] = "true"
	triggertest.Run(t, subject)
}

func TestNoWakeIsLostWhenAStreamEnds(t *testing.T) {
	r := newReplica(t)
	made, err := build(t, triggertest.Environment(t), map[string]string{"changeStream": "true"}, r.auth())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = made.Close() }()
	woken := make(chan struct{}, 100)
	defer made.(trigger.Pusher).Watch(trigger.Idle, func() { woken <- struct{}{} })()
	for range 3 {
		select {
		case <-woken:
		case <-time.After(10 * time.Second):
			t.Fatal("nobody told of what came while there was no stream")
		}
		r.drop()
		r.set(t, 3)
	}
}

func TestAServerWithoutChangeStreamsIsLeftAlone(t *testing.T) {
	r := newReplica(t)
	r.refuse = true
	env := triggertest.Environment(t)
	env.Log = slog.New(slog.DiscardHandler)
	made, err := build(t, env, map[string]string{"changeStream": "true"}, r.auth())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = made.Close() }()
	r.set(t, 4)
	defer made.(trigger.Pusher).Watch(trigger.Idle, func() { t.Error("it tells of what it cannot see") })()
	if got, err := made.Read(t.Context()); err != nil || got[0].Value.Value() != 4 {
		t.Errorf("Read() = %v, %v; want 4", got, err)
	}
}

func BenchmarkWake(b *testing.B) {
	r := newReplica(b)
	env := trigger.Environment{}
	triggertest.Bench(b, &env)
	made, err := build(b, env, map[string]string{"changeStream": "true"}, r.auth())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = made.Close() }()
	triggertest.Wakes(b, made, func() { r.set(nil, 1) })
}
