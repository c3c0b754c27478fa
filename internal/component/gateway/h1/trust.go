package h1

import "time"

const (
	// provenBy is how often kept connections must have been found alive before one carries a
	// request that must not be sent twice; provenAgainBy, after one was found closed.
	provenBy      = 32
	provenAgainBy = 128
	// telling is the idle time from which being alive means something: a server that closes after
	// its response does so within less.
	telling = time.Millisecond
)

// trust is what is known of how an instance treats connections between requests. Some servers
// close them unannounced, after a time or at once, and then a request can cross with the closing:
// it arrives, but nobody reads it. One that can be repeated is; for the others a kept connection is
// used only when all that was seen says that the instance would not close it now.
//
// The cost is a new connection for the first such requests. The Pool's mu guards it.
type trust struct {
	alive   int           // found alive since one was last found closed
	broken  bool          // one was found closed
	longest time.Duration // after which one was found alive
	closes  time.Duration // shortest after which one was found closed, 0 if none was
}

// allows reports whether a connection idle for that long may carry a request once. One must have
// been alive after twice that time, so that a server's limit cannot be near.
func (t *trust) allows(idle time.Duration) bool {
	need := provenBy
	if t.broken {
		need = provenAgainBy
	}
	return t.alive >= need && idle <= min(freshFor, t.longest/2) && (t.closes == 0 || idle < t.closes/2)
}

// sawAlive notes that a connection was usable after idle.
func (t *trust) sawAlive(idle time.Duration) {
	t.alive++
	t.longest = max(t.longest, idle)
	if t.closes > 0 && idle > t.closes {
		t.closes = 0 // what closed it then was no time limit
	}
}

// sawClosed notes that a connection was closed by the instance.
func (t *trust) sawClosed(idle time.Duration) {
	t.alive, t.broken = 0, true
	if t.closes == 0 || idle < t.closes {
		t.closes = idle
	}
}
