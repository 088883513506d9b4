# `make test` needs nothing but Go. `make check` needs a C compiler too (the race detector), and installs the linters
# below into .tools at these versions; they are no requirement of the library.
STATICCHECK_VERSION   := v0.8.2
GOLANGCI_LINT_VERSION := v2.15.0
GOVULNCHECK_VERSION   := v1.9.0

FUZZTIME  ?= 12m                   # for each of the five targets: an hour
COVERAGE  ?= 95                    # percent of the statements of the root package
VULNDB    ?= https://vuln.go.dev   # or a mirror of it, file://...
SEED      ?= 0                     # of random numbers; 0: new ones
PLATFORMS ?= linux/amd64 linux/arm64 darwin/amd64 windows/amd64

# Every module is checked as its users get it: without the workspace, and with the requirements it states.
export GOWORK  := off
export GOFLAGS := $(strip $(filter-out -mod=% -buildvcs=%,$(GOFLAGS)) -buildvcs=false)

GOVERSION := $(shell go env GOVERSION)
TOOLS     := $(CURDIR)/.tools/$(GOVERSION)
EACH      := scripts/each.sh

# $(call install,PACKAGE,VERSION) puts a tool at one version into TOOLS, and touches the stamp that says so. What the
# tool is built with are its own requirements, never the library's.
install = @echo "installing $(1)@$(2)" && mkdir -p "$(TOOLS)" && GOFLAGS= GOBIN="$(TOOLS)" go install $(1)@$(2) && touch "$@"

STATICCHECK   := $(TOOLS)/staticcheck-$(STATICCHECK_VERSION).stamp
GOLANGCI_LINT := $(TOOLS)/golangci-lint-$(GOLANGCI_LINT_VERSION).stamp
GOVULNCHECK   := $(TOOLS)/govulncheck-$(GOVULNCHECK_VERSION).stamp

.DEFAULT_GOAL := help
.NOTPARALLEL:

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: test
test: ## run the tests of the root module
	GOWORK= go test ./...

.PHONY: demo
demo: ## run the example: many workers, several providers; run it again and it continues
	go run ./examples/orchestrator

.PHONY: demo-fleet
demo-fleet: ## run the example of three processes on one Redis: that at REDIS_ADDR, or one of its own
	@scripts/fleet.sh

.PHONY: services
services: ## install the servers that the tests of the adapters start for themselves
	@scripts/services.sh

.PHONY: check
check: fmt words deps tidy build vet staticcheck lint vuln race cover fuzz-quick ## everything that must pass before a change goes in
	@echo "check: all passed"

.PHONY: fmt
fmt: ## gofmt finds nothing to change
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi

.PHONY: words
words: ## no file says what belongs elsewhere
	@scripts/words.sh

.PHONY: deps
deps: ## the root module is built from the standard library and three modules
	@scripts/deps.sh

.PHONY: tidy
tidy: ## go mod tidy finds nothing to change in any module
	@$(EACH) go mod tidy -diff

.PHONY: build
build: ## every module builds on every platform, tests included
	@GOWORK= go list -m > /dev/null # the workspace itself is sound
	@set -e; for platform in $(PLATFORMS); do \
		echo "building for $$platform"; \
		GOOS=$${platform%/*} GOARCH=$${platform#*/} CGO_ENABLED=0 $(EACH) go build ./...; \
		GOOS=$${platform%/*} GOARCH=$${platform#*/} CGO_ENABLED=0 $(EACH) go vet ./...; \
	done

.PHONY: vet
vet: ## go vet
	@$(EACH) go vet ./...

.PHONY: staticcheck
staticcheck: $(STATICCHECK) ## staticcheck
	@$(EACH) "$(TOOLS)/staticcheck" ./...

.PHONY: lint
lint: $(GOLANGCI_LINT) ## golangci-lint, with .golangci.yml
	@$(EACH) "$(TOOLS)/golangci-lint" run --allow-serial-runners --config "$(CURDIR)/.golangci.yml" ./...

.PHONY: vuln
vuln: $(GOVULNCHECK) ## govulncheck; without its database, what can be said without it
	@$(EACH) "$(CURDIR)/scripts/vuln.sh" "$(TOOLS)/govulncheck" "$(strip $(VULNDB))"

.PHONY: race
race: ## the tests of every module, shuffled, with the race detector
	@$(EACH) go test -race -shuffle=on ./...

.PHONY: stores
stores: ## every store that processes share, at the full numbers: fleets that are killed and cut off, a million calls (hours)
	@QUOTA_STORETEST=full $(EACH) go test -count=1 -timeout 12h -run '^Test(Fleet|Sequences)' ./...

.PHONY: cover
cover: ## statement coverage of the root package by its own tests
	@scripts/cover.sh $(strip $(COVERAGE))

.PHONY: fuzz-quick
fuzz-quick: ## each fuzz target of the root package for five seconds
	@scripts/fuzz.sh 5s

.PHONY: fuzz
fuzz: ## the same for an hour, or FUZZTIME each
	@scripts/fuzz.sh $(strip $(FUZZTIME))

.PHONY: bench
bench: ## measure this library beside others (10 minutes at most) and write bench/RESULTS.md; fails if a goal is missed
	@scripts/packages.sh strace=strace
	cd bench && go run .

.PHONY: bench-quick
bench-quick: ## run each measurement for a moment, check its allocations and the README's table
	@scripts/packages.sh strace=strace
	cd bench && go run . -quick

.PHONY: torture
torture: torture-tools ## try to break every promise, at the full numbers (an hour); SEED=N for the same random numbers
	cd torture && go run . -full -record -seed $(SEED)

.PHONY: torture-quick
torture-quick: torture-tools ## the same, bounded: a few minutes
	cd torture && go run . -seed $(SEED)

# What is attacked below the library needs root and these; where a row has to do without, it says so, and fails under CI.
.PHONY: torture-tools
torture-tools:
	@scripts/packages.sh mkfs.ext4=e2fsprogs mkfs.xfs=xfsprogs

.PHONY: rename
rename: ## give the module another path: make rename MODULE=github.com/you/quota
	@go run scripts/rename.go "$(MODULE)"

.PHONY: clean
clean: ## remove the linters and the coverage profile
	rm -rf .tools cover.out

$(STATICCHECK):
	$(call install,honnef.co/go/tools/cmd/staticcheck,$(STATICCHECK_VERSION))

$(GOLANGCI_LINT):
	$(call install,github.com/golangci/golangci-lint/v2/cmd/golangci-lint,$(GOLANGCI_LINT_VERSION))

$(GOVULNCHECK):
	$(call install,golang.org/x/vuln/cmd/govulncheck,$(GOVULNCHECK_VERSION))
