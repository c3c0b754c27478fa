package jobs

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	rules "ebb.dev/ebb/internal/domain/jobs"
)

// An Account says why an object has the Jobs it has. It can be written as JSON.
type Account struct {
	// UID is the object's; nothing of an earlier one of its name remains.
	UID types.UID `json:"-"`
	// At is when the last decision was made, Observed when the observation it rests on began.
	At       time.Time `json:"at"`
	Observed time.Time `json:"observed"`
	// Followed tells that decisions are made at present; a paused object has none.
	Followed bool           `json:"followed"`
	Triggers []AccountInput `json:"triggers"`
	// Strategy and Combination make one number of the triggers, within Min and Max.
	Strategy    string `json:"strategy"`
	Combination string `json:"combination"`
	Min         int64  `json:"min"`
	Max         int64  `json:"max"`
	// Active, Queue and Wanted are the combined demand: its value, and how many Jobs that makes.
	Active bool  `json:"active"`
	Queue  int64 `json:"queue"`
	Wanted int64 `json:"wanted"`
	// Running are the Jobs that were unfinished; Pending those of them that did not run, Held those that
	// ran and may not have taken their work.
	Running int64 `json:"running"`
	Pending int64 `json:"pending"`
	Held    int64 `json:"held"`
	// Created is how many Jobs were made by the decision, Short for how many there was work besides.
	Created int    `json:"created"`
	Short   int64  `json:"short"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Error is why Jobs could not be made.
	Error string `json:"error,omitempty"`
}

// An AccountInput is one metric of one trigger, or a trigger that fails.
type AccountInput struct {
	Index  int     `json:"index"`
	Type   string  `json:"type"`
	Name   string  `json:"name,omitempty"`
	Metric string  `json:"metric,omitempty"`
	Value  float64 `json:"value"`
	Target float64 `json:"target"`
	Active bool    `json:"active"`
	Error  string  `json:"error,omitempty"`
}

// Explain gives an account of the last decision about an object; false while there was none.
func (e *Engine) Explain(key types.NamespacedName) (Account, bool) {
	e.mu.Lock()
	o := e.objects[key]
	e.mu.Unlock()
	if o == nil {
		return Account{}, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	a := o.account
	a.Followed = o.scaled != nil
	return a, !a.At.IsZero()
}

// account is what Explain answers after a judgement; o.mu is held.
func (j *judgement) account(o *object, created int, err error) Account {
	a := Account{
		UID: j.scaled.UID, At: time.Now(), Observed: j.seen.Began,
		Strategy: string(o.strategy.Kind), Combination: j.scaled.Spec.ScalingStrategy.MultipleScalersCalculation,
		Min: o.limits.Min, Max: o.limits.Max,
		Active: j.demand.Active, Queue: j.demand.Queue, Wanted: j.demand.Jobs,
		Running: j.counts.Running, Pending: j.counts.Pending, Held: j.counts.Held,
		Created: created, Short: j.decision.Short, Reason: string(j.decision.Reason), Message: j.decision.Message(),
	}
	if a.Combination == "" {
		a.Combination = string(rules.Largest)
	}
	if err != nil {
		a.Error = err.Error()
	}
	for _, t := range j.seen.Triggers {
		a.Triggers = append(a.Triggers, inputs(t)...)
	}
	for _, f := range j.failed {
		a.Triggers = append(a.Triggers, AccountInput{Index: f.Index, Type: f.Type, Name: f.Name, Error: message(f)})
	}
	return a
}

func inputs(t rules.Answer) []AccountInput {
	of := AccountInput{Index: t.Index, Type: t.Type, Name: t.Name}
	if t.Err != nil {
		of.Error = t.Err.Error()
		return []AccountInput{of}
	}
	var out []AccountInput
	for _, target := range t.Targets {
		in := of
		in.Metric, in.Target = target.Metric, target.Average
		for _, r := range t.Readings {
			if r.Metric == target.Metric {
				in.Value, in.Active = r.Value, r.Active
			}
		}
		out = append(out, in)
	}
	return out
}
