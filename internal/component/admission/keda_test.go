package admission_test

import (
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	admissionv1 "k8s.io/api/admission/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlfake "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/yaml"

	"ebb.dev/ebb/internal/component/admission"
	"ebb.dev/ebb/internal/platform/kube"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// kedaServer answers reviews beside the neighbours; the cluster has the objects targets are.
func kedaServer(t *testing.T, neighbours []client.Object, cluster ...runtime.Object) *httptest.Server {
	t.Helper()
	return countingServer(t, nil, neighbours, cluster...)
}

// countingServer is one that counts.
func countingServer(t *testing.T, registry prometheus.Registerer, neighbours []client.Object, cluster ...runtime.Object) *httptest.Server {
	t.Helper()
	defaults, err := settings.Parse(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	b := ctrlfake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(neighbours...)
	for _, index := range admission.Indexes() {
		b = b.WithIndex(index.Object, index.Field, index.Value)
	}
	services := meta.NewDefaultRESTMapper(nil)
	services.Add(schema.GroupVersionKind{Group: "serving.knative.dev", Version: "v1", Kind: "Service"}, meta.RESTScopeNamespace)
	h := &admission.Handler{}
	h.Use(admission.Config{
		Settings: settings.Fixed(defaults), Client: fake.NewClientset(cluster...),
		Neighbours: admission.NewNeighbours(b.Build(), meta.MultiRESTMapper{testrestmapper.TestOnlyStaticRESTMapper(clientscheme.Scheme), services}),
		BuiltIn:    func(kind string) bool { return kind == "cron" || kind == "kafka" },
		Registerer: registry,
	})
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	return s
}

func kedaRequest(t *testing.T, op admissionv1.Operation, now, old string) *admissionv1.AdmissionRequest {
	t.Helper()
	req := request(t, op, "", now, old)
	var object struct {
		APIVersion, Kind string
	}
	if err := yaml.Unmarshal([]byte(now), &object); err != nil {
		t.Fatal(err)
	}
	group, version, _ := strings.Cut(object.APIVersion, "/")
	req.Resource = metav1.GroupVersionResource{Group: group, Version: version, Resource: strings.ToLower(object.Kind) + "s"}
	return req
}

const cronTrigger = "{type: cron, metadata: {timezone: UTC, start: 0 8 * * *, end: 0 9 * * *, desiredReplicas: '3'}}"

// scaledObject writes one down: what its specification has beside the target, and its triggers.
func scaledObject(name, target, rest string, triggers ...string) string {
	return "{apiVersion: keda.sh/v1alpha1, kind: ScaledObject, metadata: {name: " + name + ", namespace: shop}, spec: {scaleTargetRef: {name: " + target + "}, " +
		rest + " triggers: [" + strings.Join(triggers, ", ") + "]}}"
}

func neighbours(t *testing.T) []client.Object {
	t.Helper()
	var other kedav1alpha1.ScaledObject
	if err := yaml.Unmarshal([]byte(scaledObject("first", "taken", "", cronTrigger)), &other); err != nil {
		t.Fatal(err)
	}
	hpa := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "by-hand"}}
	hpa.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "manual"}
	return []client.Object{&other, hpa}
}

func TestScaledObjectsAreJudged(t *testing.T) {
	s := kedaServer(t, neighbours(t), deployment("bare", nil), deployment("sized", corev1.ResourceList{"cpu": quantity("100m")}))
	cpuTrigger := "{type: cpu, metricType: Utilization, metadata: {value: '50'}}"
	named := func(name string) string {
		return "advanced: {horizontalPodAutoscalerConfig: {name: " + name + "}},"
	}
	tests := map[string]struct {
		object, refused, warned string
	}{
		"all is right":                   {object: scaledObject("x", "free", "", cronTrigger)},
		"its own update":                 {object: scaledObject("first", "taken", "maxReplicaCount: 7,", cronTrigger)},
		"a target of another's":          {object: scaledObject("x", "taken", "", cronTrigger), refused: "the workload 'taken' of type 'apps/v1.Deployment' is already managed by the ScaledObject 'first'"},
		"the same name, another kind":    {object: strings.Replace(scaledObject("x", "taken", "", cronTrigger), "{name: taken}", "{name: taken, kind: StatefulSet}", 1)},
		"a kind there is not":            {object: strings.Replace(scaledObject("x", "free", "", cronTrigger), "{name: free}", "{name: free, kind: Nothing}", 1), refused: "no matches for kind"},
		"another's autoscaler":           {object: scaledObject("x", "free", named("keda-hpa-first"), cronTrigger), refused: "the HPA 'keda-hpa-first' is already managed by the ScaledObject 'first'"},
		"an autoscaler by hand":          {object: scaledObject("x", "manual", "", cronTrigger), refused: "the workload 'manual' of type 'apps/v1.Deployment' is already managed by the hpa 'by-hand'"},
		"an autoscaler handed over":      {object: strings.Replace(scaledObject("x", "manual", named("by-hand"), cronTrigger), "namespace: shop", "namespace: shop, annotations: {scaledobject.keda.sh/transfer-hpa-ownership: 'true'}", 1)},
		"an autoscaler not named":        {object: strings.Replace(scaledObject("x", "manual", "", cronTrigger), "namespace: shop", "namespace: shop, annotations: {scaledobject.keda.sh/transfer-hpa-ownership: 'true'}", 1), refused: "must be specified by name in advanced settings"},
		"bounds that cross":              {object: scaledObject("x", "free", "minReplicaCount: 9, maxReplicaCount: 3,", cronTrigger), refused: "MinReplicaCount=9 must be less than MaxReplicaCount=3"},
		"a long name":                    {object: scaledObject(strings.Repeat("x", 60), "free", "", cronTrigger), refused: "must be no more than 63 characters"},
		"a share of nothing":             {object: scaledObject("x", "bare", "minReplicaCount: 1,", cpuTrigger), refused: "the scaledobject has a cpu trigger but the container bare doesn't have the cpu request defined"},
		"a share of something":           {object: scaledObject("x", "sized", "minReplicaCount: 1,", cpuTrigger)},
		"a share cannot wake":            {object: scaledObject("x", "sized", "", cpuTrigger), refused: "scale to zero doesn't work in this case"},
		"a share and another trigger":    {object: scaledObject("x", "sized", "", cpuTrigger, cronTrigger)},
		"an interval without effect":     {object: scaledObject("x", "free", "minReplicaCount: 1, pollingInterval: 5,", cronTrigger), warned: "PollingInterval is configured but is not relevant"},
		"a cooldown without effect":      {object: scaledObject("x", "free", "minReplicaCount: 1, cooldownPeriod: 5,", cronTrigger), warned: "CooldownPeriod is configured but is not relevant"},
		"a formula about nobody":         {object: scaledObject("x", "free", "advanced: {scalingModifiers: {formula: a + b, target: '2'}},", cronTrigger), refused: "error validating formula in ScalingModifiers"},
		"a misspelt type":                {object: scaledObject("x", "free", "", "{type: corn, metadata: {}}"), refused: `spec.triggers[0].type: there is no trigger of type "corn"; did you mean "cron"?`},
		"a misspelt parameter":           {object: scaledObject("x", "free", "", strings.Replace(cronTrigger, "desiredReplicas", "desiredReplica", 1)), refused: `spec.triggers[0].metadata.desiredReplica: triggers of type "cron" have no such parameter; did you mean "desiredReplicas"?`},
		"a type that is not built in":    {object: scaledObject("x", "free", "", "{type: temporal, metadata: {endpoint: 'a:1', taskQueue: q}}"), warned: `a trigger of type "external" can ask a scaler of your own`},
		"two triggers of one name":       {object: scaledObject("x", "free", "", "{name: a, "+cronTrigger[1:], "{name: a, "+cronTrigger[1:]), refused: `triggerName "a" is defined multiple times`},
		"a remembered figure of the cpu": {object: scaledObject("x", "sized", "minReplicaCount: 1,", "{useCachedMetrics: true, "+cpuTrigger[1:]), refused: `property "useCachedMetrics" is not supported for "cpu" scaler`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			judge(t, ask(t, s, "/keda-validation", kedaRequest(t, admissionv1.Create, tt.object, "")), tt.refused, tt.warned)
		})
	}
}

// judge holds an answer against what it must say, and say only.
func judge(t *testing.T, res *admissionv1.AdmissionResponse, refused, warned string) {
	t.Helper()
	switch {
	case refused == "" && !res.Allowed:
		t.Errorf("refused: %s", res.Result.Message)
	case refused != "" && (res.Allowed || !strings.Contains(res.Result.Message, refused)):
		t.Errorf("answered %+v, want a refusal that says %q", res, refused)
	}
	if got := strings.Join(res.Warnings, "\n"); warned == "" && got != "" || !strings.Contains(got, warned) {
		t.Errorf("warnings %q, want %q", got, warned)
	}
}

func TestTriggersOfServicesAreJudgedAsThoseOfScaledObjects(t *testing.T) {
	taken := &kedav1alpha1.ScaledObject{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "by-hand"}}
	taken.Spec.ScaleTargetRef = &kedav1alpha1.ScaleTarget{APIVersion: "serving.knative.dev/v1", Kind: "Service", Name: "taken"}
	s := kedaServer(t, []client.Object{taken})
	service := func(name, triggers string) string {
		return "{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: " + name + ", namespace: shop, annotations: {ebb.dev/triggers: " +
			strconv.Quote(triggers) + "}}, spec: {traffic: [{latestRevision: true, percent: 100}], template: {spec: {containers: [{image: x}]}}}}"
	}
	broken := service("orders", "[{type: corn}]")
	at := "metadata.annotations[ebb.dev/triggers]: "
	for name, c := range map[string]struct{ now, old, refused, warned string }{
		"a list":               {now: service("orders", "["+cronTrigger+"]")},
		"a spec":               {now: service("orders", "{maxReplicaCount: 5, triggers: ["+cronTrigger+"]}")},
		"no YAML":              {now: service("orders", "["), refused: at + "it is no YAML"},
		"a field there is not": {now: service("orders", "[{type: cron, metdata: {}}]"), refused: at + `triggers[0]: unknown field "metdata"`},
		"a misspelt parameter": {now: service("orders", "["+strings.Replace(cronTrigger, "desiredReplicas", "desiredReplica", 1)+"]"), refused: at + "triggers[0].metadata.desiredReplica: "},
		"a misspelt type":      {now: broken, refused: at + `triggers[0].type: there is no trigger of type "corn"`},
		"bounds that cross":    {now: service("orders", "{minReplicaCount: 9, maxReplicaCount: 3, triggers: ["+cronTrigger+"]}"), refused: at + "MinReplicaCount=9 must be less"},
		"no triggers":          {now: service("orders", "[]"), refused: at + "no triggers defined"},
		"a type not built in":  {now: service("orders", "[{type: temporal, metadata: {endpoint: 'a:1', taskQueue: q}}]"), warned: at + "triggers[0].type: triggers of type"},
		"another's Service":    {now: service("taken", "["+cronTrigger+"]"), refused: "is already managed by the ScaledObject 'by-hand'"},
		"as it was before":     {now: broken, old: broken},
		"a long name":          {now: service(strings.Repeat("x", 60), "["+cronTrigger+"]"), refused: at + "HPA name"},
	} {
		t.Run(name, func(t *testing.T) {
			op := admissionv1.Create
			if c.old != "" {
				op = admissionv1.Update
			}
			res := ask(t, s, "/resource-validation", request(t, op, "services", c.now, c.old))
			res.Warnings = slices.DeleteFunc(res.Warnings, func(w string) bool { return !strings.HasPrefix(w, at) }) // those about the rest
			judge(t, res, c.refused, c.warned)
		})
	}
}

func TestWhatIsJudgedIsCountedByKedasNames(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	s := countingServer(t, registry, neighbours(t))
	for _, c := range []struct {
		op     admissionv1.Operation
		object string
	}{
		{admissionv1.Create, scaledObject("x", "free", "", cronTrigger)},
		{admissionv1.Create, scaledObject("x", "taken", "", cronTrigger)},
		{admissionv1.Update, scaledObject("x", "free", "minReplicaCount: 9, maxReplicaCount: 3,", cronTrigger)},
		{admissionv1.Create, "{apiVersion: keda.sh/v1alpha1, kind: ScaledJob, metadata: {name: x, namespace: shop}, spec: {triggers: []}}"},
	} {
		ask(t, s, "/keda-validation", kedaRequest(t, c.op, c.object, ""))
	}
	want := `# HELP keda_webhook_scaled_object_validation_errors_total Total number of scaled object validating errors
# TYPE keda_webhook_scaled_object_validation_errors_total counter
keda_webhook_scaled_object_validation_errors_total{action="create",namespace="shop",reason="incorrect-triggers"} 1
keda_webhook_scaled_object_validation_errors_total{action="create",namespace="shop",reason="other-scaled-object"} 1
keda_webhook_scaled_object_validation_errors_total{action="update",namespace="shop",reason="incorrect-replicas"} 1
# HELP keda_webhook_scaled_object_validations_total Total number of scaled object validations
# TYPE keda_webhook_scaled_object_validations_total counter
keda_webhook_scaled_object_validations_total{action="create",namespace="shop"} 2
keda_webhook_scaled_object_validations_total{action="update",namespace="shop"} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

func TestOtherKindsOfKedaAreJudged(t *testing.T) {
	s := kedaServer(t, nil)
	auth := func(kind, spec string) string {
		return "{apiVersion: keda.sh/v1alpha1, kind: " + kind + ", metadata: {name: x}, spec: {" + spec + "}}"
	}
	events := func(kind, spec string) string {
		return "{apiVersion: eventing.keda.sh/v1alpha1, kind: " + kind + ", metadata: {name: x}, spec: {destination: {http: {uri: 'http://x'}}, eventSubscription: {" + spec + "}}}"
	}
	emptyID := "podIdentity: {provider: azure-workload, identityId: ''}"
	tests := map[string]struct {
		object, refused, warned string
	}{
		"a job":                        {object: auth("ScaledJob", "triggers: ["+cronTrigger+"]")},
		"a job without triggers":       {object: auth("ScaledJob", "triggers: []"), refused: "no triggers defined in the ScaledObject/ScaledJob"},
		"a job with a misspelt type":   {object: auth("ScaledJob", "triggers: [{type: kafak, metadata: {}}]"), refused: `did you mean "kafka"?`},
		"secrets":                      {object: auth("TriggerAuthentication", "secretTargetRef: [{parameter: p, name: secret, key: k}]")},
		"an empty identity":            {object: auth("TriggerAuthentication", emptyID), refused: "identityId of PodIdentity should not be empty"},
		"an empty identity for all":    {object: auth("ClusterTriggerAuthentication", emptyID), refused: "identityId of PodIdentity should not be empty"},
		"a token from nowhere":         {object: auth("TriggerAuthentication", "oauth2: {type: clientCredentials, clientId: c}"), refused: "oauth2.tokenUrl is required"},
		"all events":                   {object: events("CloudEventSource", "")},
		"events both in and out":       {object: events("CloudEventSource", "includedEventTypes: [keda.scaledobject.ready.v1], excludedEventTypes: [keda.scaledobject.ready.v1]"), refused: "setting included types and excluded types at the same time is not supported"},
		"events there are not":         {object: events("ClusterCloudEventSource", "includedEventTypes: [keda.nothing.v1]"), refused: "includedEventType: keda.nothing.v1 in cloudeventsource/clustercloudeventsource spec is not supported"},
		"events of all, for a cluster": {object: events("ClusterCloudEventSource", "")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			judge(t, ask(t, s, "/keda-validation", kedaRequest(t, admissionv1.Create, tt.object, "")), tt.refused, tt.warned)
		})
	}
}

func TestWhatWasAdmittedIsNotJudgedAnew(t *testing.T) {
	s := kedaServer(t, neighbours(t))
	wrong := scaledObject("x", "taken", "", "{type: corn, metadata: {}}")
	labelled := strings.Replace(wrong, "namespace: shop", "namespace: shop, labels: {a: b}, finalizers: [finalizer.keda.sh]", 1)
	leaving := strings.Replace(scaledObject("x", "taken", "maxReplicaCount: 7,", cronTrigger), "namespace: shop", "namespace: shop, deletionTimestamp: '2026-01-01T00:00:00Z'", 1)
	changed := scaledObject("x", "taken", "maxReplicaCount: 7,", cronTrigger)
	tests := map[string]struct{ now, refused string }{
		"a label and a finalizer":         {labelled, ""},
		"an object that is being deleted": {leaving, ""},
		"a changed specification":         {changed, "is already managed by the ScaledObject 'first'"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			judge(t, ask(t, s, "/keda-validation", kedaRequest(t, admissionv1.Update, tt.now, wrong)), tt.refused, "")
		})
	}
}
