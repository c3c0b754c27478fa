package kafka

import (
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// kfakeCount counts requests and lets the cluster answer them.
func kfakeCount(c *kfake.Cluster, n *int) func(kmsg.Request) (kmsg.Response, error, bool) {
	return func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		*n++
		return nil, nil, false
	}
}

// heard returns a channel that gets one whenever a request of that kind has come which matches.
func heard(c *kfake.Cluster, kind kmsg.Key, matches func(kmsg.Request) bool) <-chan struct{} {
	come := make(chan struct{}, 1)
	c.ControlKey(kind.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if matches(r) {
			select {
			case come <- struct{}{}:
			default:
			}
		}
		return nil, nil, false
	})
	return come
}
