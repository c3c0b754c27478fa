package rabbitmq

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

// The protocols, as users write them.
const (
	protocolAuto = "auto"
	protocolAMQP = "amqp"
	protocolHTTP = "http"
)

// The modes.
const (
	unknown         = "Unknown"
	queueLength     = "QueueLength"
	messageRate     = "MessageRate"
	deliverGetRate  = "DeliverGetRate"
	deliveredRatio  = "PublishedToDeliveredRatio"
	consumptionTime = "ExpectedQueueConsumptionTime"
)

// defaultLength is the target where a trigger says nothing.
const defaultLength = 20

type parameters struct {
	TriggerIndex int

	Queue      string        `keda:"name=queueName, order=triggerMetadata"`
	Mode       string        `keda:"name=mode, order=triggerMetadata, optional, default=Unknown"`
	Length     float64       `keda:"name=queueLength, order=triggerMetadata, optional"`
	Value      float64       `keda:"name=value, order=triggerMetadata, optional"`
	Activation float64       `keda:"name=activationValue, order=triggerMetadata, optional"`
	Host       string        `keda:"name=host, order=triggerMetadata;authParams;resolvedEnv"`
	Protocol   string        `keda:"name=protocol, order=triggerMetadata;authParams, default=auto"`
	Vhost      string        `keda:"name=vhostName, order=triggerMetadata;authParams, optional"`
	UseRegex   bool          `keda:"name=useRegex, order=triggerMetadata, optional"`
	ReadyOnly  bool          `keda:"name=excludeUnacknowledged, order=triggerMetadata, optional"`
	PageSize   int64         `keda:"name=pageSize, order=triggerMetadata, default=100"`
	Operation  string        `keda:"name=operation, order=triggerMetadata, default=sum"`
	Timeout    time.Duration `keda:"name=timeout, order=triggerMetadata, optional"`

	Username string `keda:"name=username, order=authParams;resolvedEnv, optional"`
	Password string `keda:"name=password, order=authParams;resolvedEnv, optional"`

	CA          string `keda:"name=ca, order=authParams, optional"`
	Cert        string `keda:"name=cert, order=authParams, optional"`
	Key         string `keda:"name=key, order=authParams, optional"`
	KeyPassword string `keda:"name=keyPassword, order=authParams, optional"`
	TLS         string `keda:"name=tls, order=authParams, default=disable"`
	Unsafe      bool   `keda:"name=unsafeSsl, order=triggerMetadata, optional"`

	IdentityResource string `keda:"name=workloadIdentityResource, order=authParams, optional"`

	Auth endpoint.Auth `keda:"optional"`
}

// Validate checks what the tags cannot say, and settles protocol, mode and target.
func (p *parameters) Validate() error {
	for _, check := range []func() error{p.checkForm, p.settleProtocol, p.checkLogin, p.checkProtocol, p.settleMode, p.checkMode} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (p *parameters) checkForm() error {
	switch {
	case p.Protocol != protocolAMQP && p.Protocol != protocolHTTP && p.Protocol != protocolAuto:
		return fmt.Errorf("the protocol has to be either `%s`, `%s`, or `%s` but is `%s`", protocolAMQP, protocolHTTP, protocolAuto, p.Protocol)
	case p.TLS != "enable" && p.TLS != "disable":
		return fmt.Errorf("incorrect value for TLS given: %s", p.TLS)
	case (p.Cert == "") != (p.Key == ""):
		return errors.New("both key and certificate must be provided")
	case p.PageSize < 1:
		return errors.New("pageSize should be 1 or greater")
	case (p.Username == "") != (p.Password == ""):
		return errors.New("username and password must be given together")
	}
	return nil
}

func (p *parameters) settleProtocol() error {
	if p.Protocol != protocolAuto {
		return nil
	}
	at, err := url.Parse(p.Host)
	if err != nil {
		return errors.New("can't parse host to find protocol") // the cause may quote a password
	}
	switch at.Scheme {
	case "amqp", "amqps":
		p.Protocol = protocolAMQP
	case "http", "https":
		p.Protocol = protocolHTTP
	default:
		return fmt.Errorf("unknown host URL scheme: `%s`", at.Scheme)
	}
	return nil
}

func (p *parameters) checkLogin() error {
	if p.Protocol == protocolAMQP && p.IdentityResource != "" {
		return errors.New("workload identity is not supported for the AMQP protocol at the moment")
	}
	token := p.token()
	if token && len(p.Auth.Modes) == 0 { // who gives what a token takes need not say so
		p.Auth.Modes = []endpoint.Mode{endpoint.OAuth}
	}
	if err := p.Auth.Allow(endpoint.OAuth, endpoint.Basic, endpoint.Mutual); err != nil {
		return err
	}
	if err := p.Auth.Validate(); err != nil {
		return err
	}
	if token {
		return p.checkToken()
	}
	return nil
}

// token says that there is anything about tokens of OAuth 2.
func (p *parameters) token() bool {
	return p.Auth.TokenURI != "" || p.Auth.ClientID != "" || p.Auth.ClientSecret != ""
}

func (p *parameters) checkToken() error {
	switch {
	case p.Auth.ClientSecret == "":
		return errors.New("OAuth2 requires tokenUrl clientId and clientSecret to be configured in TriggerAuthentication")
	case p.Protocol == protocolAMQP:
		return errors.New("OAuth2 authentication is only supported with HTTP protocol, not AMQP")
	case p.Username != "" || p.IdentityResource != "":
		return errors.New("OAuth2 authentication cannot be combined with username/password authentication or Azure Workload Identity")
	}
	return nil
}

func (p *parameters) checkProtocol() error {
	switch {
	case p.Protocol == protocolHTTP:
	case p.UseRegex:
		return errors.New("configure useRegex=true only with HTTP protocol")
	case p.ReadyOnly:
		return errors.New("configure excludeUnacknowledged=true only with HTTP protocol")
	}
	return nil
}

// settleMode takes the older ways to say a queue's length, and none, for what they mean.
func (p *parameters) settleMode() error {
	switch {
	case p.Length == 0 && p.Mode == unknown && p.Value == 0:
		p.Length = defaultLength
	case p.Length == 0:
		return nil
	case p.Mode != unknown || p.Value != 0:
		return errors.New("queueLength is deprecated; use mode and value")
	}
	p.Mode, p.Value = queueLength, p.Length
	return nil
}

func (p *parameters) checkMode() error {
	modes := []string{queueLength, messageRate, deliverGetRate, deliveredRatio, consumptionTime}
	switch {
	case p.Length != 0: // what the older ways leave out is as they leave it
		return nil
	case p.Mode == unknown:
		return errors.New("mode must be specified")
	case p.Value == 0:
		return errors.New("value must be specified")
	case !slices.Contains(modes, p.Mode):
		return fmt.Errorf("trigger mode %s must be one of %s or %s", p.Mode, strings.Join(modes[:4], ", "), modes[4])
	case p.Mode != queueLength && p.Protocol != protocolHTTP:
		return fmt.Errorf("protocol %s not supported; must be HTTP to use trigger mode %s", p.Protocol, p.Mode)
	case p.Protocol == protocolAMQP && p.Timeout != 0:
		return fmt.Errorf("AMQP protocol doesn't support custom timeouts: %d", p.Timeout)
	}
	return nil
}
