// Command ferretdb serves MongoDB's protocol from a folder, for tests: ferretdb ADDRESS FOLDER.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/FerretDB/FerretDB/ferretdb"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: ferretdb ADDRESS FOLDER")
	}
	server, err := ferretdb.New(&ferretdb.Config{
		Listener: ferretdb.ListenerConfig{TCP: args[0]}, Handler: "sqlite", SQLiteURL: "file:" + args[1] + "/",
	})
	if err != nil {
		return fmt.Errorf("preparing the server: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return server.Run(ctx)
}
