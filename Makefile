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
DATE    := $(shell TZ=UTC0 git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null)

# What the linked-in Kubernetes says about itself: its release, and that it came from an archive.
KUBERNETES = $(shell go list -m -f '{{.Version}}' k8s.io/kubernetes)
STAMP      = $(foreach package,k8s.io/component-base/version k8s.io/client-go/pkg/version, \
	-X $(package).gitVersion=$(KUBERNETES) -X $(package).gitMajor=1 \
	-X $(package).gitMinor=$(word 2,$(subst ., ,$(KUBERNETES))) -X $(package).gitCommit= \
	-X $(package).gitTreeState=archive -X $(package).buildDate=$(DATE))
LDFLAGS    = -s -w -X ebb.dev/ebb/internal/server.Version=$(VERSION) $(STAMP)

.PHONY: help up build install test lint arch shim unit oracle e2e serving conformance conformance-serving bench generate needs clean

help: ## list the verbs
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 22

up: install ## build, install into PREFIX/bin and start ebb in the background (UP= for its flags)
	$(DESTDIR)$(PREFIX)/bin/ebb up --detach $(UP)

build: ## build bin/ebb
	@echo "building ebb $(VERSION) with Kubernetes $(KUBERNETES); minutes the first time, seconds later"
	@go build -ldflags '$(LDFLAGS)' -o bin/ebb ./cmd/ebb

install: build ## build, and install into PREFIX/bin
	install -D -m 0755 bin/ebb $(DESTDIR)$(PREFIX)/bin/ebb

test: needs bin/gotestsum bin/golangci-lint bin/runsc bin/kn build ## lint, architecture, generated files, unit, oracle and end-to-end tests, a part of Knative's
	@status=0; \
	test/lint || status=1; \
	go run ./internal/adapter/runtime/container/shim/build -check || status=1; \
	EBB_BIN=$(CURDIR)/bin/ebb EBB_KN=$(CURDIR)/bin/kn bin/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg --raw-command -- test/run arch unit oracle e2e serving || status=1; \
	exit $$status

lint: bin/golangci-lint ## read the code for mistakes, floors and style
	@test/lint

arch: ## check the shape: floors, sizes, comments, modules
	go test ./test/arch

shim: ## compare the embedded pod program with its source
	go run ./internal/adapter/runtime/container/shim/build -check

unit: needs bin/gotestsum bin/runsc ## unit tests (ARGS= for go test)
	@bin/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg --raw-command -- test/run unit

oracle: bin/gotestsum ## compare the arithmetic with Knative's (EBB_HISTORIES=1000000 for more)
	@bin/gotestsum --format pkgname-and-test-fails --raw-command -- test/run oracle

e2e: needs bin/gotestsum bin/kn build ## drive the built binary as a user does (root)
	@EBB_BIN=$(CURDIR)/bin/ebb EBB_KN=$(CURDIR)/bin/kn bin/gotestsum --format testname --raw-command -- test/run e2e

serving: needs bin/gotestsum build ## a short part of Knative Serving's own suites, against the built binary (root)
	@EBB_BIN=$(CURDIR)/bin/ebb bin/gotestsum --format testname --raw-command -- test/run serving

conformance-serving: needs build ## all of Knative Serving's own suites; SUITE= and RUN= choose, COUNT= repeats (root)
	go -C test/conformance/serving run . -ebb $(CURDIR)/bin/ebb -suite '$(SUITE)' -run '$(RUN)' -count $(or $(COUNT),1) $(ARGS)

conformance: needs bin/gotestsum bin/runsc ## hold us against the peers: runtimes by one suite, runc and gVisor included; arithmetic by Knative's
	@bin/gotestsum --format testname --raw-command -- test/run adapters oracle

bench: needs build ## measure what is promised; prints a table, writes test/bench/latest.json (root)
	@NEEDS="nginx-light wrk" test/needs
	go run ./test/bench -ebb bin/ebb $(ARGS)

generate: ## rewrite generated files: definitions, the pod program, the list of modules
	go -C tools run ./crds ../deploy/crds
	go run ./internal/adapter/runtime/container/shim/build
	go test ./test/arch -run TestModules -update

needs:
	@test/needs

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

clean: ## remove what was built
	rm -rf bin
