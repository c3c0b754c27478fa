package redis

import (
	"errors"
	"fmt"
	"net"
	"strconv"
)

var (
	errNoAddresses  = errors.New("no addresses or hosts given. address should be a comma separated list of host:port or set the host/port values")
	errUnequalPorts = errors.New("not enough hosts or ports given. number of hosts should be equal to the number of ports")
	errBothTLS      = errors.New("unable to set `tls` in both ScaledObject and TriggerAuthentication together")
	errNoStream     = errors.New("missing redis stream name")
)

// A connection is how to reach a server, a cluster or the sentinels of one, and as whom.
type connection struct {
	Addresses        []string `keda:"name=address;addresses, order=triggerMetadata;authParams;resolvedEnv"`
	Username         string   `keda:"name=username, order=triggerMetadata;resolvedEnv;authParams"`
	Password         string   `keda:"name=password, order=triggerMetadata;resolvedEnv;authParams"`
	SentinelUsername string   `keda:"name=sentinelUsername, order=triggerMetadata;authParams;resolvedEnv"`
	SentinelPassword string   `keda:"name=sentinelPassword, order=triggerMetadata;authParams;resolvedEnv"`
	SentinelMaster   string   `keda:"name=sentinelMaster, order=triggerMetadata;authParams;resolvedEnv"`
	Hosts            []string `keda:"name=host;hosts, order=triggerMetadata;resolvedEnv;authParams"`
	Ports            []string `keda:"name=port;ports, order=triggerMetadata;resolvedEnv;authParams"`
	UnsafeSSL        bool     `keda:"name=unsafeSsl, order=triggerMetadata, default=false"`
	Cert             string   `keda:"name=Cert;cert, order=authParams"`
	Key              string   `keda:"name=key, order=authParams"`
	KeyPassword      string   `keda:"name=keyPassword, order=authParams"`
	CA               string   `keda:"name=ca, order=authParams"`
	EnableTLS        string   `keda:"name=enableTLS, order=triggerMetadata"`
	AuthTLS          string   `keda:"name=tls, order=authParams"`

	secure bool // TLS is wanted
}

// Validate checks what the tags cannot say, and joins hosts with their ports.
func (c *connection) Validate() error {
	if len(c.Hosts) != 0 && len(c.Ports) != 0 {
		if len(c.Hosts) != len(c.Ports) {
			return errUnequalPorts
		}
		for i, host := range c.Hosts {
			c.Addresses = append(c.Addresses, net.JoinHostPort(host, c.Ports[i]))
		}
	}
	if len(c.Addresses) == 0 || c.Addresses[0] == "" {
		return errNoAddresses
	}
	return c.wantsTLS()
}

func (c *connection) wantsTLS() (err error) {
	switch {
	case c.EnableTLS != "" && c.AuthTLS != "":
		return errBothTLS
	case c.EnableTLS != "":
		if c.secure, err = strconv.ParseBool(c.EnableTLS); err != nil {
			return fmt.Errorf("EnableTLS parsing error %w", err)
		}
	case c.AuthTLS != "":
		if c.AuthTLS != "enable" && c.AuthTLS != "disable" {
			return fmt.Errorf("error incorrect TLS value given, got %s", c.AuthTLS)
		}
		c.secure = c.AuthTLS == "enable"
	}
	return nil
}

// key names all that a server is opened with.
func (c *connection) key(t topology, database int) string {
	return fmt.Sprintf("redis %d %d %v %v %q", t, database, c.secure, c.UnsafeSSL, [][]string{c.Addresses, {
		c.Username, c.Password, c.SentinelUsername, c.SentinelPassword, c.SentinelMaster,
		c.Cert, c.Key, c.KeyPassword, c.CA,
	}})
}

type listParameters struct {
	TriggerIndex int

	Length     int64      `keda:"name=listLength, order=triggerMetadata, default=5"`
	Activation int64      `keda:"name=activationListLength, order=triggerMetadata, optional"`
	List       string     `keda:"name=listName, order=triggerMetadata"`
	Database   int        `keda:"name=databaseIndex, order=triggerMetadata, optional"`
	Connection connection `keda:"optional"`
}

type streamParameters struct {
	TriggerIndex int

	Pending    int64      `keda:"name=pendingEntriesCount, order=triggerMetadata, default=5"`
	Length     int64      `keda:"name=streamLength, order=triggerMetadata, default=5"`
	Lag        int64      `keda:"name=lagCount, order=triggerMetadata, optional"`
	Stream     string     `keda:"name=stream, order=triggerMetadata"`
	Group      string     `keda:"name=consumerGroup, order=triggerMetadata, optional"`
	Database   int        `keda:"name=databaseIndex, order=triggerMetadata, optional"`
	Connection connection `keda:"optional"`
	Activation int64      `keda:"name=activationLagCount, order=triggerMetadata, default=0"`
}

// Validate checks what the tags cannot say.
func (p *streamParameters) Validate() error {
	if p.Stream == "" {
		return errNoStream
	}
	return nil
}

// question returns what is asked of the stream, and the target of its answer.
func (p *streamParameters) question() (question, int64) {
	q := question{measure: length, key: p.Stream, group: p.Group}
	switch {
	case p.Group == "":
		return q, p.Length
	case p.Lag != 0:
		q.measure = lag
		return q, p.Lag
	default:
		q.measure = pending
		return q, p.Pending
	}
}
