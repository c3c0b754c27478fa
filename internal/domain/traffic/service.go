package traffic

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Service says of a pseudo-revision, one that stands for a route to a Kubernetes Service, what
// revisions do not have. Its instances are the Service's ready endpoints, and somebody else decides
// how many there are.
type Service struct {
	// Name is the Service's.
	Name types.NamespacedName
	// Port is the Service's port; if 0 it has PortName.
	Port int32
	// PortName is the port's name.
	PortName string
	// ReadyTimeout bounds the wait for an instance; 0 means as long as the client waits.
	ReadyTimeout time.Duration
	// Deadline bounds a request from its arrival to its last byte; 0 means none.
	Deadline time.Duration
	// Fallback, if named, gets the requests that found no instance in time: another pseudo-revision.
	Fallback types.NamespacedName
	// Placeholder, if not nil, answers at once while there is no instance.
	Placeholder *Placeholder
	// Concurrency is how many requests in flight one replica is wanted for; 0 if that is not counted.
	Concurrency int32
	// Rate is how many requests in a time one replica is wanted for; nil if that is not counted.
	Rate *Rate
}

// Rate is a target of requests in a time.
type Rate struct {
	// Target is how many requests in each Granularity one replica is wanted for.
	Target int32
	// Window is how far back the average of it reaches.
	Window, Granularity time.Duration
}

// Placeholder is a response in place of instances that are not there.
type Placeholder struct {
	Status int
	Header map[string]string
	// Body is the response's, unless there are Files.
	Body string
	// Files, if not nil, hold the bodies, by name.
	Files map[string]string
	// File is the one of Files to show; if empty, the request's path names it, and one that is not
	// there is an empty body.
	File string
	// Broken says that what Body or Files should be is not there.
	Broken bool
}
