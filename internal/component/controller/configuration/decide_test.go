package configuration

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/domain/render"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func configurationOf(generation int64) *servingv1.Configuration {
	cfg := &servingv1.Configuration{ObjectMeta: metav1.ObjectMeta{Name: "hello", Namespace: "shop", UID: "u", Generation: generation}}
	cfg.Spec.Template.Spec.Containers = []corev1.Container{{Image: "example.com/hello:v1"}}
	return cfg
}

// revisionOf is the Revision of a generation with its Ready condition.
func revisionOf(generation int64, ready corev1.ConditionStatus, reason, message string) *servingv1.Revision {
	rev := render.Revision(configurationOf(generation), noon)
	if ready != "" {
		rev.Status.Conditions = duckv1.Conditions{{Type: apis.ConditionReady, Status: ready, Reason: reason, Message: message}}
	}
	return rev
}

func TestDecide(t *testing.T) {
	named := func(s *state) {
		s.configuration.Spec.Template.Name = "hello-blue"
	}
	tests := map[string]struct {
		change          func(*state)
		creates         string
		created, latest string
		ready, message  string
	}{
		"the first generation becomes a revision": {func(*state) {}, "hello-00002", "hello-00002", "", "Unknown ", ""},
		"one on its way is waited for": {func(s *state) {
			s.revisions = append(s.revisions, revisionOf(2, "Unknown", "Deploying", ""))
		}, "", "hello-00002", "", "Unknown ", ""},
		"one that cannot start says why": {func(s *state) {
			s.revisions = append(s.revisions, revisionOf(2, "Unknown", "ImagePullBackOff", "no such image"))
		}, "", "hello-00002", "", "Unknown ImagePullBackOff", `Revision "hello-00002" is not ready: no such image`},
		"a ready one is named": {func(s *state) {
			s.revisions = append(s.revisions, revisionOf(2, "True", "", ""))
		}, "", "hello-00002", "hello-00002", "True ", ""},
		"a failed one fails the configuration": {func(s *state) {
			s.revisions = append(s.revisions, revisionOf(2, "False", "ExitCode5", "boom"))
		}, "", "hello-00002", "", "False RevisionFailed", `Revision "hello-00002" failed with message: boom.`},
		"an older ready one serves while the new one fails": {func(s *state) {
			s.revisions = append(s.revisions, revisionOf(1, "True", "", ""), revisionOf(2, "False", "ExitCode5", "boom"))
		}, "", "hello-00002", "hello-00001", "False RevisionFailed", `Revision "hello-00002" failed with message: boom.`},
		"one of another's with the name is refused": {func(s *state) {
			s.named = &servingv1.Revision{ObjectMeta: metav1.ObjectMeta{Name: "hello-00002"}}
		}, "", "", "", "False RevisionFailed", `Revision creation failed with message: revisions.serving.knative.dev "hello-00002" already exists.`},
		"a name of one's own is used": {named, "hello-blue", "hello-blue", "", "Unknown ", ""},
		"a name used for the same spec is a rollback": {func(s *state) {
			named(s)
			s.named = revisionOf(1, "True", "", "")
			s.named.Name = "hello-blue"
			s.revisions = append(s.revisions, s.named)
		}, "", "hello-blue", "hello-blue", "True ", ""},
		"a name used for another spec is refused": {func(s *state) {
			named(s)
			s.named = revisionOf(1, "True", "", "")
			s.named.Name, s.named.Spec.Containers[0].Image = "hello-blue", "other"
		}, "", "", "", "False RevisionFailed", `Revision creation failed with message: revisions.serving.knative.dev "hello-blue" already exists.`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := state{configuration: configurationOf(2)}
			tt.change(&s)
			p := decide(s, noon)
			creates := ""
			if p.create != nil {
				creates = p.create.Name
			}
			if creates != tt.creates {
				t.Errorf("creates %q, want %q", creates, tt.creates)
			}
			if got := p.status.LatestCreatedRevisionName; got != tt.created {
				t.Errorf("latest created %q, want %q", got, tt.created)
			}
			if got := p.status.LatestReadyRevisionName; got != tt.latest {
				t.Errorf("latest ready %q, want %q", got, tt.latest)
			}
			ready := p.status.GetCondition(apis.ConditionReady)
			if got := string(ready.Status) + " " + ready.Reason; got != tt.ready || ready.Message != tt.message {
				t.Errorf("ready %q %q, want %q %q", got, ready.Message, tt.ready, tt.message)
			}
		})
	}
}

func TestNewRevisionKeepsTheNewestReadyOne(t *testing.T) {
	s := state{configuration: configurationOf(3)}
	s.configuration.Status.LatestReadyRevisionName = "hello-00002"
	s.revisions = []*servingv1.Revision{
		revisionOf(1, "True", "", ""), revisionOf(2, "True", "", ""), revisionOf(3, "Unknown", "Deploying", ""),
	}
	if got := decide(s, noon).status.LatestReadyRevisionName; got != "hello-00002" {
		t.Errorf("latest ready %q, want hello-00002", got)
	}
}

func TestGenerationLabelIsReadAsANumber(t *testing.T) {
	rev := revisionOf(12, "", "", "")
	if got := generationOf(rev); got != 12 {
		t.Errorf("generation %d", got)
	}
	rev.Labels[serving.ConfigurationGenerationLabelKey] = "x"
	if got := generationOf(rev); got != 0 {
		t.Errorf("generation %d of a label that is no number", got)
	}
}
