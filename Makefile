# svc.mesh: `make demo` runs the mesh on this machine, `make test` passes every test.
# Needs Python 3.11+, make and a C compiler; everything else is installed below .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TOOLS := $(or $(SVCMESH_TOOLS),$(HOME)/.cache/svcmesh/bin)
BENCH_STAMP := $(VENV)/.installed-bench

MINUTES ?= 60
# What tells nothing new of the compiled data plane, and takes long.
LEFT_OUT_COMPILED := --ignore=tests/interop/test_amplification.py $(addprefix --deselect=tests/interop/test_smuggling1.py::,test_tomcat test_python)
OF_THE_LOG := tests/log $(addprefix tests/worker/test_,access_log.py line_fields.py template_lines.py)
COMPILED_TESTS := tests/proxy tests/conversations tests/exchange tests/http2 tests/dataplane tests/interop $(OF_THE_LOG) $(LEFT_OUT_COMPILED)
# What `make check` runs: two parts of about 35 s of one core each, side by side.
MANY_STEPS := tests/exchange/test_machine.py
QUICK_1 := tests/proxy tests/conversations tests/middleware tests/dns tests/control tests/docs $(filter-out $(MANY_STEPS),$(wildcard tests/exchange/test_*.py))
QUICK_2 := tests/discovery tests/plan tests/state tests/log tests/admin tests/cli tests/health tests/worker tests/capture

# Many tests wait, so there are more processes than cores. WORKERS=0 runs all tests in one, as pytest alone does.
WORKERS ?= 3
SHARED := --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo smoke soak check check-1 check-2 test tests test-compiled test-kube kube-assets node-assets image dist release lint format bench lab docs manifest-tools coredns otelcol traefik interop-tools interop-peers page-tools autoscaling-tools locks clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-17s %s\n", $$1, $$2}'

$(STAMP): hack/locks/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "svc.mesh needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing the pinned environment into $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: install your system's venv package (Debian: python3-venv)"; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r hack/locks/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(BENCH_STAMP): $(STAMP) hack/locks/bench.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r hack/locks/bench.txt
	@touch $@

demo: $(STAMP) ## run the mesh with a small shop of sample services; Ctrl-C ends it
	@$(BIN)/python -m hack.demo

smoke: $(STAMP) ## the demo without a person: real traffic through every sample, a table, exit code
	@$(BIN)/python -m hack.demo --smoke

lint: $(STAMP) ## ruff, mypy --strict, import contracts, dead code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/vulture

format: $(STAMP) ## rewrite the sources in the house style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

check: $(STAMP) ## lint, and the tests that need neither root nor other programs: less than a minute on two cores
	+@$(MAKE) --no-print-directory --jobs=2 --output-sync=target check-2 check-1 lint
	@echo "Left out, make test runs them: $(filter-out $(QUICK_1) $(QUICK_2) tests/exchange tests/golden,$(patsubst %/,%,$(wildcard tests/*/))) $(MANY_STEPS)"

check-1 check-2: check-%: $(STAMP)
	@$(BIN)/python -m pytest -q --no-header $(QUICK_$*) $(PYTEST_ARGS)

test: lint ## lint, types, import contracts and every test this machine can run
	@$(MAKE) --no-print-directory tests

tests: $(STAMP) ## every test this machine can run, in WORKERS=3 processes
	@$(BIN)/python -m pytest $(SHARED) $(PYTEST_ARGS)

test-compiled: $(STAMP) ## the data plane's tests on the data plane as the image has it, compiled by mypyc
	@$(BIN)/python -m hack.compile tree build/compiled
	@cd build/compiled && PYTHONPATH=$(CURDIR)/build/compiled $(BIN)/python -m pytest $(COMPILED_TESTS) $(PYTEST_ARGS)

test-kube: $(STAMP) ## the tests on a real Kubernetes API server alone (after make kube-assets)
	@$(BIN)/python -m pytest -m kube tests/kube $(PYTEST_ARGS)

kube-assets: $(STAMP) ## build kube-apiserver and find etcd, for test-kube (the first time: many minutes)
	@$(BIN)/python -m hack.kube assets

bench: $(BENCH_STAMP) ## compare with nginx, HAProxy, nghttpx, Envoy and dnsmasq; writes build/bench.json
	@$(BIN)/python -m hack.bench

soak: $(STAMP) ## traffic, bad clients and killed workers for MINUTES=60: nothing may fail, leak or hang
	@$(BIN)/python -m hack.soak --minutes $(MINUTES) $(SOAK_ARGS)

lab: $(STAMP) ## two nodes as network namespaces; drops you into a pod's shell
	@$(BIN)/python -m hack.lab shell

docs: $(STAMP) ## regenerate the pages of annotations, flags and metrics, the chart's values, the dashboard and copies of the alerts
	@$(BIN)/python -m hack.annotations > docs/annotations.md
	@$(BIN)/python -m hack.flags > docs/nodeagent.md
	@$(BIN)/python -m hack.metrics > docs/metrics.md
	@$(BIN)/python -m tests.conversations.rules > docs/conformance.md
	@$(BIN)/python -m hack.manifests.values > manifests/charts/svcmesh/README.md
	@$(BIN)/python -m hack.manifests.dashboard
	@$(BIN)/python -m hack.manifests.rules

node-assets: $(STAMP) ## build kubelet, kube-proxy and more, install containerd: for the tests on a real node (root)
	@$(BIN)/python -m hack.kube node-assets

image: ## build the agent's container image without Docker into build/svcmesh-agent.tar (root, Debian)
	@sh hack/manifests/image.sh build/svcmesh-agent.tar

dist: $(STAMP) ## build wheels, sdist, chart, image, SBOMs and checksums of the last commit into dist/ (WITHOUT="image ...")
	@$(BIN)/python -m hack.release dist --without $(WITHOUT)

release: $(STAMP) ## release the last commit as VERSION=x.y.z: set version, commit, build dist/, tag; pushes nothing
	@$(BIN)/python -m hack.release release "$(VERSION)" --without $(WITHOUT)

manifest-tools: ## build helm and kustomize at the pinned versions into ~/.cache/svcmesh/bin (needs Go)
	@command -v go >/dev/null || { echo "Left out: the tests that render manifests (no Go here: https://go.dev/dl/)"; exit 1; }
	@mkdir -p $(TOOLS) && flags="$$($(PYTHON) -m hack.manifests.link_flags)" && cd hack/manifests && go build -trimpath -ldflags="$$flags" -o $(TOOLS)/ sigs.k8s.io/kustomize/kustomize/v5 helm.sh/helm/v3/cmd/helm

coredns: ## build CoreDNS at the pinned version into ~/.cache/svcmesh/bin (needs Go; minutes)
	@command -v go >/dev/null || { echo "Left out: the tests with a real CoreDNS (no Go here: https://go.dev/dl/)"; exit 1; }
	@mkdir -p $(TOOLS) && cd hack/coredns && CGO_ENABLED=0 go build -trimpath -mod=readonly -ldflags='-s -w' -o $(TOOLS)/coredns github.com/coredns/coredns

otelcol: ## build a small OpenTelemetry Collector at the pinned version into ~/.cache/svcmesh/bin (needs Go; minutes)
	@command -v go >/dev/null || { echo "Left out: the tests with a real OpenTelemetry Collector (no Go here: https://go.dev/dl/)"; exit 1; }
	@mkdir -p $(TOOLS) && cd hack/otelcol && CGO_ENABLED=0 go build -trimpath -mod=readonly -ldflags='-s -w' -o $(TOOLS)/otelcol .

traefik: ## build Traefik at the pinned version into ~/.cache/svcmesh/bin, a peer of make bench (needs Go; minutes)
	@command -v go >/dev/null || { echo "Left out: Traefik as a peer of make bench (no Go here: https://go.dev/dl/)"; exit 1; }
	@mkdir -p $(TOOLS) && cd hack/traefik && CGO_ENABLED=0 go build -trimpath -mod=readonly -ldflags="-s -w -X github.com/traefik/traefik/v3/pkg/version.Version=$$(go list -m -f '{{.Version}}' github.com/traefik/traefik/v3)" -o $(TOOLS)/traefik github.com/traefik/traefik/v3/cmd/traefik

interop-tools: ## build h2spec and Go's peers of gRPC and HTTP/2 into ~/.cache/svcmesh/bin (needs Go)
	@command -v go >/dev/null || { echo "Left out: h2spec and the tests with Go's gRPC (no Go here: https://go.dev/dl/)"; exit 1; }
	@mkdir -p $(TOOLS) && cd hack/interop && go build -trimpath -mod=readonly -ldflags='-s -w' -o $(TOOLS)/ github.com/summerwind/h2spec/cmd/h2spec ./h2peer

interop-peers: ## install gunicorn, uvicorn, cheroot and aiohttp into ~/.cache/svcmesh/peers, for tests/interop
	@test -x $(TOOLS)/../peers/bin/python || $(PYTHON) -m venv $(TOOLS)/../peers
	@$(TOOLS)/../peers/bin/pip install --quiet --disable-pip-version-check --require-hashes -r hack/locks/peers.txt && touch $(TOOLS)/../peers/.installed

page-tools: ## install axe-core into ~/.cache/svcmesh/page, for tests/page (needs npm)
	@command -v npm >/dev/null || { echo "Left out: the test of the page's accessibility (no npm here)"; exit 1; }
	@mkdir -p $(TOOLS)/../page && cp hack/page/package.json hack/page/package-lock.json $(TOOLS)/../page/ && cd $(TOOLS)/../page && npm ci --ignore-scripts --no-audit --no-fund --silent

autoscaling-tools: ## build prometheus-adapter, fetch the CRDs of KEDA and prometheus-operator (needs Go; minutes)
	@command -v go >/dev/null || { echo "Left out: the tests of autoscalers and their resources (no Go here: https://go.dev/dl/)"; exit 1; }
	@$(PYTHON) -m hack.crds $(TOOLS)/../crds
	@mkdir -p $(TOOLS) && cd hack/adapter && CGO_ENABLED=0 go build -trimpath -mod=readonly -ldflags='-s -w' -o $(TOOLS)/prometheus-adapter sigs.k8s.io/prometheus-adapter/cmd/adapter

locks: ## pin the newest allowed versions again (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --extra agent --extra traces pyproject.toml -o hack/locks/runtime.txt
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --extra agent --extra traces --extra dev -c hack/locks/runtime.txt pyproject.toml hack/locks/build.in -o hack/locks/dev.txt
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --extra agent --extra traces --extra bench -c hack/locks/dev.txt pyproject.toml -o hack/locks/bench.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -c hack/locks/dev.txt hack/locks/image.in -o hack/locks/image.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -c hack/locks/dev.txt hack/locks/peers.in -o hack/locks/peers.txt

clean: ## remove everything that was built or installed
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
