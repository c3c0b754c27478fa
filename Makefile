# make up     build, install and start ebb        make test   everything a change must pass
# make help   the other verbs

PREFIX  ?= /usr/local
DESTDIR ?=
UP      ?=

# Programs are built without C, so that one build serves every distribution and the build cache is
# shared between building, linting and testing; only the race detector needs a C compiler.
export CGO_ENABLED ?= 0
export GOFLAGS     ?= -buildvcs=false

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null)
DATE    := $(shell TZ=UTC0 git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null)

# What KEDA's own tests are given in place of images, and the servers that triggers are tested against,
# as Debian calls them.
STANDS  = busybox-static curl nginx-light
SERVERS = beanstalkd etcd-server graphite-carbon graphite-web mariadb-server nats-server postgresql prometheus rabbitmq-server redis-sentinel redis-server

# What the linked-in Kubernetes says about itself: its release, and that it came from an archive.
KUBERNETES = $(shell go list -m -f '{{.Version}}' k8s.io/kubernetes)
STAMP      = $(foreach package,k8s.io/component-base/version k8s.io/client-go/pkg/version, \
	-X $(package).gitVersion=$(KUBERNETES) -X $(package).gitMajor=1 \
	-X $(package).gitMinor=$(word 2,$(subst ., ,$(KUBERNETES))) -X $(package).gitCommit= \
	-X $(package).gitTreeState=archive -X $(package).buildDate=$(DATE))
LDFLAGS    = -s -w -X ebb.dev/ebb/internal/server.Version=$(VERSION) -X ebb.dev/ebb/internal/server.Commit=$(COMMIT) $(STAMP)

.PHONY: help up build install test lint arch shim unit oracle differential e2e serving keda conformance conformance-serving conformance-keda bench generate needs clean

help: ## list the verbs
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 22

up: install ## build, install into PREFIX/bin and start ebb in the background (UP= for its flags)
	$(DESTDIR)$(PREFIX)/bin/ebb up --detach $(UP)

build: ## build bin/ebb
	@echo "building ebb $(VERSION) with Kubernetes $(KUBERNETES); minutes the first time, seconds later"
	@go build -ldflags '$(LDFLAGS)' -o bin/ebb ./cmd/ebb

install: build ## build, and install into PREFIX/bin
	install -D -m 0755 bin/ebb $(DESTDIR)$(PREFIX)/bin/ebb

test: needs bin/gotestsum bin/golangci-lint bin/runsc bin/kn bin/ferretdb build ## lint, architecture, generated files, unit, oracle and end-to-end tests, parts of Knative's and KEDA's
	@status=0; \
	nice -n 19 test/lint >bin/lint.log 2>&1 & lint=$$!; \
	go run ./internal/adapter/runtime/container/shim/build -check || status=1; \
	EBB_BIN=$(CURDIR)/bin/ebb EBB_KN=$(CURDIR)/bin/kn bin/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg --raw-command -- test/run arch unit oracle e2e serving keda || status=1; \
	wait $$lint || status=1; \
	cat bin/lint.log; \
	exit $$status

lint: bin/golangci-lint ## read the code for mistakes, floors and style
	@test/lint

arch: ## check the shape: floors, sizes, comments, modules
	go test ./test/arch

shim: ## compare the embedded pod program with its source
	go run ./internal/adapter/runtime/container/shim/build -check

unit: needs bin/gotestsum bin/runsc bin/ferretdb ## unit tests (ARGS= for go test)
	@bin/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg --raw-command -- test/run unit

oracle: bin/gotestsum ## compare the arithmetic with Knative's (EBB_HISTORIES=1000000 for more)
	@bin/gotestsum --format pkgname-and-test-fails --raw-command -- test/run oracle

differential: needs bin/gotestsum bin/ferretdb ## compare the triggers with KEDA's scalers, on the same servers; the first time compiles for long
	@bin/gotestsum --format pkgname-and-test-fails --raw-command -- test/run differential

e2e: needs bin/gotestsum bin/kn build ## drive the built binary as a user does (root)
	@EBB_BIN=$(CURDIR)/bin/ebb EBB_KN=$(CURDIR)/bin/kn bin/gotestsum --format testname --raw-command -- test/run e2e

serving: needs bin/gotestsum build ## a short part of Knative Serving's own suites, against the built binary (root)
	@EBB_BIN=$(CURDIR)/bin/ebb bin/gotestsum --format testname --raw-command -- test/run serving

keda: needs bin/gotestsum build ## a short part of KEDA's own end-to-end tests, against the built binary (root)
	@EBB_BIN=$(CURDIR)/bin/ebb bin/gotestsum --format testname --raw-command -- test/run keda

conformance-serving: needs build ## all of Knative Serving's own suites; SUITE= and RUN= choose, COUNT= repeats (root)
	go -C test/conformance/serving run . -ebb $(CURDIR)/bin/ebb -suite '$(SUITE)' -run '$(RUN)' -count $(or $(COUNT),1) $(ARGS)

conformance-keda: needs build ## KEDA's own end-to-end tests; GROUP= (A, B, C, more) and RUN= choose, COUNT= repeats (root)
	@NEEDS=etcd-client test/needs
	go -C test/conformance/keda run . -ebb $(CURDIR)/bin/ebb -group '$(GROUP)' -run '$(RUN)' -count $(or $(COUNT),1) $(ARGS)

conformance: needs bin/gotestsum bin/runsc ## hold us against the peers: runtimes by one suite, runc and gVisor included; arithmetic by Knative's
	@bin/gotestsum --format testname --raw-command -- test/run adapters oracle

bench: needs build ## measure what is promised; prints a table, writes test/bench/latest.json (root)
	@NEEDS="nginx-light wrk" test/needs
	go run ./test/bench -ebb bin/ebb $(ARGS)

generate: ## rewrite generated files: definitions, trigger parameters, the pod program, the list of modules
	go -C tools run ./crds ../deploy/crds
	go -C tools run ./triggers ../internal/adapter/trigger/schema/triggers.tsv
	go run ./internal/adapter/runtime/container/shim/build
	go test ./test/arch -run TestModules -update

needs:
	@NEEDS="$(STANDS) $(SERVERS)" test/needs

# The tools are pinned in a module of their own and built from it.
bin/golangci-lint: tools/go.mod
	@echo "building golangci-lint; minutes the first time"
	go -C tools build -trimpath -o ../bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

bin/gotestsum: tools/go.mod
	go -C tools build -trimpath -o ../bin/gotestsum gotest.tools/gotestsum
	@touch $@

bin/runsc: tools/runsc/go.mod
	@echo "building gVisor"
	go -C tools/runsc build -trimpath -ldflags '-s -w' -o ../../bin/runsc gvisor.dev/gvisor/runsc

# Knative's client, which the end-to-end tests drive; it shares the build cache with ebb.
bin/kn: test/clients/go.mod
	go -C test/clients build -o ../../bin/kn knative.dev/client/cmd/kn
	@touch $@

# A server of MongoDB's protocol, for the trigger's tests.
bin/ferretdb: test/servers/go.mod test/servers/ferretdb/main.go
	go -C test/servers build -trimpath -o ../../bin/ferretdb ./ferretdb
	@touch $@

clean: ## remove what was built
	rm -rf bin
