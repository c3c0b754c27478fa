// Package artemis reads how many messages wait in a queue of ActiveMQ Artemis, from its Jolokia agent.
package artemis

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
	"ebb.dev/ebb/internal/adapter/trigger/jolokia"
)

type parameters struct {
	TriggerIndex int

	Endpoint   string `keda:"name=managementEndpoint, order=triggerMetadata, optional"`
	Queue      string `keda:"name=queueName, order=triggerMetadata, optional"`
	Broker     string `keda:"name=brokerName, order=triggerMetadata, optional"`
	Address    string `keda:"name=brokerAddress, order=triggerMetadata, optional"`
	Username   string `keda:"name=username, order=authParams;triggerMetadata;resolvedEnv"`
	Password   string `keda:"name=password, order=authParams;triggerMetadata;resolvedEnv"`
	URL        string `keda:"name=restApiTemplate, order=triggerMetadata, optional"`
	Target     int64  `keda:"name=queueLength, order=triggerMetadata, default=10"`
	Activation int64  `keda:"name=activationQueueLength, order=triggerMetadata, default=10"`
	Origin     string `keda:"name=corsHeader, order=triggerMetadata, optional"`

	Unsafe      bool   `keda:"name=unsafeSsl, order=triggerMetadata, default=false"`
	CA          string `keda:"name=ca, order=authParams, optional"`
	Cert        string `keda:"name=cert, order=authParams, optional"`
	Key         string `keda:"name=key, order=authParams, optional"`
	KeyPassword string `keda:"name=keyPassword, order=authParams, optional"`
}

// Validate checks what the tags cannot say, and settles where to ask.
func (p *parameters) Validate() error {
	if err := p.settle(); err != nil {
		return err
	}
	if p.Origin == "" {
		p.Origin = "http://" + p.Endpoint
	}
	if (p.Cert == "") != (p.Key == "") {
		return errors.New("both cert and key must be provided")
	}
	return nil
}

// settle makes the URL of its parts, or finds the parts in the URL.
func (p *parameters) settle() error {
	switch {
	case p.URL != "":
		if err := p.dissect(); err != nil {
			return fmt.Errorf("can't parse restApiTemplate : %w", err)
		}
		return nil
	case p.Endpoint == "":
		return errors.New("no management endpoint given")
	case p.Queue == "":
		return errors.New("no queue name given")
	case p.Broker == "":
		return errors.New("no broker name given")
	case p.Address == "":
		return errors.New("no broker address given")
	}
	p.URL = fmt.Sprintf(`http://%s/console/jolokia/read/org.apache.activemq.artemis:broker="%s",component=addresses,address="%s",subcomponent=queues,routing-type="anycast",queue="%s"/MessageCount`,
		p.Endpoint, p.Broker, p.Address, p.Queue)
	return nil
}

// dissect finds the parts of a URL. Names keep the quotes they have there, and so does the metric's.
func (p *parameters) dissect() error {
	at, err := url.ParseRequestURI(p.URL)
	if err != nil {
		return errors.New("unable to parse the artemis restAPITemplate") // the cause may quote a password
	}
	names, err := jolokia.Attributes(cmp.Or(at.RawPath, at.EscapedPath()))
	if err != nil {
		return fmt.Errorf("unable to parse the artemis restAPITemplate: %w", err)
	}
	p.Endpoint, p.Address, p.Queue, p.Broker = at.Host, names.Get("address"), names.Get("queue"), names.Get("broker")
	switch {
	case empty(p.Address):
		return errors.New("no brokerAddress given")
	case empty(p.Queue):
		return errors.New("no queueName is given")
	case empty(p.Broker):
		return errors.New("no brokerName given")
	}
	return nil
}

func empty(quoted string) bool { return strings.Trim(quoted, `"`) == "" }

// certificate says how servers are known and we to them; an authority is asked only by those who have
// a certificate themselves.
func (p *parameters) certificate() endpoint.Certificate {
	if p.Cert == "" {
		return endpoint.Certificate{Unsafe: p.Unsafe}
	}
	return endpoint.Certificate{CA: p.CA, Cert: p.Cert, Key: p.Key, KeyPassword: p.KeyPassword, Unsafe: p.Unsafe}
}

// New makes a trigger of type artemis-queue.
func New(c trigger.Config) (trigger.Source, error) {
	var p parameters
	metric, err := c.Parameters(&p)
	if err != nil {
		return nil, err
	}
	metric.Name = trigger.Name(c.TriggerIndex, "artemis-"+p.Queue)
	metric.Target, metric.Activation = *resource.NewQuantity(p.Target, resource.DecimalSI), float64(p.Activation)
	return jolokia.New(c, metric, jolokia.Question{
		Server: "artemis", URL: p.URL, Username: p.Username, Password: p.Password, Origin: p.Origin,
	}, p.certificate())
}
