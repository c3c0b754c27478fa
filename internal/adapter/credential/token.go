package credential

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"sigs.k8s.io/yaml"

	"ebb.dev/ebb/internal/platform/kube/object"
)

// audiencesSetting is the name under which KEDA's users know the approved audiences.
const audiencesSetting = "KEDA_SERVICE_ACCOUNT_TOKEN_AUDIENCES"

// A TokenPolicy says which service account tokens may leave the cluster.
type TokenPolicy struct {
	// Legacy has tokens be made and passed on whatever their audience: who gets one may use
	// Kubernetes' API.
	Legacy bool
	// Audiences are approved.
	Audiences []Audience
	// Expiry is how long a token is valid, between one and six hours; one when zero.
	Expiry time.Duration
}

// An Audience is one that tokens may be meant for. With a service account, its tokens are made for
// this audience; without, only tokens from files are checked by it.
type Audience struct {
	Audience           string `json:"audience"`
	Namespace          string `json:"namespace,omitempty"`
	ServiceAccountName string `json:"serviceAccountName,omitempty"`
}

// ParseAudiences reads audiences as KEDA_SERVICE_ACCOUNT_TOKEN_AUDIENCES has them: a YAML or JSON
// list.
func ParseAudiences(text string) ([]Audience, error) {
	var out []Audience
	if err := yaml.UnmarshalStrict([]byte(text), &out); err != nil {
		return nil, fmt.Errorf("reading %s: %w", audiencesSetting, err)
	}
	return out, nil
}

// Approved are all audiences that a token from a file may have.
func (p *TokenPolicy) Approved() []string {
	out := make([]string, 0, len(p.Audiences))
	for _, a := range p.Audiences {
		out = append(out, a.Audience)
	}
	return out
}

func (p *TokenPolicy) validate() error {
	if p.Expiry != 0 && (p.Expiry < time.Hour || p.Expiry > 6*time.Hour) {
		return fmt.Errorf("service account tokens cannot be valid for %s: it must be between 1h and 6h", p.Expiry)
	}
	if p.Legacy && len(p.Audiences) > 0 {
		return errors.New("legacy token mode cannot be combined with configured audiences; use enforce-audience or remove the audience settings")
	}
	seen := map[types.NamespacedName]bool{}
	for _, a := range p.Audiences {
		if err := a.validate(); err != nil {
			return err
		}
		key := types.NamespacedName{Namespace: a.Namespace, Name: a.ServiceAccountName}
		if seen[key] && a.Namespace != "" {
			return fmt.Errorf("duplicate service account token audience mapping for %s", key)
		}
		seen[key] = true
	}
	return nil
}

func (a Audience) validate() error {
	if a.Audience == "" || a.Audience != strings.TrimSpace(a.Audience) {
		return errors.New("service account token audiences must be nonempty and contain no surrounding whitespace")
	}
	if (a.Namespace == "") != (a.ServiceAccountName == "") {
		return fmt.Errorf("%s entries must set both namespace and serviceAccountName for minting, or omit both for audience approval only", audiencesSetting)
	}
	if a.Namespace != "" && len(validation.IsDNS1123Label(a.Namespace))+len(validation.IsDNS1123Subdomain(a.ServiceAccountName)) > 0 {
		return fmt.Errorf("%s entries require valid, exact Kubernetes namespace and service account names; wildcards are not supported", audiencesSetting)
	}
	return nil
}

// tokens are those that were made for service accounts; each is used for half its life.
type tokens struct {
	core   corev1client.ServiceAccountsGetter
	policy TokenPolicy
	log    *slog.Logger

	mu   sync.Mutex // guards have
	have map[types.NamespacedName]token
}

type token struct {
	text  string
	until time.Time // when a new one is made
}

func newTokens(core corev1client.ServiceAccountsGetter, policy TokenPolicy, log *slog.Logger) *tokens {
	policy.Expiry = cmp.Or(policy.Expiry, time.Hour)
	return &tokens{core: core, policy: policy, log: log, have: map[types.NamespacedName]token{}}
}

// get returns a token of a service account, and when to ask again.
func (t *tokens) get(ctx context.Context, account types.NamespacedName) (string, time.Time, error) {
	now := time.Now()
	t.mu.Lock()
	have, ok := t.have[account]
	t.mu.Unlock()
	if ok && now.Before(have.until) {
		return have.text, have.until, nil
	}
	made, err := t.make(ctx, account)
	if err != nil {
		return "", time.Time{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, old := range t.have {
		if !now.Before(old.until) {
			delete(t.have, key)
		}
	}
	t.have[account] = made
	return made.text, made.until, nil
}

func (t *tokens) make(ctx context.Context, account types.NamespacedName) (token, error) {
	var audiences []string
	if !t.policy.Legacy {
		i := slices.IndexFunc(t.policy.Audiences, func(a Audience) bool {
			return a.ServiceAccountName != "" && a.Namespace == account.Namespace && a.ServiceAccountName == account.Name
		})
		if i < 0 {
			return token{}, fmt.Errorf("no configured token audience for service account %s in %s", account, audiencesSetting)
		}
		audiences = []string{t.policy.Audiences[i].Audience}
	}
	seconds := int64(t.policy.Expiry / time.Second)
	made, err := t.core.ServiceAccounts(account.Namespace).CreateToken(ctx, account.Name,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds, Audiences: audiences}}, metav1.CreateOptions{})
	if err != nil {
		return token{}, fmt.Errorf("having a token made for service account %s: %w", account, err)
	}
	text := made.Status.Token
	if text == "" {
		return token{}, fmt.Errorf("token request for %s returned an empty token", account)
	}
	if t.policy.Legacy {
		t.log.Warn("a token without an audience is passed on: who gets it may use Kubernetes' API; configure approved audiences", "serviceAccount", account.String())
	} else if err := CheckToken(text, audiences, time.Now()); err != nil {
		return token{}, fmt.Errorf("the token made for service account %s: %w", account, err)
	}
	life := t.policy.Expiry
	if at := made.Status.ExpirationTimestamp; !at.IsZero() {
		life = min(life, time.Until(at.Time))
	}
	return token{text, time.Now().Add(life / 2)}, nil
}

// boundTokens has tokens made for service accounts.
func (x *resolution) boundTokens(ctx context.Context) error {
	for _, b := range x.auth.spec.BoundServiceAccountToken {
		if b.ServiceAccountName == "" {
			return errors.New("serviceAccountName is required for boundServiceAccountToken")
		}
		key := object.ServiceAccounts.Key(x.auth.namespace, b.ServiceAccountName)
		if _, err := object.ServiceAccounts.Get(ctx, x.r.objects, key.Namespace, key.Name); err != nil {
			return absent(err, key.String()+" does not exist", "create it or correct serviceAccountName")
		}
		text, until, err := x.r.tokens.get(ctx, types.NamespacedName{Namespace: key.Namespace, Name: key.Name})
		if err != nil {
			return err
		}
		x.out.Params[b.Parameter] = text
		x.expire(until)
	}
	return nil
}

// claims are what matters of a token.
type claims struct {
	Subject  string   `json:"sub"`
	Audience audience `json:"aud"`
	Expires  *float64 `json:"exp"`
}

// audience is a text or several.
type audience []string

// UnmarshalJSON implements json.Unmarshaler.
func (a *audience) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(a))
}

// CheckToken checks that a token is a service account's and, if any audiences are approved, valid for
// nobody but those. Its signature is checked by whoever gets it.
func CheckToken(text string, approved []string, now time.Time) error {
	parts := strings.Split(strings.TrimSpace(text), ".")
	if len(parts) != 3 {
		return errors.New("it is not a JSON web token")
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	var c claims
	if err != nil || json.Unmarshal(body, &c) != nil {
		return errors.New("it is not a JSON web token")
	}
	if !strings.HasPrefix(c.Subject, "system:serviceaccount:") {
		return errors.New("error validating token: subject isn't a service account")
	}
	if approved == nil {
		return nil
	}
	if len(c.Audience) == 0 {
		return errors.New("service account token has no audience")
	}
	for _, a := range c.Audience {
		if a == "" || !slices.Contains(approved, a) {
			return errors.New("service account token contains an audience not approved by the allowed audience list")
		}
	}
	if c.Expires == nil || !now.Before(time.Unix(int64(*c.Expires), 0)) {
		return errors.New("invalid service account token lifetime: it is over, or has no end")
	}
	return nil
}
