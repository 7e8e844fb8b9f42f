# What a person runs here. `make` alone lists it.
SHELL := bash
.DEFAULT_GOAL := help
PYTHON ?= python3
CONFIG ?= configs/serve$(if $(TARGET),.$(TARGET)).yaml
UV_VERSION := 0.13.8
UV := .uv/bin/uv
BIN := .venv/bin

# Bytecode is written once: without it each of vLLM's processes compiles for ten seconds before it starts.
unexport PYTHONDONTWRITEBYTECODE

include tests/kubernetes/build.mk

.PHONY: help serve test unit e2e chaos slow soak fuzz kubernetes kubernetes-up kubernetes-down check models monitor env lock images audit sbom licences train clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

serve: models ## run the service: checks, then `serve run configs/serve.yaml`; Ctrl-C ends it
	@exec $(BIN)/python scripts/serve $(CONFIG)

# docs/testing.md lists the tiers. The unit tests run in four groups at once, since most of them wait: for Triton to load
# and unload models, or for processes to end. Tests that start Triton in their own process keep to one process a group,
# so that a crash of Triton ends that group and nothing else.
EMBEDDED := tests/triton/embedded
TRITON := tests/triton --ignore $(EMBEDDED)
BENCH := tests/tools/bench tests/tools/models/test_triton.py
OTHERS := tests --ignore tests/e2e --ignore tests/triton $(BENCH:%=--ignore %) --numprocesses 2 --dist loadfile

test: ## run the tests, unit then e2e; or a part: ARGS=tests/e2e/test_tracks.py
	$(if $(ARGS),,$(MAKE) --no-print-directory unit &&) $(MAKE) --no-print-directory e2e

unit: models .prometheus/.installed ## run the tests that need no cluster, in four groups at once
	@$(MAKE) --no-print-directory --jobs 4 --keep-going unit-others unit-triton unit-embedded unit-bench

unit-%:
	@set -o pipefail; $(BIN)/python -m pytest $($(shell echo $* | tr a-z A-Z)) $(ARGS) | sed --unbuffered 's/^/$*: /'

e2e: models .prometheus/.installed .chromium/.installed ## run the tests on a real Ray cluster
	$(BIN)/python -m pytest $(or $(ARGS),tests/e2e)

chaos: models ## attack the service: faults and overload with their tables, limits of keys, slow clients, autoscaling
	$(BIN)/python -m pytest -m chaos --capture no $(or $(ARGS),tests/e2e/chaos)

slow: models .prometheus/.installed ## run what takes minutes and is about no fault: accuracy, ratios, malformed by the thousand
	$(BIN)/python -m pytest -m slow $(or $(ARGS),tests)
	$(if $(ARGS),,$(BIN)/python -m pytest --hypothesis-profile slow -o timeout=1800 tests/e2e/test_malformed.py)

soak: models ## use the service for an hour, and see that what it holds levels off; draws build/soak.png
	$(BIN)/python -m pytest -m soak tests/e2e/soak --capture no

# Here as in build.mk a cluster needs root, Go and Debian's packages; it takes 12 GB of memory and 40 GB of disk.
CLUSTER := $(BIN)/python -m tests.kubernetes.cluster
kubernetes: kubernetes-up ## deploy to a real Kubernetes with KubeRay's operator on this machine: start it, run all tests, end it
	$(BIN)/python -m pytest -m kubernetes --capture no $(or $(ARGS),tests/kubernetes); \
		status=$$?; $(MAKE) --no-print-directory kubernetes-down; exit $$status

kubernetes-up: models kubernetes-programs ## start that Kubernetes and leave it running, to try scripts/deploy and kubectl on it
	@$(CLUSTER) up

kubernetes-down: ## end it without a trace; what was built stays in .kubernetes
	@$(CLUSTER) down

FUZZ_RUNS ?= 100000
fuzz: env build/fuzz/.installed ## look for inputs that break what reads requests, pictures and keys: FUZZ_RUNS of each kind
	@PYTHONPATH=build/fuzz/site $(BIN)/python -m tests.fuzz.campaign $(FUZZ_RUNS)

# Beside the environment: the fuzzer is in no process but its own.
build/fuzz/.installed: tests/fuzz/requirements.txt | .uv/.installed
	$(UV) pip install --quiet --python $(BIN)/python --target build/fuzz/site --require-hashes --requirement $<
	@touch $@

check: env ## what CI demands: Python, YAML, shell, Dockerfiles, and manifests that are what their scenarios render
	$(BIN)/ruff check . scripts/*
	$(BIN)/ruff format --check . scripts/*
	$(BIN)/mypy
	$(BIN)/yamllint --strict .yamllint.yaml configs kuberay serve_app
	$(BIN)/shellcheck .ci/run kuberay/images/build
	$(BIN)/hadolint --config kuberay/images/.hadolint.yaml kuberay/images/*.Dockerfile
	@for file in kuberay/scenarios/*.yaml; do name=$$(basename $$file .yaml); \
		$(BIN)/python scripts/deploy render $$name | diff -u kuberay/manifests/$$name/rayservice.yaml - || \
		{ echo "error: scripts/deploy render $$name --write" >&2; exit 1; }; done
	@$(BIN)/python scripts/deploy chart --output build/chart >/dev/null && diff -ru kuberay/chart build/chart || \
		{ echo "error: scripts/deploy chart" >&2; exit 1; }

models: env ## build what the model repository lacks, as CONFIG says; TARGET=gpu for the GPU's
	@$(BIN)/python scripts/build_models --config $(CONFIG)

env: .venv/.installed ## create .venv with the pinned environment

# uv brings itself and the virtual environment: Debian's Python comes without ensurepip.
.uv/.installed: requirements/uv.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v != (3, 11) and f"error: Python 3.11 is needed, {sys.executable} is {v[0]}.{v[1]}; try make PYTHON=python3.11")'
	$(PYTHON) -m pip install --quiet --upgrade --target .uv --require-hashes --requirement requirements/uv.txt
	@touch $@

.venv/.installed: .uv/.installed requirements/pinned.txt pyproject.toml
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) .venv
	VIRTUAL_ENV=.venv $(UV) pip sync --quiet --require-hashes requirements/pinned.txt
	VIRTUAL_ENV=.venv $(UV) pip install --quiet --offline --no-deps --no-build-isolation --editable .
	@touch $@

monitor: env .prometheus/.installed ## watch the service that runs here: Prometheus, and Grafana where it is installed
	@exec $(BIN)/python scripts/monitor

# Debian's package, unpacked here: nothing of the machine changes, and no root is needed.
.prometheus/.installed:
	@mkdir -p .prometheus
	@command -v prometheus promtool >/dev/null || \
		(cd .prometheus && apt-get download -qq prometheus && dpkg-deb --extract prometheus_*.deb . && rm prometheus_*.deb)
	@touch $@

# The browser of tests: Debian's, with what it needs of the system, so only root can add it.
.chromium/.installed:
	@mkdir -p .chromium
	@command -v chromium >/dev/null || test "$$(id -u)" = 0 || \
		{ echo "error: tests of the playground need a browser: apt-get install chromium, as root" >&2; exit 1; }
	@command -v chromium >/dev/null || \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >.chromium/log 2>&1 || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
			>.chromium/log 2>&1 || \
		{ tail -5 .chromium/log >&2; echo "error: apt-get could not install chromium; apt-get update may help" >&2; exit 1; }
	@touch $@

# What the images of kuberay/images install; they keep the versions that are tested here, and leave them where they must.
# Every version has the hashes of its files, and nothing is installed that has another.
SETS := kuberay/images/requirements
PYTHON_311 := --python-version 3.11 --python-platform x86_64-manylinux_2_36
PYTHON_312 := --python-version 3.12 --python-platform x86_64-manylinux_2_35 --override $(SETS)/overrides.txt
NUMPY_1 := --override $(SETS)/overrides.numpy1.txt
COMPILE = cp requirements/pinned.txt $(SETS)/$(1).txt && \
	$(UV) pip compile --quiet --no-header --no-annotate --generate-hashes $(2) $(SETS)/$(1).in --output-file $(SETS)/$(1).txt

lock: .uv/.installed ## resolve requirements/*.in anew into requirements/pinned.txt, then the images' sets
	$(UV) pip compile --quiet --upgrade --no-header --generate-hashes $(PYTHON_311) \
		--override requirements/overrides.txt requirements/dev.in --output-file requirements/pinned.txt
	echo uv==$(UV_VERSION) | \
		$(UV) pip compile --quiet --no-header --no-annotate --generate-hashes - --output-file requirements/uv.txt
	$(MAKE) images

images: .uv/.installed ## resolve the images' requirement sets by requirements/pinned.txt
	@$(call COMPILE,cpu,$(PYTHON_311) --override requirements/overrides.txt)
	@$(call COMPILE,head,$(PYTHON_312) $(NUMPY_1))
	@$(call COMPILE,vision,$(PYTHON_312) $(NUMPY_1))
	@$(call COMPILE,llm-base,$(PYTHON_312))
	@$(call COMPILE,llm,$(PYTHON_312) --constraint $(SETS)/llm-base.txt \
		$$(sed -nE 's/^([a-z0-9._-]+)==.*/--no-emit-package \1/p' $(SETS)/llm-base.txt))

# Strict: a package that the database can't be asked about is a failure, not a pass. One set at a time, since sets differ in
# versions; all of them, also when one fails.
AUDITED := requirements/pinned.txt requirements/uv.txt $(patsubst %,$(SETS)/%.txt,cpu head vision llm-base llm)
audit: .uv/.installed ## look for known vulnerabilities of every pinned package; requirements/audit.txt has those accepted
	@accepted=$$(sed -nE 's/^((CVE|GHSA|PYSEC)-[0-9A-Za-z-]+) .*/--ignore-vuln \1/p' requirements/audit.txt); failed=0; \
	for file in $(AUDITED); do echo $$file; \
		$(UV) tool run --quiet --from pip-audit==2.10.1 pip-audit --strict --require-hashes --disable-pip \
			--progress-spinner off $$accepted --requirement $$file || failed=1; done; exit $$failed

# The llm image has what its base brings too. The warning is about a root without a tree of dependencies.
sbom: .uv/.installed ## list what each image installs, as CycloneDX, in build/sbom
	@mkdir -p build/sbom
	@for image in cpu head vision llm; do \
		cat $(SETS)/$$image.txt $$(test $$image != llm || echo $(SETS)/llm-base.txt) | PYTHONWARNINGS=ignore \
		$(UV) tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py requirements --pyproject pyproject.toml \
			--output-reproducible --output-file build/sbom/$$image.json - && echo build/sbom/$$image.json || exit 1; done

licences: env ## write the licences of the installed packages into docs/licences.md
	$(BIN)/python -m serve_app.tools.licences

train: env ## train the demo models anew and ship them (an hour)
	$(BIN)/python scripts/train_demo_models

clean: ## remove what was built; weights and configs stay
	rm -rf .venv .uv .prometheus .chromium .kubernetes build runs *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	git clean -fdXq model_repository/cpu model_repository/gpu
	rm -rf model_repository/plans
