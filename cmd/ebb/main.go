// Command ebb is serverless for Kubernetes in one binary.
package main

import (
	"os"

	"ebb.dev/ebb/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
