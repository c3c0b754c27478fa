package cloudeventsource

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	kedaeventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"ebb.dev/ebb/internal/adapter/credential"
	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/component/controller/cloudeventsource/delivery"
)

// DefaultCluster is KEDA's name of a cluster that was given none.
const DefaultCluster = "kubernetes-default"

// Config is what sources need from the rest of ebb.
type Config struct {
	// Cluster is the cluster's name in events, unless a source has another; DefaultCluster when empty.
	Cluster string
	// Namespace is where KEDA would be, in events, and where cluster sources' authentications read;
	// credential.DefaultNamespace when empty.
	Namespace string
	// Transport sends events. It knows the cluster's names as well as the machine's.
	Transport http.RoundTripper
	// Credentials resolves authentications.
	Credentials Credentials
	// AzureToken gets a token for a pod identity of Azure's.
	AzureToken func(ctx context.Context, identity kedav1alpha1.AuthPodIdentity, scope string) (string, error)
	// Registerer takes the metrics. Optional.
	Registerer prometheus.Registerer
	Log        *slog.Logger
}

// Credentials resolves what a source signs in with.
type Credentials interface {
	Resolve(ctx context.Context, q credential.Request) (credential.Resolved, error)
}

// Sources offers events to all CloudEventSources and ClusterCloudEventSources. It is the Emitter that
// others are told of events by.
type Sources struct {
	config         Config
	client         *http.Client
	lanes          *delivery.Lanes
	local, cluster controller.Trigger
	scheme         atomic.Pointer[runtime.Scheme]

	mu   sync.Mutex // guards have
	have map[types.NamespacedName]string
}

// New returns Sources that deliver until ctx ends. Setup makes them known.
func New(ctx context.Context, c Config) (*Sources, error) {
	c.Cluster, c.Namespace = cmp.Or(c.Cluster, DefaultCluster), cmp.Or(c.Namespace, credential.DefaultNamespace)
	s := &Sources{config: c, client: &http.Client{Transport: c.Transport}, have: map[types.NamespacedName]string{}}
	var err error
	s.lanes, err = delivery.New(ctx, c.Registerer, c.Log, s.changed)
	return s, err
}

// use has the kinds of objects be told by a scheme.
func (s *Sources) use(scheme *runtime.Scheme) { s.scheme.Store(scheme) }

// changed asks for a reconcile of a source whose sink began or ceased to fail.
func (s *Sources) changed(key delivery.Key) {
	news := &s.local
	if key.Namespace == "" {
		news = &s.cluster
	}
	news.Fire(types.NamespacedName(key))
}

// Emit offers an event to the sources that subscribed to its type. It does not block.
func (s *Sources) Emit(object client.Object, _ string, cloudEventType kedaeventingv1alpha1.CloudEventType, reason, message string) {
	scheme := s.scheme.Load()
	if cloudEventType == "" || scheme == nil || !s.lanes.Any() {
		return
	}
	kind, err := apiutil.GVKForObject(object, scheme)
	if err != nil {
		s.config.Log.Error("cannot tell an object's kind; no CloudEvent is sent", "object", client.ObjectKeyFromObject(object).String(), "error", err)
		return
	}
	s.lanes.Offer(&delivery.Event{
		ID: string(uuid.NewUUID()), Type: cloudEventType, Time: time.Now().UTC(),
		Namespace: object.GetNamespace(), Kind: strings.ToLower(kind.Kind), Name: strings.ToLower(object.GetName()),
		Reason: reason, Message: message,
	})
}

// set has the lane of a source be as the source says. The error is for people, in its status.
func (s *Sources) set(key types.NamespacedName, object source) error {
	spec := object.GetSpec()
	text, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("reading the source: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.have[key] == string(text) {
		return nil
	}
	sink, err := s.sink(key, spec.DeepCopy())
	if err != nil {
		s.lanes.Remove(keyOf(key))
		delete(s.have, key)
		return err
	}
	s.lanes.Set(keyOf(key), delivery.Source{
		Sink: sink, Included: spec.EventSubscription.IncludedEventTypes, Excluded: spec.EventSubscription.ExcludedEventTypes,
	})
	s.have[key] = string(text)
	return nil
}

func (s *Sources) remove(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.have, key)
	s.lanes.Remove(keyOf(key))
}

func (s *Sources) active(key types.NamespacedName) bool { return s.lanes.Active(keyOf(key)) }

// sink is where a source's events go; HTTP, if it says both.
func (s *Sources) sink(key types.NamespacedName, spec *kedaeventingv1alpha1.CloudEventSourceSpec) (delivery.Sink, error) {
	sender := delivery.Sender{Cluster: cmp.Or(spec.ClusterName, s.config.Cluster), Namespace: s.config.Namespace}
	switch d := spec.Destination; {
	case d.HTTP != nil:
		return delivery.NewHTTP(sender, d.HTTP.URI, s.client)
	case d.AzureEventGridTopic != nil:
		return delivery.NewEventGrid(sender, d.AzureEventGridTopic.Endpoint, s.client, func(ctx context.Context) (delivery.Ticket, error) {
			return s.ticket(ctx, key, spec.AuthenticationRef)
		})
	}
	return nil, errors.New("no destination is given: set http or azureEventGridTopic")
}

// eventGridScope is what tokens for Event Grid are asked for with.
const eventGridScope = "https://eventgrid.azure.net/.default"

// ticket gets what lets events through to a topic. It is asked for each event, so that new keys are
// used at once.
func (s *Sources) ticket(ctx context.Context, key types.NamespacedName, ref *kedav1alpha1.AuthenticationRef) (delivery.Ticket, error) {
	if s.config.Credentials == nil {
		return delivery.Ticket{}, errors.New("no authentications can be resolved here")
	}
	have, err := s.config.Credentials.Resolve(ctx, credential.Request{Namespace: cmp.Or(key.Namespace, s.config.Namespace), Ref: ref})
	if err != nil {
		return delivery.Ticket{}, fmt.Errorf("resolving the authentication: %w", err)
	}
	switch have.Identity.Provider {
	case "", kedav1alpha1.PodIdentityProviderNone:
		if have.Params["accessKey"] == "" {
			return delivery.Ticket{}, have.Explain(errors.New("no azure event grid access key provided"))
		}
		return delivery.Ticket{AccessKey: have.Params["accessKey"]}, nil
	case kedav1alpha1.PodIdentityProviderAzureWorkload:
		if s.config.AzureToken == nil {
			return delivery.Ticket{}, errors.New("pod identities of Azure are not part of this ebb: give an access key")
		}
		token, err := s.config.AzureToken(ctx, have.Identity, eventGridScope)
		return delivery.Ticket{Token: token}, err
	default:
		return delivery.Ticket{}, fmt.Errorf("incorrect auth provided: Event Grid takes no pod identity %s", have.Identity.Provider)
	}
}
