package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"ebb.dev/ebb/internal/platform/kube/object"
)

const clusterKind = "ClusterTriggerAuthentication"

// maxFile is how large a file of parameters may be.
const maxFile = 1 << 20

// rereadFile is how often a file of parameters is read again: nothing tells of its changes.
const rereadFile = 30 * time.Second

// An authentication is a TriggerAuthentication or ClusterTriggerAuthentication.
type authentication struct {
	spec *kedav1alpha1.TriggerAuthenticationSpec
	key  object.Key
	// namespace is where the objects it names are.
	namespace string
	version   string // of the object's spec
}

// String names it as people do.
func (a authentication) String() string { return a.key.String() }

// A missingError says that an object or a key of it is not there.
type missingError struct{ what, advice string }

// Error implements error.
func (e *missingError) Error() string { return e.what + "; " + e.advice }

// keyOf is the key of the authentication that a request names.
func (r *Resolver) keyOf(q Request) (key object.Key, namespace string, err error) {
	switch q.Ref.Kind {
	case "", "TriggerAuthentication":
		return object.TriggerAuthentications.Key(q.Namespace, q.Ref.Name), q.Namespace, nil
	case clusterKind:
		return object.ClusterTriggerAuthentications.Key("", q.Ref.Name), r.options.ClusterObjectNamespace, nil
	default:
		return object.Key{}, "", fmt.Errorf("unknown trigger auth kind %s: use TriggerAuthentication or ClusterTriggerAuthentication", q.Ref.Kind)
	}
}

// authentication reads the one that a request names.
func (r *Resolver) authentication(ctx context.Context, q Request) (authentication, error) {
	key, namespace, err := r.keyOf(q)
	if err != nil {
		return authentication{}, err
	}
	a := authentication{key: key, namespace: namespace}
	if q.Ref.Kind == clusterKind {
		o, err := object.ClusterTriggerAuthentications.Get(ctx, r.objects, "", q.Ref.Name)
		if err != nil {
			return a, absent(err, key.String()+" does not exist", "create it or correct the trigger's authenticationRef")
		}
		a.spec, a.version = &o.Spec, fmt.Sprint(o.UID, "/", o.Generation)
		return a, nil
	}
	o, err := object.TriggerAuthentications.Get(ctx, r.objects, q.Namespace, q.Ref.Name)
	if err != nil {
		return a, absent(err, key.String()+" does not exist", "create it or correct the trigger's authenticationRef")
	}
	a.spec, a.version = &o.Spec, fmt.Sprint(o.UID, "/", o.Generation)
	return a, nil
}

// absent makes NotFound a missingError.
func absent(err error, what, advice string) error {
	if apierrors.IsNotFound(err) {
		return &missingError{what, advice}
	}
	return err
}

// optional takes a value that may be missing: it is noted and left empty.
func (x *resolution) optional(value string, err error) (string, error) {
	if _, missing := errors.AsType[*missingError](err); missing {
		x.missing(err)
		return "", nil
	}
	return value, err
}

// secret reads a key of a Secret that the authentication names.
func (x *resolution) secret(ctx context.Context, ref kedav1alpha1.SecretKeyRef) (string, error) {
	namespace := x.r.secretsIn(x.auth.namespace)
	if ref.Name == "" || ref.Key == "" {
		return "", &missingError{"a reference to a Secret in " + x.auth.String() + " lacks name or key", "give both"}
	}
	key := object.Secrets.Key(namespace, ref.Name)
	o, err := object.Secrets.Get(ctx, x.r.objects, namespace, ref.Name)
	if err != nil {
		return "", absent(err, key.String()+" does not exist", "create it or correct the name")
	}
	value, ok := o.Data[ref.Key]
	if !ok {
		return "", &missingError{fmt.Sprintf("%s has no key %q", key, ref.Key), "add it or correct the key"}
	}
	return string(value), nil
}

// secretsIn is where Secrets of objects in a namespace are read.
func (r *Resolver) secretsIn(namespace string) string {
	if r.options.RestrictSecretAccess {
		return r.options.ClusterObjectNamespace
	}
	return namespace
}

// containers takes parameters from the environment of the target's containers.
func (x *resolution) containers(ctx context.Context) error {
	for _, e := range x.auth.spec.Env {
		x.out.Params[e.Parameter] = ""
		if x.q.Pod == nil {
			x.missing(fmt.Errorf("parameter %q of %s: the target has no containers to take %s from", e.Parameter, x.auth, e.Name))
			continue
		}
		env, err := x.environment(ctx, e.ContainerName)
		if err != nil {
			x.missing(fmt.Errorf("parameter %q of %s: %w", e.Parameter, x.auth, err))
			continue
		}
		x.out.Params[e.Parameter] = env[e.Name]
	}
	return nil
}

func (x *resolution) configMaps(ctx context.Context) error {
	for _, e := range x.auth.spec.ConfigMapTargetRef {
		value, err := x.configMap(ctx, e.Name, e.Key)
		if x.out.Params[e.Parameter], err = x.optional(value, err); err != nil {
			return fmt.Errorf("parameter %q: %w", e.Parameter, err)
		}
	}
	return nil
}

func (x *resolution) configMap(ctx context.Context, name, of string) (string, error) {
	key := object.ConfigMaps.Key(x.auth.namespace, name)
	o, err := object.ConfigMaps.Get(ctx, x.r.objects, x.auth.namespace, name)
	if err != nil {
		return "", absent(err, key.String()+" does not exist", "create it or correct the name")
	}
	value, ok := o.Data[of]
	if !ok {
		return "", &missingError{fmt.Sprintf("%s has no key %q", key, of), "add it or correct the key"}
	}
	return value, nil
}

func (x *resolution) secrets(ctx context.Context) error {
	for _, e := range x.auth.spec.SecretTargetRef {
		value, err := x.secret(ctx, kedav1alpha1.SecretKeyRef{Name: e.Name, Key: e.Key})
		if x.out.Params[e.Parameter], err = x.optional(value, err); err != nil {
			return fmt.Errorf("parameter %q: %w", e.Parameter, err)
		}
	}
	return nil
}

// oauth2 hands on how to get tokens; the trigger gets them.
func (x *resolution) oauth2(ctx context.Context) error {
	o := x.auth.spec.OAuth2
	if o == nil {
		return nil
	}
	value, err := x.secret(ctx, o.ClientSecret.ValueFrom.SecretKeyRef)
	if value, err = x.optional(value, err); err != nil {
		return fmt.Errorf("oauth2's client secret: %w", err)
	}
	p := x.out.Params
	p["oauthTokenURI"], p["clientID"], p["clientSecret"] = o.TokenURL, o.ClientID, value
	if len(o.Scopes) > 0 {
		p["scopes"] = strings.Join(o.Scopes, ",")
	}
	if len(o.TokenURLParams) > 0 {
		more := url.Values{}
		for name, value := range o.TokenURLParams {
			more.Set(name, value)
		}
		p["endpointParams"] = more.Encode()
	}
	return nil
}

// servicePrincipal hands on what Microsoft Entra knows the trigger by.
func (x *resolution) servicePrincipal(ctx context.Context) error {
	s := x.auth.spec.AzureServicePrincipal
	if s == nil {
		return nil
	}
	p := x.out.Params
	p["azureServicePrincipal"], p["azureServicePrincipalTenantId"], p["azureServicePrincipalClientId"] = "true", s.TenantID, s.ClientID
	if s.Cloud != "" {
		p["azureServicePrincipalCloud"] = s.Cloud
	}
	if s.ActiveDirectoryEndpoint != "" {
		p["azureServicePrincipalActiveDirectoryEndpoint"] = s.ActiveDirectoryEndpoint
	}
	for name, c := range map[string]*kedav1alpha1.AzureServicePrincipalCredential{
		"azureServicePrincipalClientSecret":              s.ClientSecret,
		"azureServicePrincipalClientCertificate":         s.ClientCertificate,
		"azureServicePrincipalClientCertificatePassword": s.ClientCertificatePassword,
	} {
		if c == nil {
			continue
		}
		value, err := x.secret(ctx, c.ValueFrom.SecretKeyRef)
		if p[name], err = x.optional(value, err); err != nil {
			return fmt.Errorf("parameter %q: %w", name, err)
		}
	}
	return nil
}

// file reads all parameters from a file that whoever runs ebb put there.
func (x *resolution) file() error {
	path := x.auth.spec.FilePath
	if x.q.Ref.Kind != clusterKind {
		return fmt.Errorf("filePath is only supported for ClusterTriggerAuthentication, got kind: %s", x.q.Ref.Kind)
	}
	if x.r.options.Files == "" {
		return fmt.Errorf("%s: filePath needs a folder of files, and none is configured: start with --filepath-auth-root-path", x.auth)
	}
	root, err := os.OpenRoot(x.r.options.Files)
	if err != nil {
		return fmt.Errorf("%s: opening the folder of files: %w", x.auth, err)
	}
	defer root.Close()
	f, err := root.Open(path) // stays within the folder, whatever the path says
	if err != nil {
		return fmt.Errorf("%s: filePath must be relative, without '..', and lead to a file: %w", x.auth, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return fmt.Errorf("%s: reading the file %s: %w", x.auth, path, err)
	}
	if len(text) > maxFile {
		return fmt.Errorf("%s: the file %s is larger than %d bytes", x.auth, path, maxFile)
	}
	params := map[string]string{}
	if json.Unmarshal(text, &params) != nil { // the cause may quote the file
		return fmt.Errorf("%s: the file %s is not a JSON object of texts", x.auth, path)
	}
	x.out.Params = params
	if x.out.Params == nil { // the file says null
		x.out.Params = map[string]string{}
	}
	x.expire(time.Now().Add(rereadFile))
	return nil
}
