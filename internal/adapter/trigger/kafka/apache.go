package kafka

import (
	"errors"
	"fmt"
	"strings"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

type apacheParameters struct {
	TriggerIndex int

	Brokers             []string `keda:"name=bootstrapServers, order=triggerMetadata;resolvedEnv"`
	Group               string   `keda:"name=consumerGroup, order=triggerMetadata;resolvedEnv"`
	Topics              []string `keda:"name=topic, order=triggerMetadata;resolvedEnv, optional"`
	Partitions          string   `keda:"name=partitionLimitation, order=triggerMetadata, optional"`
	Threshold           int64    `keda:"name=lagThreshold, order=triggerMetadata, default=10"`
	ActivationThreshold int64    `keda:"name=activationLagThreshold, order=triggerMetadata, default=0"`
	Reset               string   `keda:"name=offsetResetPolicy, order=triggerMetadata, enum=earliest;latest, default=latest"`
	AllowIdle           bool     `keda:"name=allowIdleConsumers, order=triggerMetadata, optional"`
	ExcludePersistent   bool     `keda:"name=excludePersistentLag, order=triggerMetadata, optional"`
	ZeroOnInvalid       bool     `keda:"name=scaleToZeroOnInvalidOffset, order=triggerMetadata, optional"`
	LimitToLagging      bool     `keda:"name=limitToPartitionsWithLag, order=triggerMetadata, optional"`
	Even                bool     `keda:"name=ensureEvenDistributionOfPartitions, order=triggerMetadata, optional"`

	SASL     string `keda:"name=sasl, order=triggerMetadata;authParams, enum=none;plaintext;scram_sha256;scram_sha512;gssapi;aws_msk_iam, default=none"`
	Username string `keda:"name=username, order=authParams, optional"`
	Password string `keda:"name=password, order=authParams, optional"`

	TLS         string `keda:"name=tls, order=triggerMetadata;authParams, enum=enable;disable, default=disable"`
	Cert        string `keda:"name=cert, order=authParams, optional"`
	Key         string `keda:"name=key, order=authParams, optional"`
	KeyPassword string `keda:"name=keyPassword, order=authParams, optional"`
	CA          string `keda:"name=ca, order=authParams, optional"`

	limit []int32
}

// Validate checks what the tags cannot say.
func (p *apacheParameters) Validate() error {
	if p.Threshold <= 0 {
		return errors.New("lagThreshold must be a positive number")
	}
	if p.ActivationThreshold < 0 {
		return errors.New("activationLagThreshold must be a positive number")
	}
	if p.AllowIdle && p.LimitToLagging {
		return errors.New("allowIdleConsumers and limitToPartitionsWithLag cannot be set simultaneously")
	}
	if len(p.Topics) == 0 && p.LimitToLagging {
		return errors.New("topic must be specified when using limitToPartitionsWithLag")
	}
	limit, err := parsePartitions(p.Partitions)
	if err != nil {
		return err
	}
	if len(p.Topics) > 0 && len(limit) > 0 { // a range that ends before it begins limits nothing, as upstream
		p.limit = limit
	}
	return p.signIn()
}

// signIn checks as whom the brokers are asked.
func (p *apacheParameters) signIn() error {
	if p.TLS == enable && (p.Cert == "") != (p.Key == "") {
		return errors.New("can't set only one of cert or key when using TLS")
	}
	if p.SASL == plaintext && (p.Username == "" || p.Password == "") {
		return errors.New("username and password must be set when using SASL/PLAINTEXT")
	}
	return nil
}

// NewApache makes a trigger of type apache-kafka.
func NewApache(c trigger.Config) (trigger.Source, error) {
	var p apacheParameters
	single, err := c.Parameters(&p)
	if err != nil {
		return nil, err
	}
	single.Activation = float64(p.ActivationThreshold)
	for _, name := range []string{"sasl", "tls"} {
		if c.TriggerMetadata[name] != "" && c.AuthParams[name] != "" {
			return nil, fmt.Errorf("unable to set `%s` in both ScaledObject and TriggerAuthentication together", name)
		}
	}
	name := strings.Join(p.Topics, ",")
	if len(p.Topics) == 0 {
		name = p.Group + "-topics"
	}
	single.Name = trigger.Name(c.TriggerIndex, "kafka-"+name)
	return build(c, login{
		brokers: strings.Join(p.Brokers, ","), tls: p.TLS == enable,
		certificate: endpoint.Certificate{CA: p.CA, Cert: p.Cert, Key: p.Key, KeyPassword: p.KeyPassword},
		sasl:        p.SASL, username: p.Username, password: p.Password,
	}, &source{
		Single: single, query: newQuery(p.Group, p.Topics, everything, p.Reset == earliest && !p.ZeroOnInvalid),
		rules: rules{
			threshold: p.Threshold, partitions: p.limit, earliest: p.Reset == earliest, zeroOnInvalid: p.ZeroOnInvalid,
			excludePersistent: p.ExcludePersistent, allowIdle: p.AllowIdle, limitToLagging: p.LimitToLagging, even: p.Even,
		},
	})
}
