// Package gcp reads secrets from Google Cloud's Secret Manager by its REST API.
package gcp

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"cloud.google.com/go/compute/metadata"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"ebb.dev/ebb/internal/adapter/credential"
)

const (
	api   = "https://secretmanager.googleapis.com"
	scope = "https://www.googleapis.com/auth/cloud-platform"
	// maxAnswer is how long an answer may be; a secret has up to 64 KiB.
	maxAnswer = 1 << 20
)

// Options are what the one who runs ebb decides.
type Options struct {
	// Client sends requests; Go's own when nil.
	Client *http.Client
	// Endpoint is asked in the place of Google's; that when empty.
	Endpoint string
}

// Safe is Google Cloud's Secret Manager.
type Safe struct{ options Options }

// New returns Google Cloud's Secret Manager.
func New(o Options) *Safe {
	if o.Client == nil {
		o.Client = http.DefaultClient
	}
	o.Endpoint = strings.TrimSuffix(cmp.Or(o.Endpoint, api), "/")
	return &Safe{o}
}

// Name implements credential.Safe.
func (*Safe) Name() string { return "gcpSecretManager" }

// Asked implements credential.Safe.
func (*Safe) Asked(spec *kedav1alpha1.TriggerAuthenticationSpec) bool {
	return spec.GCPSecretManager != nil && len(spec.GCPSecretManager.Secrets) > 0
}

// Signs implements credential.Safe.
func (*Safe) Signs(spec *kedav1alpha1.TriggerAuthenticationSpec) []kedav1alpha1.SecretKeyRef {
	m := spec.GCPSecretManager
	if provider(m) != kedav1alpha1.PodIdentityProviderNone || m.Credentials == nil {
		return nil
	}
	return []kedav1alpha1.SecretKeyRef{m.Credentials.ClientSecret.ValueFrom.SecretKeyRef}
}

// provider is that of the pod identity that signs in.
func provider(m *kedav1alpha1.GCPSecretManager) kedav1alpha1.PodIdentityProvider {
	if m.PodIdentity == nil || m.PodIdentity.Provider == "" {
		return kedav1alpha1.PodIdentityProviderNone
	}
	return m.PodIdentity.Provider
}

// Read implements credential.Safe.
func (s *Safe) Read(ctx context.Context, q credential.Question) (credential.Answer, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, s.options.Client) // by which tokens are got
	tokens, project, err := s.signIn(ctx, q)
	if err != nil {
		return credential.Answer{}, err
	}
	token, err := tokens.Token()
	if err != nil {
		return credential.Answer{}, fmt.Errorf("signing in to Google Cloud: %w", brief(err))
	}
	a := credential.Answer{Params: map[string]string{}}
	for _, want := range q.Spec.GCPSecretManager.Secrets {
		value, err := s.read(ctx, token, "projects/"+project+"/secrets/"+url.PathEscape(want.ID)+"/versions/"+url.PathEscape(cmp.Or(want.Version, "latest")))
		switch {
		case errors.Is(err, credential.ErrMissing):
			a.Missing = append(a.Missing, err)
		case err != nil:
			return credential.Answer{}, err
		}
		a.Params[want.Parameter] = value
	}
	return a, nil
}

// brief is an error of getting a token without the answer, which may quote what was sent.
func brief(err error) error {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.Response != nil {
		return fmt.Errorf("answered %s %s", refused.Response.Status, refused.ErrorCode)
	}
	return err
}

// signIn is how the authentication signs in, and the project whose secrets it reads.
func (s *Safe) signIn(ctx context.Context, q credential.Question) (oauth2.TokenSource, string, error) {
	m := q.Spec.GCPSecretManager
	switch provider(m) {
	case kedav1alpha1.PodIdentityProviderNone:
		return s.account(ctx, q)
	case kedav1alpha1.PodIdentityProviderGCP:
		return s.workload(ctx)
	default:
		return nil, "", fmt.Errorf("gcp secret manager does not support pod identity provider - %v", m.PodIdentity.Provider)
	}
}

// account signs in as a service account, by its key.
func (s *Safe) account(ctx context.Context, q credential.Question) (oauth2.TokenSource, string, error) {
	const missing = "clientSecret is expected when not using a pod identity provider"
	c := q.Spec.GCPSecretManager.Credentials
	if c == nil {
		return nil, "", errors.New(missing)
	}
	key, err := q.Secret(ctx, c.ClientSecret.ValueFrom.SecretKeyRef)
	if err != nil {
		return nil, "", err
	}
	if key == "" {
		return nil, "", errors.New(missing)
	}
	var fields struct {
		Type    string `json:"type"`
		Project string `json:"project_id"`
	}
	if json.Unmarshal([]byte(key), &fields) != nil || fields.Type != "service_account" {
		return nil, "", errors.New("the client secret is not a service account's key in JSON")
	}
	if fields.Project == "" {
		return nil, "", errors.New("project_id field is missing in the json credentials")
	}
	config, err := google.JWTConfigFromJSON([]byte(key), scope)
	if err != nil {
		return nil, "", errors.New("the client secret is not a service account's key in JSON")
	}
	return config.TokenSource(ctx), fields.Project, nil
}

// workload signs in as ebb's own pod.
func (s *Safe) workload(ctx context.Context) (oauth2.TokenSource, string, error) {
	found, err := google.FindDefaultCredentials(ctx, scope)
	if err != nil {
		return nil, "", fmt.Errorf("finding ebb's identity at Google Cloud: %w", err)
	}
	project := cmp.Or(os.Getenv("CLOUDSDK_CORE_PROJECT"), found.ProjectID)
	if project == "" {
		if project, err = metadata.NewClient(s.options.Client).ProjectIDWithContext(ctx); err != nil {
			return nil, "", fmt.Errorf("finding the project at Google Cloud: %w", err)
		}
	}
	return found.TokenSource, project, nil
}

// castagnoli is the polynomial of the checksums that come with secrets.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// read reads a version of a secret.
func (s *Safe) read(ctx context.Context, token *oauth2.Token, name string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.options.Endpoint+"/v1/"+name+":access", nil)
	if err != nil {
		return "", fmt.Errorf("asking for %s: %w", name, err)
	}
	token.SetAuthHeader(request)
	response, err := s.options.Client.Do(request)
	if err != nil {
		return "", fmt.Errorf("asking for %s: %w", name, err)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return "", fmt.Errorf("%s: %w", name, credential.ErrMissing)
	default:
		return "", fmt.Errorf("asking for %s: answered %s", name, response.Status)
	}
	var answer struct {
		Payload struct {
			Data     *string `json:"data"`
			Checksum string  `json:"dataCrc32c"`
		} `json:"payload"`
	}
	if json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&answer) != nil { // the cause may quote it
		return "", fmt.Errorf("asking for %s: the answer is not as documented", name)
	}
	if answer.Payload.Data == nil {
		return "", fmt.Errorf("%s is empty: %w", name, credential.ErrMissing)
	}
	value, err := base64.StdEncoding.DecodeString(*answer.Payload.Data)
	if err != nil {
		return "", fmt.Errorf("asking for %s: the answer is not as documented", name)
	}
	if sum := answer.Payload.Checksum; sum != "" && sum != strconv.FormatUint(uint64(crc32.Checksum(value, castagnoli)), 10) {
		return "", fmt.Errorf("asking for %s: secret payload data corruption detected", name)
	}
	return string(value), nil
}
