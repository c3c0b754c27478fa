// Package kafka reads how far consumer groups are behind on Kafka topics, and is told of records by
// fetches that wait at the ends of the topics, outside of any group.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

const (
	enable   = "enable"
	earliest = "earliest"
)

type parameters struct {
	TriggerIndex int

	Brokers             []string `keda:"name=bootstrapServers, order=triggerMetadata;resolvedEnv"`
	Group               string   `keda:"name=consumerGroup, order=triggerMetadata;resolvedEnv"`
	Topic               string   `keda:"name=topic, order=triggerMetadata;resolvedEnv, optional"`
	Partitions          string   `keda:"name=partitionLimitation, order=triggerMetadata, optional"`
	Threshold           int64    `keda:"name=lagThreshold, order=triggerMetadata, default=10"`
	ActivationThreshold int64    `keda:"name=activationLagThreshold, order=triggerMetadata, default=0"`
	Reset               string   `keda:"name=offsetResetPolicy, order=triggerMetadata, default=latest, enum=latest;earliest"`
	AllowIdle           bool     `keda:"name=allowIdleConsumers, order=triggerMetadata, default=false"`
	ExcludePersistent   bool     `keda:"name=excludePersistentLag, order=triggerMetadata, default=false"`
	ZeroOnInvalid       bool     `keda:"name=scaleToZeroOnInvalidOffset, order=triggerMetadata, default=false"`
	LimitToLagging      bool     `keda:"name=limitToPartitionsWithLag, order=triggerMetadata, default=false"`
	Even                bool     `keda:"name=ensureEvenDistributionOfPartitions, order=triggerMetadata, default=false"`
	FullMetadata        bool     `keda:"name=fullMetadata, order=triggerMetadata, default=true"`
	Version             string   `keda:"name=version, order=triggerMetadata, optional"`

	TLS         string `keda:"name=tls, order=triggerMetadata;authParams, default=disable, enum=enable;disable"`
	Unsafe      bool   `keda:"name=unsafeSsl, order=triggerMetadata, default=false"`
	CA          string `keda:"name=ca, order=authParams, optional"`
	Cert        string `keda:"name=cert, order=authParams, optional"`
	Key         string `keda:"name=key, order=authParams, optional"`
	KeyPassword string `keda:"name=keyPassword, order=authParams, optional"`

	SASL          string `keda:"name=sasl, order=triggerMetadata;authParams, optional, enum=none;plaintext;scram_sha256;scram_sha512;oauthbearer;gssapi"`
	Username      string `keda:"name=username, order=authParams, optional"`
	Password      string `keda:"name=password, order=authParams, optional"`
	TokenProvider string `keda:"name=saslTokenProvider, order=triggerMetadata;authParams, optional, enum=bearer;aws_msk_iam"`
	Scopes        string `keda:"name=scopes, order=authParams, optional"`
	TokenEndpoint string `keda:"name=oauthTokenEndpointUri, order=authParams, optional"`
	Extensions    string `keda:"name=oauthExtensions, order=authParams, optional"`

	limit []int32
}

// versions are those that Kafka has had; brokers are asked what they speak, so none is needed.
var versions = regexp.MustCompile(`^(0\.\d+\.\d+\.\d+|[1-9]\d*\.\d+\.\d+)$`)

// Validate checks what the tags cannot say.
func (p *parameters) Validate() error {
	if p.Threshold <= 0 {
		return errors.New(`"lagThreshold" must be positive number`)
	}
	if p.ActivationThreshold < 0 {
		return errors.New(`"activationLagThreshold" must be a non-negative number`)
	}
	if p.AllowIdle && p.LimitToLagging {
		return errors.New("allowIdleConsumers and limitToPartitionsWithLag cannot be set simultaneously")
	}
	if p.LimitToLagging && p.Even {
		return errors.New("limitToPartitionsWithLag and ensureEvenDistributionOfPartitions cannot be set simultaneously")
	}
	if err := p.needsTopic(); p.Topic == "" && err != nil {
		return err
	}
	if strings.Contains(p.Topic, ",") {
		return fmt.Errorf("topic %q is none, as no topic's name has a comma", p.Topic)
	}
	if p.Version != "" && !versions.MatchString(p.Version) {
		return fmt.Errorf("invalid version %q", p.Version)
	}
	limit, err := parsePartitions(p.Partitions)
	if p.Topic != "" {
		p.limit = limit
	}
	return err
}

// needsTopic tells what cannot be had without a topic.
func (p *parameters) needsTopic() error {
	switch {
	case p.LimitToLagging:
		return errors.New("topic must be specified when using limitToPartitionsWithLag")
	case p.Even:
		return errors.New("topic must be specified when using ensureEvenDistributionOfPartitions")
	case !p.FullMetadata:
		return errors.New("topic must be specified when fullMetadata is false")
	}
	return nil
}

// parsePartitions reads a list of partitions and ranges of them: "0,4-7". Without any it returns nil.
func parsePartitions(text string) ([]int32, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, nil
	}
	limit := []int32{}
	for part := range strings.SplitSeq(text, ",") {
		from, to, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			to = from
		}
		first, err1 := strconv.ParseInt(strings.TrimSpace(from), 10, 32)
		last, err2 := strconv.ParseInt(strings.TrimSpace(to), 10, 32)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("invalid partition limitation: %s", part)
		}
		if last-first > maxPartitions {
			return nil, fmt.Errorf("invalid partition limitation range: %s", part)
		}
		for id := first; id <= last; id++ {
			limit = append(limit, int32(id))
		}
	}
	return limit, nil
}

// maxPartitions bounds what a range may name.
const maxPartitions = 200_000

func (p *parameters) login() login {
	return login{
		brokers: strings.Join(p.Brokers, ","), tls: p.TLS == enable,
		certificate: endpoint.Certificate{CA: p.CA, Cert: p.Cert, Key: p.Key, KeyPassword: p.KeyPassword, Unsafe: p.Unsafe},
		sasl:        p.SASL, username: p.Username, password: p.Password, provider: p.TokenProvider,
		scopes: p.Scopes, endpoint: p.TokenEndpoint, extensions: p.Extensions,
	}
}

// New makes a trigger of type kafka.
func New(c trigger.Config) (trigger.Source, error) {
	var p parameters
	single, err := c.Parameters(&p)
	if err != nil {
		return nil, err
	}
	single.Activation = float64(p.ActivationThreshold)
	name, topics := p.Topic, []string{p.Topic}
	if p.Topic == "" {
		name, topics = p.Group+"-topics", nil
	}
	single.Name = trigger.Name(c.TriggerIndex, "kafka-"+name)
	return build(c, p.login(), &source{
		Single: single, query: newQuery(p.Group, topics, committed, p.Reset == earliest && !p.ZeroOnInvalid),
		rules: rules{
			threshold: p.Threshold, partitions: p.limit, earliest: p.Reset == earliest, zeroOnInvalid: p.ZeroOnInvalid,
			excludePersistent: p.ExcludePersistent, allowIdle: p.AllowIdle, limitToLagging: p.LimitToLagging, even: p.Even,
		},
		strict: true,
	})
}

// build makes a source that is told all but how to reach the brokers.
func build(c trigger.Config, l login, s *source) (trigger.Source, error) {
	s.Target = *resource.NewQuantity(s.rules.threshold, resource.DecimalSI)
	var err error
	s.cluster, s.release, err = endpoint.Acquire(c.Shared, "kafka "+l.key(), func() (*cluster, func(), error) {
		return connect(l, c.Environment)
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

type source struct {
	trigger.Single

	query   query
	rules   rules
	strict  bool // a topic must exist
	memory  memory
	cluster *cluster
	release func()
}

// Specs implements trigger.Source. A broker must have answered: an autoscaler that is given the metric
// holds the target to its limits at once, also while nobody knows how much work there is.
func (s *source) Specs(ctx context.Context) ([]autoscalingv2.MetricSpec, error) {
	if err := s.cluster.reach(ctx); err != nil {
		return nil, fmt.Errorf("error creating kafka client: %w", err)
	}
	return s.Single.Specs(ctx)
}

// Read implements trigger.Source. Consumers beyond the partitions have nothing to do, but the work is
// there all the same.
func (s *source) Read(ctx context.Context) ([]trigger.Reading, error) {
	answer, err := s.cluster.offsets.Do(ctx, s.query)
	if err == nil {
		err = answer.err
	}
	if err != nil {
		return nil, fmt.Errorf("reading offsets of group %s: %w", s.query.group, err)
	}
	partitions, err := answer.partitions(s.rules.partitions, s.strict)
	if err != nil {
		return nil, fmt.Errorf("reading offsets of group %s: %w", s.query.group, err)
	}
	value, whole := s.rules.lag(partitions, &s.memory)
	reading := s.Reading(float64(value))
	reading[0].Active = float64(whole) > s.Activation
	return reading, nil
}

// Close implements trigger.Source.
func (s *source) Close() error {
	s.release()
	return nil
}

// Watch has wake called when records come to the topics. A group's own topics are not known before
// they are read, so that they are polled only.
func (s *source) Watch(_ trigger.Mode, wake func()) (stop func()) {
	var stops []func()
	for _, topic := range s.query.names() {
		stops = append(stops, s.cluster.ends.Watch(topic, wake))
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}
