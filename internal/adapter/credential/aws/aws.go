// Package aws reads secrets from AWS Secrets Manager.
package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"

	"ebb.dev/ebb/internal/adapter/credential"
)

// session is how ebb calls itself when it takes a role; the name is upstream's.
const session = "KEDA"

// Options are what the one who runs ebb decides.
type Options struct {
	// Client sends requests; the SDK's own when nil.
	Client *http.Client
	// Endpoint is asked in the place of AWS; AWS when empty.
	Endpoint string
}

// Safe is AWS Secrets Manager.
type Safe struct{ options Options }

// New returns AWS Secrets Manager.
func New(o Options) *Safe { return &Safe{o} }

// Name implements credential.Safe.
func (*Safe) Name() string { return "awsSecretManager" }

// Asked implements credential.Safe.
func (*Safe) Asked(spec *kedav1alpha1.TriggerAuthenticationSpec) bool {
	return spec.AwsSecretManager != nil && len(spec.AwsSecretManager.Secrets) > 0
}

// Signs implements credential.Safe.
func (*Safe) Signs(spec *kedav1alpha1.TriggerAuthenticationSpec) []kedav1alpha1.SecretKeyRef {
	c := spec.AwsSecretManager.Credentials
	if c == nil || withIdentity(spec.AwsSecretManager) {
		return nil
	}
	var out []kedav1alpha1.SecretKeyRef
	for _, v := range []*kedav1alpha1.AwsSecretManagerValue{c.AccessKey, c.AccessSecretKey, c.AccessToken} {
		if v != nil {
			out = append(out, v.ValueFrom.SecretKeyRef)
		}
	}
	return out
}

// withIdentity tells whether a pod identity signs in.
func withIdentity(m *kedav1alpha1.AwsSecretManager) bool {
	return m.PodIdentity != nil && m.PodIdentity.Provider != "" && m.PodIdentity.Provider != kedav1alpha1.PodIdentityProviderNone
}

// Read implements credential.Safe.
func (s *Safe) Read(ctx context.Context, q credential.Question) (credential.Answer, error) {
	m := q.Spec.AwsSecretManager
	settings, err := s.settings(ctx, q)
	if err != nil {
		return credential.Answer{}, err
	}
	client := secretsmanager.NewFromConfig(settings)
	a := credential.Answer{Params: map[string]string{}}
	for i := range m.Secrets {
		want := &m.Secrets[i]
		value, err := read(ctx, client, want)
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

// settings are those of the machine, with what the authentication signs in with.
func (s *Safe) settings(ctx context.Context, q credential.Question) (aws.Config, error) {
	m := q.Spec.AwsSecretManager
	options := []func(*config.LoadOptions) error{config.WithRegion(m.Region)}
	if s.options.Client != nil {
		options = append(options, config.WithHTTPClient(s.options.Client))
	}
	if s.options.Endpoint != "" {
		options = append(options, config.WithBaseEndpoint(s.options.Endpoint))
	}
	settings, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return aws.Config{}, fmt.Errorf("reading the settings of AWS: %w", err)
	}
	if !withIdentity(m) {
		keys, err := static(ctx, q)
		if err != nil {
			return aws.Config{}, err
		}
		settings.Credentials = aws.NewCredentialsCache(keys)
		return settings, nil
	}
	if m.PodIdentity.Provider != kedav1alpha1.PodIdentityProviderAws {
		return aws.Config{}, fmt.Errorf("pod identity provider %s not supported", m.PodIdentity.Provider)
	}
	role, err := roleOf(ctx, q)
	if err != nil || role == "" {
		return settings, err // without a role, ebb's own identity
	}
	settings.Credentials = aws.NewCredentialsCache(taking(settings, role, m.PodIdentity.ExternalID))
	return settings, nil
}

// errKeys says that there is nothing to sign in with; the text is upstream's.
var errKeys = errors.New("AccessKeyID and AccessSecretKey are expected when not using a pod identity provider")

// static are the keys that an authentication names.
func static(ctx context.Context, q credential.Question) (aws.CredentialsProvider, error) {
	c := q.Spec.AwsSecretManager.Credentials
	if c == nil || c.AccessKey == nil || c.AccessSecretKey == nil {
		return nil, errKeys
	}
	var values [3]string
	for i, v := range []*kedav1alpha1.AwsSecretManagerValue{c.AccessKey, c.AccessSecretKey, c.AccessToken} {
		if v == nil {
			continue
		}
		var err error
		if values[i], err = q.Secret(ctx, v.ValueFrom.SecretKeyRef); err != nil {
			return nil, err
		}
	}
	if values[0] == "" || values[1] == "" {
		return nil, errKeys
	}
	return credentials.NewStaticCredentialsProvider(values[0], values[1], values[2]), nil
}

// roleOf is the role to take.
func roleOf(ctx context.Context, q credential.Question) (string, error) {
	id := q.Spec.AwsSecretManager.PodIdentity
	if id.IsWorkloadIdentityOwner() {
		role, err := q.Role(ctx)
		if err != nil {
			return "", fmt.Errorf("error resolving role arn for aws: %w", err)
		}
		return role, nil
	}
	return aws.ToString(id.RoleArn), nil
}

// taking takes a role by the token that EKS gives ebb, and if that is refused or there is none, by
// ebb's own identity.
func taking(settings aws.Config, role string, externalID *string) aws.CredentialsProvider {
	client := sts.NewFromConfig(settings)
	own := stscreds.NewAssumeRoleProvider(client, role, func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName, o.ExternalID = session, externalID
	})
	file := os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE")
	if file == "" {
		return own
	}
	federated := stscreds.NewWebIdentityRoleProvider(client, role, stscreds.IdentityTokenFile(file), func(o *stscreds.WebIdentityRoleOptions) {
		o.RoleSessionName = session
	})
	return aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		keys, refused := federated.Retrieve(ctx)
		if refused == nil {
			return keys, nil
		}
		keys, err := own.Retrieve(ctx)
		if err != nil {
			err = errors.Join(err, refused)
		}
		return keys, err
	})
}

// read reads one secret, or one key of one that is a JSON object.
func read(ctx context.Context, client *secretsmanager.Client, want *kedav1alpha1.AwsSecretManagerSecret) (string, error) {
	in := &secretsmanager.GetSecretValueInput{SecretId: &want.Name}
	if want.VersionID != "" {
		in.VersionId = &want.VersionID
	}
	if want.VersionStage != "" {
		in.VersionStage = &want.VersionStage
	}
	out, err := client.GetSecretValue(ctx, in)
	var none *types.ResourceNotFoundException
	switch {
	case errors.As(err, &none):
		return "", fmt.Errorf("secret %s: %w", want.Name, credential.ErrMissing)
	case err != nil:
		return "", fmt.Errorf("secret %s: %w", want.Name, err)
	case out.SecretString == nil:
		return "", fmt.Errorf("secret %s is binary, not text: %w", want.Name, credential.ErrMissing)
	case want.SecretKey == "":
		return *out.SecretString, nil
	}
	var fields map[string]any
	if json.Unmarshal([]byte(*out.SecretString), &fields) != nil { // the cause may quote it
		return "", fmt.Errorf("secret %s is no JSON object: %w", want.Name, credential.ErrMissing)
	}
	value, ok := fields[want.SecretKey].(string)
	if !ok {
		return "", fmt.Errorf("secret %s, key %q, as a text: %w", want.Name, want.SecretKey, credential.ErrMissing)
	}
	return value, nil
}
