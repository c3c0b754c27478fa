package credential

import (
	"context"
	"errors"
	"fmt"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"

	"ebb.dev/ebb/internal/platform/kube/object"
)

// roleParam is the parameter by which AWS triggers are told which role to take.
const roleParam = "awsRoleArn"

// identify checks the pod identity and adds what it says of the target's service account.
func (x *resolution) identify(ctx context.Context) error {
	id := &x.out.Identity
	switch id.Provider {
	case kedav1alpha1.PodIdentityProviderAws:
		if id.RoleArn != nil {
			if id.IsWorkloadIdentityOwner() {
				return fmt.Errorf("roleArn can't be set if KEDA isn't identity owner, current value: '%s'", *id.IdentityOwner)
			}
			x.out.Params[roleParam] = *id.RoleArn
		}
		if id.IsWorkloadIdentityOwner() {
			return x.role(ctx, true)
		}
	case kedav1alpha1.PodIdentityProviderAwsEKS:
		x.r.options.Log.Debug("pod identity aws-eks is deprecated; use aws", "authentication", x.auth.String())
		return x.role(ctx, false)
	case kedav1alpha1.PodIdentityProviderAzureWorkload:
		if id.IdentityID != nil && *id.IdentityID == "" {
			return errors.New("IdentityID of PodIdentity should not be empty")
		}
	default: // says all by itself
	}
	return nil
}

// role takes the AWS role from the target's service account.
func (x *resolution) role(ctx context.Context, required bool) error {
	arn, err := x.annotatedRole(ctx, required)
	if err != nil {
		return err
	}
	x.out.Params[roleParam] = arn
	return nil
}

func (x *resolution) annotatedRole(ctx context.Context, required bool) (string, error) {
	name := serviceAccount(x.q)
	key := object.ServiceAccounts.Key(x.q.Namespace, name)
	account, err := object.ServiceAccounts.Get(ctx, x.r.objects, x.q.Namespace, name)
	if err != nil {
		return "", absent(err, key.String()+" does not exist", "create it: the target's pods run as it")
	}
	arn, ok := account.Annotations[kedav1alpha1.PodIdentityAnnotationEKS]
	if !ok && required {
		return "", fmt.Errorf("%s: annotation '%s' not found", key, kedav1alpha1.PodIdentityAnnotationEKS)
	}
	return arn, nil
}

// serviceAccount names the one that the target's pods run as.
func serviceAccount(q Request) string {
	if q.Pod == nil || q.Pod.Spec.ServiceAccountName == "" {
		return "default"
	}
	return q.Pod.Spec.ServiceAccountName
}
