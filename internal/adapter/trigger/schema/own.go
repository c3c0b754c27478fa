package schema

// own lists the parameters ebb's sources take beyond upstream's, by type. They are optional, and may
// come from anywhere.
var own = map[string][]string{
	"mongodb":        {"changeStream"},
	"nats-jetstream": {"natsCA", "natsCredentials", "natsPassword", "natsServerURL", "natsToken", "natsUser"},
	"postgresql":     {"notifyChannel"},
}

// open are the types whose parameters are somebody else's to know.
var open = map[string]bool{"external": true, "external-push": true, "external-mock": true}
