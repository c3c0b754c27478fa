package jobs

import "time"

// An Observation is what an object's triggers said when they were asked once.
type Observation struct {
	// Began is when asking began: what happened before shows in the answers.
	Began time.Time
	// Triggers are all that have a source. One that had none when the object began to be followed, and
	// is here, has one now.
	Triggers []Answer
}

// An Answer is what one trigger said.
type Answer struct {
	Index int
	// Type and Name are the trigger's; Name may be empty.
	Type, Name string
	// Targets are its external metrics with their targets by average, in their order.
	Targets []Target
	// Readings are their values.
	Readings []Reading
	// Err is why there are none.
	Err error
}
