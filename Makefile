# The commands that a person types. What is longer than a line is in scripts/.

GO            ?= go
BIN           := .bin
GOLANGCI_LINT := v2.15.0
GOVULNCHECK   := v1.9.0
SQLC          := v1.31.1
TESTRUN       := $(GO) run ./scripts/testrun -last ./caddymodule/integration

.PHONY: help run build test test-long bench load lint deps generate check-generated vuln clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

run: build ## build and start everything embedded, with two stand-in backends and demo users
	@$(GO) build -o $(BIN)/embedded ./examples/embedded
	@$(BIN)/embedded

build: ## Caddy with all modules, into .bin/caddy
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/caddy ./caddymodule/cmd/caddy

test: deps ## all tests with the race detector; a skipped test is a failure
	QUOTA_TEST_REQUIRE=1 $(TESTRUN) -race -timeout 30m ./...

test-long: deps ## the same with longer runs, then every fuzz target for FUZZTIME (30s)
	QUOTA_TEST_REQUIRE=1 QUOTA_TEST_LONG=1 $(TESTRUN) -race -timeout 60m ./...
	scripts/fuzz.sh

bench: build ## benchmarks, then CPU a request against plain Caddy (docs/performance.md)
	$(GO) test -run '^$$' -bench . -skip Change -benchmem ./caddymodule/... ./plugins/...
	$(GO) test -run '^$$' -bench Change -benchtime 1000x ./caddymodule/integration
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/plain ./scripts/bench/plain
	$(GO) run ./scripts/bench
	$(GO) run ./scripts/bench -stage fields
	$(GO) run ./scripts/bench -release
	$(GO) run ./scripts/bench -counters redis
	$(GO) run ./scripts/bench -counters redis -refuse
	$(GO) run ./scripts/bench -counters redis -release

load: ## a load against a running gateway, e.g. make load LOAD='-url http://localhost:8080/items -duration 30s'
	$(GO) run ./scripts/load $(LOAD)

lint: ## golangci-lint, of one pinned version, and a go.mod that is tidy
	scripts/lint.sh $(GOLANGCI_LINT)
	$(GO) mod tidy -diff

deps: ## install what the tests need beyond Go, git and make
	scripts/deps.sh

generate: ## the SQL layer from its queries (takes a while the first time)
	$(GO) run github.com/sqlc-dev/sqlc/cmd/sqlc@$(SQLC) generate -f caddymodule/store/sqlc.yaml

check-generated: ## fail if `make generate` would change anything
	$(GO) run github.com/sqlc-dev/sqlc/cmd/sqlc@$(SQLC) diff -f caddymodule/store/sqlc.yaml

vuln: ## known vulnerabilities in what is linked (asks vuln.go.dev)
	$(GO) run golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK) ./...

clean: ## remove what was built; ./data stays
	rm -rf $(BIN) ./caddy
