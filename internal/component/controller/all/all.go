// Package all is the list of Serving's controllers.
package all

import (
	"context"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/component/controller/collect"
	"ebb.dev/ebb/internal/component/controller/configuration"
	"ebb.dev/ebb/internal/component/controller/revision"
	"ebb.dev/ebb/internal/component/controller/route"
	"ebb.dev/ebb/internal/component/controller/service"
)

// Setup adds every controller to the manager, which starts them.
func Setup(ctx context.Context, c controller.Config) error {
	if err := route.Index(ctx, c.Manager.GetFieldIndexer()); err != nil {
		return err
	}
	for _, setup := range []func(context.Context, controller.Config) error{
		service.Setup, configuration.Setup, revision.Setup, route.Setup, collect.Setup,
	} {
		if err := setup(ctx, c); err != nil {
			return err
		}
	}
	return nil
}
