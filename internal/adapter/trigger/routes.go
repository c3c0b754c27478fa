package trigger

import (
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/traffic"
)

// Routes tells of the routes to Services, whose requests the gateway carries and counts.
type Routes interface {
	// Route returns a route as the table has it; false if it has none of that name.
	Route(name types.NamespacedName) (traffic.Service, bool)
	// WatchRoute has changed called after a route came, went or became another, until stop is called.
	WatchRoute(name types.NamespacedName, changed func()) (stop func())
	// Requests counts a route's requests. One who is told by WatchRequests calls it until it is Quiet.
	Requests(name types.NamespacedName) Requests
	// WatchRequests has came called when a request comes after quiet, and for each that has to wait for
	// an instance, until stop is called.
	WatchRequests(name types.NamespacedName, came func()) (stop func())
}

// Requests are a route's.
type Requests struct {
	// InFlight counts those that wait for an instance or their response.
	InFlight int64
	// Total counts all that ever came.
	Total int64
	// Quiet says that the next request is told to who watches.
	Quiet bool
}
