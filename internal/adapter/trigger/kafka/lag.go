package kafka

import (
	"slices"
	"sync"
	"time"
)

// none is the offset of a group that has committed none.
const none = -1

// persistence is how long a group must have stood still for its lag to count as persistent. The
// setting compares one poll with the next, and triggers that are pushed are read much more often
// than a consumer commits.
const persistence = 10 * time.Second

// A partition is what is known of one at a time.
type partition struct {
	topic     string
	id        int32
	committed int64 // by the group; none if it has not
	start     int64 // the first offset there is; none if not known
	end       int64 // the next offset that will be written
	known     bool  // end is set
}

// rules tell what lag counts.
type rules struct {
	threshold         int64
	partitions        []int32 // nil: all
	earliest          bool    // groups without a commit begin at the start
	zeroOnInvalid     bool
	excludePersistent bool
	allowIdle         bool
	limitToLagging    bool
	even              bool
}

// A memory keeps where a group stood.
type memory struct {
	mu    sync.Mutex // guards stood
	stood map[place]stand
}

type place struct {
	topic string
	id    int32
}

type stand struct {
	offset int64
	since  time.Time
}

// still tells whether the group has stood at an offset for long, and notes the offset.
func (m *memory) still(at place, offset int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if was, ok := m.stood[at]; ok && was.offset == offset {
		return time.Since(was.since) >= persistence
	}
	if m.stood == nil {
		m.stood = map[place]stand{}
	}
	m.stood[at] = stand{offset, time.Now()}
	return false
}

// of returns a partition's lag that counts, and all of it.
func (r rules) of(p partition, m *memory) (lag, whole int64) {
	if p.committed == none {
		switch {
		case r.zeroOnInvalid:
			return 0, 0
		case !r.earliest:
			return 1, 1
		case !p.known:
			return 0, 0
		case p.start == none:
			return p.end, p.end
		default:
			lag = max(0, p.end-p.start)
			return lag, lag
		}
	}
	if !p.known {
		return 0, 0
	}
	whole = p.end - p.committed
	if r.excludePersistent && m.still(place{p.topic, p.id}, p.committed) {
		return 0, whole
	}
	return whole, whole
}

// lag returns what a group is behind, bounded to what its consumers can share, and all of it.
func (r rules) lag(partitions []partition, m *memory) (value, whole int64) {
	var lagging int64
	for _, p := range partitions {
		lag, all := r.of(p, m)
		value += lag
		whole += all
		if lag > 0 {
			lagging++
		}
	}
	count := int64(len(partitions))
	if r.allowIdle && !r.limitToLagging && !r.even {
		return value, whole
	}
	bound := count
	if r.even {
		value = share(value, count, r.threshold) * r.threshold
	}
	if r.limitToLagging {
		bound = lagging
	}
	if value/r.threshold > bound {
		value = bound * r.threshold
	}
	return value, whole
}

// share returns the least number of consumers that have equally many partitions each and lag up to
// the threshold; one for each partition if none is enough.
func share(lag, partitions, threshold int64) int64 {
	for n := int64(1); n <= partitions; n++ {
		if partitions%n == 0 && n*threshold >= lag {
			return n
		}
	}
	return partitions
}

func wanted(limit []int32, id int32) bool { return limit == nil || slices.Contains(limit, id) }
