package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// A measure is what is asked of a key.
type measure int

const (
	items   measure = iota // of a list, set, sorted set or hash
	length                 // of a stream
	pending                // entries that a group's consumers have and did not acknowledge
	lag                    // entries that a group's consumers have yet to get
)

// A question is what one trigger asks.
type question struct {
	measure
	key, group string
}

type answer struct {
	value int64
	err   error
}

// count is upstream's way to ask, which what users are allowed to do fits.
const count = `local kind = redis.call('TYPE', KEYS[1]).ok
local by = {none = 'LLEN', list = 'LLEN', set = 'SCARD', zset = 'ZCARD', hash = 'HLEN'}
if by[kind] then return redis.call(by[kind], KEYS[1]) end
return redis.error_reply('ERR unsupported key type: ' .. kind)`

var (
	errNoVersion  = errors.New("could not find Redis version number")
	errBadVersion = errors.New("redis version could not be converted to number")
	errOldVersion = errors.New("redis version 7+ required for lag")
)

// ask answers all questions by one pipeline.
func (s *server) ask(ctx context.Context, questions []question) (map[question]answer, error) {
	pipe := s.client.Pipeline()
	replies := make(map[question]func() (int64, error), len(questions))
	var info *redis.StringCmd
	for _, q := range questions {
		switch q.measure {
		case items:
			replies[q] = pipe.Eval(ctx, count, []string{q.key}).Int64
		case length:
			replies[q] = pipe.XLen(ctx, q.key).Result
		case pending:
			reply := pipe.XPending(ctx, q.key, q.group)
			replies[q] = func() (int64, error) {
				if err := reply.Err(); err != nil {
					return 0, err
				}
				return reply.Val().Count, nil
			}
		case lag:
			if info == nil {
				info = pipe.Info(ctx, "server")
			}
			replies[q] = askLag(ctx, pipe, info, q)
		}
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, err
	}
	answers, gone := make(map[question]answer, len(questions)), false
	for q, reply := range replies {
		value, err := reply()
		answers[q] = answer{value, err}
		if _, said := errors.AsType[redis.Error](err); err != nil && !said {
			gone = true
		}
	}
	if gone {
		s.moved(ctx)
	}
	return answers, nil
}

// exec has a pipeline run. What became of each question is in its reply, unless the server did not even
// let us in.
func exec(ctx context.Context, pipe redis.Pipeliner) error {
	asked, err := pipe.Exec(ctx)
	if !slices.ContainsFunc(asked, func(c redis.Cmder) bool { return c.Err() != nil }) {
		return err
	}
	return nil
}

func askLag(ctx context.Context, pipe redis.Pipeliner, info *redis.StringCmd, q question) func() (int64, error) {
	groups := redis.NewXInfoGroupsCmd(ctx, q.key)
	groups.SetFirstKeyPos(2) // clusters are told which server to ask
	_ = pipe.Process(ctx, groups)
	whole := pipe.XLen(ctx, q.key)
	return func() (int64, error) {
		if err := knowsLag(info); err != nil {
			return 0, err
		}
		found, err := groups.Result()
		if err != nil && err.Error() == "ERR no such key" {
			return 0, nil
		}
		for _, group := range found {
			if group.Name == q.group {
				return group.Lag, nil
			}
		}
		// All of it waits for a group that the first consumer is to make.
		return whole.Result()
	}
}

// knowsLag checks that a server is new enough to tell a group's lag.
func knowsLag(info *redis.StringCmd) error {
	said, err := info.Result()
	if err != nil {
		return fmt.Errorf("could not find Redis version: %w", err)
	}
	for line := range strings.Lines(said) {
		version, found := strings.CutPrefix(line, "redis_version:")
		if !found {
			continue
		}
		major, _, _ := strings.Cut(version, ".")
		n, err := strconv.Atoi(major)
		switch {
		case err != nil:
			return errBadVersion
		case n < 7:
			return errOldVersion
		}
		return nil
	}
	return errNoVersion
}

// values answers for all that it can.
func (s *server) values(ctx context.Context, questions []question) (map[question]int64, error) {
	answers, err := s.ask(ctx, questions)
	values := make(map[question]int64, len(answers))
	for q, a := range answers {
		if a.err != nil {
			err = a.err
			continue
		}
		values[q] = a.value
	}
	if len(values) > 0 {
		err = nil
	}
	return values, err
}
