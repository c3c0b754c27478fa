// Package credentialtest is the suite every safe passes, against a server that speaks the safe's API.
package credentialtest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"

	"ebb.dev/ebb/internal/adapter/credential"
)

// The values the server has. No error may show them.
const (
	// Password is at the key or secret that the parameter "password" is taken from.
	Password = "pass-word-1"
	// Sign is what the safe is signed in to with: the value of every Secret, and every token.
	Sign = "sign-in-1"
)

// A Subject is a safe and the server behind it.
type Subject struct {
	Safe credential.Safe
	// Spec takes the parameter "password" from the server.
	Spec kedav1alpha1.TriggerAuthenticationSpec
	// Missing takes it from where nothing is.
	Missing []kedav1alpha1.TriggerAuthenticationSpec
	// Wrong are specs that the safe must refuse, by a part of the error.
	Wrong map[string]kedav1alpha1.TriggerAuthenticationSpec
	// Signs is how many Secrets Spec signs in with.
	Signs int
	// Refuse has the server answer that who asks may not; Break has it not answer at all.
	Refuse, Break func()
}

// Question asks for all of a spec; every Secret and token is Sign.
func Question(spec *kedav1alpha1.TriggerAuthenticationSpec) credential.Question {
	return credential.Question{
		Spec:   spec,
		Secret: func(context.Context, kedav1alpha1.SecretKeyRef) (string, error) { return Sign, nil },
		Token:  func(context.Context, string) (string, error) { return Sign, nil },
		Role:   func(context.Context) (string, error) { return "arn:aws:iam::1:role/worker", nil },
	}
}

// Run tests a safe.
func Run(t *testing.T, s Subject) {
	t.Helper()
	if s.Safe.Name() == "" || !s.Safe.Asked(&s.Spec) || s.Safe.Asked(&kedav1alpha1.TriggerAuthenticationSpec{}) {
		t.Errorf("%q is asked by whom it does not concern, or is not", s.Safe.Name())
	}
	if got := s.Safe.Signs(&s.Spec); len(got) != s.Signs {
		t.Errorf("signs in with %v, want %d Secrets", got, s.Signs)
	}
	t.Run("reads what there is", func(t *testing.T) {
		for range 2 {
			got, err := read(t, s.Safe, &s.Spec)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]string{"password": Password}, got.Params); diff != "" || len(got.Missing) > 0 {
				t.Error(diff, got.Missing)
			}
		}
	})
	t.Run("tells what there is not", func(t *testing.T) {
		for i := range s.Missing {
			got, err := read(t, s.Safe, &s.Missing[i])
			if err != nil || got.Params["password"] != "" || len(got.Missing) != 1 || !errors.Is(got.Missing[0], credential.ErrMissing) {
				t.Errorf("%d: %v, %v, want that it is missing", i, got, err)
				continue
			}
			clean(t, got.Missing[0])
		}
	})
	t.Run("refuses what cannot be", func(t *testing.T) {
		for want, spec := range s.Wrong {
			if _, err := read(t, s.Safe, &spec); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q", err, want)
			}
		}
	})
	if s.Signs > 0 {
		t.Run("needs its Secrets", func(t *testing.T) {
			lost := errors.New("the Secret is lost")
			q := Question(&s.Spec)
			q.Secret = func(context.Context, kedav1alpha1.SecretKeyRef) (string, error) { return "", lost }
			if _, err := s.Safe.Read(t.Context(), q); !errors.Is(err, lost) {
				t.Errorf("error %v, want that of the Secret", err)
			}
		})
	}
	t.Run("fails where it is refused", func(t *testing.T) {
		s.Refuse()
		_, err := read(t, s.Safe, &s.Spec)
		clean(t, err)
	})
	t.Run("fails where nobody answers", func(t *testing.T) {
		s.Break()
		_, err := read(t, s.Safe, &s.Spec)
		clean(t, err)
	})
}

func read(t *testing.T, s credential.Safe, spec *kedav1alpha1.TriggerAuthenticationSpec) (credential.Answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return s.Read(ctx, Question(spec))
}

// clean checks that there is an error and that it shows no values.
func clean(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Error("no error")
		return
	}
	for _, value := range []string{Password, Sign} {
		if strings.Contains(err.Error(), value) {
			t.Errorf("the error shows a value: %v", err)
		}
	}
}
