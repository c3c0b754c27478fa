// Package activemq reads how many messages wait in a queue of ActiveMQ (Classic), from its Jolokia
// agent.
package activemq

import (
	"errors"
	"fmt"
	"net/url"

	"k8s.io/apimachinery/pkg/api/resource"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
	"ebb.dev/ebb/internal/adapter/trigger/jolokia"
)

type parameters struct {
	TriggerIndex int

	Endpoint    string `keda:"name=managementEndpoint, order=triggerMetadata;authParams;resolvedEnv, optional"`
	Destination string `keda:"name=destinationName, order=triggerMetadata, optional"`
	Broker      string `keda:"name=brokerName, order=triggerMetadata, optional"`
	Username    string `keda:"name=username, order=authParams;resolvedEnv;triggerMetadata"`
	Password    string `keda:"name=password, order=authParams;resolvedEnv;triggerMetadata"`
	Origin      string `keda:"name=corsHeader, order=triggerMetadata, optional"`
	URL         string `keda:"name=restAPITemplate, order=triggerMetadata, optional"`
	Target      int64  `keda:"name=targetQueueSize, order=triggerMetadata, default=10"`
	Activation  int64  `keda:"name=activationTargetQueueSize, order=triggerMetadata, default=0"`
}

// Validate checks what the tags cannot say, and settles where to ask.
func (p *parameters) Validate() error {
	if err := p.settle(); err != nil {
		return err
	}
	if p.Origin == "" {
		p.Origin = "http://" + p.Endpoint
	}
	return nil
}

// settle makes the URL of its parts, or finds the parts in the URL.
func (p *parameters) settle() error {
	switch {
	case p.URL != "":
		return p.dissect()
	case p.Endpoint == "":
		return errors.New("no management endpoint given")
	case p.Destination == "":
		return errors.New("no destination name given")
	case p.Broker == "":
		return errors.New("no broker name given")
	}
	p.URL = fmt.Sprintf("http://%s/api/jolokia/read/org.apache.activemq:type=Broker,brokerName=%s,destinationType=Queue,destinationName=%s/QueueSize",
		p.Endpoint, p.Broker, p.Destination)
	return nil
}

func (p *parameters) dissect() error {
	at, err := url.ParseRequestURI(p.URL)
	if err != nil {
		return errors.New("unable to parse ActiveMQ restAPITemplate") // the cause may quote a password
	}
	names, err := jolokia.Attributes(at.Path)
	if err != nil {
		return fmt.Errorf("unable to parse ActiveMQ restAPITemplate: %w", err)
	}
	p.Endpoint, p.Destination, p.Broker = at.Host, names.Get("destinationName"), names.Get("brokerName")
	switch {
	case p.Destination == "":
		return errors.New("no destinationName is given")
	case p.Broker == "":
		return errors.New("no brokerName given")
	}
	return nil
}

// New makes a trigger of type activemq.
func New(c trigger.Config) (trigger.Source, error) {
	var p parameters
	metric, err := c.Parameters(&p)
	if err != nil {
		return nil, err
	}
	metric.Name = trigger.Name(c.TriggerIndex, "activemq-"+p.Destination)
	metric.Target, metric.Activation = *resource.NewQuantity(p.Target, resource.DecimalSI), float64(p.Activation)
	return jolokia.New(c, metric, jolokia.Question{
		Server: "ActiveMQ", URL: p.URL, Username: p.Username, Password: p.Password, Origin: p.Origin,
	}, endpoint.Certificate{})
}
