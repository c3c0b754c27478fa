// Package all is the list of Serving's and KEDA's controllers.
package all

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/component/controller/annotation"
	"ebb.dev/ebb/internal/component/controller/certificate"
	"ebb.dev/ebb/internal/component/controller/collect"
	"ebb.dev/ebb/internal/component/controller/configuration"
	"ebb.dev/ebb/internal/component/controller/domainmapping"
	"ebb.dev/ebb/internal/component/controller/facade"
	"ebb.dev/ebb/internal/component/controller/httpscaledobject"
	"ebb.dev/ebb/internal/component/controller/interceptorroute"
	"ebb.dev/ebb/internal/component/controller/namespace"
	"ebb.dev/ebb/internal/component/controller/revision"
	"ebb.dev/ebb/internal/component/controller/route"
	"ebb.dev/ebb/internal/component/controller/scaledjob"
	"ebb.dev/ebb/internal/component/controller/scaledobject"
	"ebb.dev/ebb/internal/component/controller/service"
	"ebb.dev/ebb/internal/component/controller/triggerauthentication"
)

// Setup adds every controller to the manager, which starts them.
func Setup(ctx context.Context, c controller.Config) error {
	indexes := []func(context.Context, client.FieldIndexer) error{route.Index, domainmapping.Index}
	setups := []func(context.Context, controller.Config) error{
		service.Setup, configuration.Setup, revision.Setup, route.Setup, domainmapping.Setup, collect.Setup,
		certificate.Setup, namespace.Setup, facade.Setup,
	}
	if c.Engine != nil { // KEDA's
		indexes = append(indexes, triggerauthentication.Index)
		setups = append(setups, scaledobject.Setup, scaledjob.Setup, triggerauthentication.Setup, interceptorroute.Setup, httpscaledobject.Setup, annotation.Setup)
	}
	setups = append(setups, c.More...)
	for _, index := range indexes {
		if err := index(ctx, c.Manager.GetFieldIndexer()); err != nil {
			return err
		}
	}
	for _, setup := range setups {
		if err := setup(ctx, c); err != nil {
			return err
		}
	}
	return nil
}
