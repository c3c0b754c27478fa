package route

import (
	"cmp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// target is one entry of a Route's traffic with the Revision it leads to now.
type target struct {
	revision      string
	configuration string // of the revision, empty for a hand-made one
	tag           string
	percent       int64
	latest        *bool
}

// assignment is a Route's traffic with every target found and ready.
type assignment struct {
	listed []target            // as in the spec, equal ones joined: what status shows
	byTag  map[string][]target // per host: the main one under "", and one a tag
}

// A badTarget says why traffic cannot be assigned.
type badTarget struct {
	mark    func(*servingv1.RouteStatus)
	failure bool // it will not come right by waiting
}

// resolve finds the Revision behind every traffic target, or the first reason why one is missing;
// a failure outweighs what may still come.
func resolve(s state) (assignment, *badTarget) {
	var bad *badTarget
	a := assignment{byTag: map[string][]target{}}
	for i := range s.route.Spec.Traffic {
		t, b := resolveOne(s, &s.route.Spec.Traffic[i])
		if b != nil {
			if bad == nil || b.failure {
				bad = b
			}
			continue
		}
		a.add(t)
	}
	if bad != nil {
		return assignment{}, bad
	}
	for tag, targets := range a.byTag {
		a.byTag[tag] = consolidate(targets)
	}
	return a, nil
}

func resolveOne(s state, tt *servingv1.TrafficTarget) (target, *badTarget) {
	t := target{tag: tt.Tag, latest: tt.LatestRevision, configuration: tt.ConfigurationName, revision: tt.RevisionName}
	if tt.Percent != nil {
		t.percent = *tt.Percent
	}
	if t.revision == "" {
		cfg := s.configurations[t.configuration]
		if cfg == nil {
			return t, missing("Configuration", t.configuration)
		}
		if t.revision = cfg.Status.LatestReadyRevisionName; t.revision == "" {
			failed := cfg.Status.GetCondition(servingv1.ConfigurationConditionReady).IsFalse()
			return t, &badTarget{failure: failed, mark: func(st *servingv1.RouteStatus) {
				if failed {
					st.MarkConfigurationFailed(cfg.Name)
				} else {
					st.MarkConfigurationNotReady(cfg.Name)
				}
			}}
		}
	}
	rev := s.revisions[t.revision]
	if rev == nil {
		return t, missing("Revision", t.revision)
	}
	if tt.RevisionName != "" {
		if b := foreign(s.route, rev); b != nil {
			return t, b
		}
		t.configuration = rev.Labels[serving.ConfigurationLabelKey]
	}
	if !rev.IsReady() {
		failed := rev.Status.GetCondition(servingv1.RevisionConditionReady).IsFalse()
		return t, &badTarget{failure: failed, mark: func(st *servingv1.RouteStatus) {
			if failed {
				st.MarkRevisionFailed(rev.Name)
			} else {
				st.MarkRevisionNotReady(rev.Name)
			}
		}}
	}
	return t, nil
}

func missing(kind, name string) *badTarget {
	return &badTarget{failure: true, mark: func(st *servingv1.RouteStatus) { st.MarkMissingTrafficTarget(kind, name) }}
}

// foreign refuses a Revision of another Service on a Service's Route.
func foreign(route metav1.Object, rev *servingv1.Revision) *badTarget {
	wanted, actual := route.GetLabels()[serving.ServiceLabelKey], rev.Labels[serving.ServiceLabelKey]
	if wanted == "" || wanted == actual {
		return nil
	}
	return &badTarget{failure: true, mark: func(st *servingv1.RouteStatus) { st.MarkRevisionNotOwned(rev.Name, wanted, actual) }}
}

func (a *assignment) add(t target) {
	same := slices.IndexFunc(a.listed, func(o target) bool {
		return o.tag == t.tag && o.revision == t.revision && truth(o.latest) == truth(t.latest)
	})
	if same >= 0 {
		a.listed[same].percent += t.percent
	} else {
		a.listed = append(a.listed, t)
	}
	a.byTag[""] = append(a.byTag[""], t)
	if t.tag != "" {
		a.byTag[t.tag] = append(a.byTag[t.tag], t)
	}
}

func truth(b *bool) bool { return b != nil && *b }

// consolidate joins the targets of one host by Revision; a single one gets all.
func consolidate(targets []target) []target {
	var out []target
	for _, t := range targets {
		if i := slices.IndexFunc(out, func(o target) bool { return o.revision == t.revision }); i >= 0 {
			out[i].percent += t.percent
			continue
		}
		out = append(out, t)
	}
	if len(out) == 1 {
		out[0].percent = 100
	}
	return out
}

// tags lists the hosts' tags, the main host's empty one first.
func (a *assignment) tags() []string {
	out := make([]string, 0, len(a.byTag))
	for tag := range a.byTag {
		out = append(out, tag)
	}
	slices.SortFunc(out, cmp.Compare[string])
	return out
}
