# How the project is built, checked and shown. Everything is made under build/; packaging/locks/ pins every package by hash.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-builtin-rules --no-print-directory
ifeq ($(MAKELEVEL),0)
MAKEFLAGS   += -j4
endif
.DELETE_ON_ERROR:

ENV   := build/env
LOCKS := packaging/locks
UV    := $(CURDIR)/$(ENV)/uv/bin/uv
BIN   := $(CURDIR)/$(ENV)/dev/bin
CORES := $(shell nproc)

# uv fetches no interpreter of its own, and trusts the certificate authorities that this machine trusts.
export UV_PYTHON_DOWNLOADS := never
export UV_SYSTEM_CERTS := true
export UV_NO_PROGRESS := 1
export SAM_CLI_TELEMETRY := 0
# Tools that may not keep their bytecode start two to five times slower.
unexport PYTHONDONTWRITEBYTECODE

# The first Python on this machine that is new enough; `make PYTHON=/path/to/python3` chooses another.
PYTHON ?= $(firstword $(foreach p,python3 /usr/bin/python3 python3.13 python3.12 python3.11,$(shell \
	$(p) -c 'import sys; sys.version_info >= (3, 11) and print(sys.executable)' 2>/dev/null || true)))

.PHONY: help packages env lock lint fix test test-fast test-clean cover mutate fuzz prove bench deb demo demo-stop pictures release fork local-up clean $(addprefix env-,uv agent local sam cloud dev checkov package)

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What `make deb` makes.
VERSION  = $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' iot_agent/__init__.py)
ARCH    ?= $(shell dpkg --print-architecture)
DEB      = dist/iot-agent_$(VERSION)_$(ARCH).deb

packages: ## install the Debian packages that development needs, as root or by sudo; else print the command
	@packaging/packages.sh

# --- environments -----------------------------------------------------------------------------------------------------

env: env-agent env-local env-sam env-cloud env-dev env-checkov ## make every environment under build/env (about a minute)

env-uv env-agent env-local env-sam env-cloud env-dev env-checkov env-package: env-%: $(ENV)/%/.made

# uv comes from pip, which comes with Python; from here on uv installs everything else.
$(ENV)/uv/.made: $(LOCKS)/uv.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found; install python3 or pass PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "making $(ENV)/uv …" >&2
	@"$(PYTHON)" -m venv $(ENV)/uv || { echo "make: $(PYTHON) cannot make environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(ENV)/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# A .pth makes the checkout importable from any working directory; not in `local`, where a Lambda must find only what its
# own zip brings.
$(ENV)/%/.made: $(LOCKS)/%.txt $(LOCKS)/build.txt $(ENV)/uv/.made
	@echo "making $(ENV)/$* …" >&2
	@$(UV) venv --quiet --allow-existing --python "$(PYTHON)" $(ENV)/$*
	@$(UV) pip sync --quiet --python $(ENV)/$* --require-hashes --build-constraints $(LOCKS)/build.txt $<
	@$(if $(filter cloud dev,$*),echo "$(CURDIR)" > "$$($(ENV)/$*/bin/python -c \
		'import sysconfig; print(sysconfig.get_path("purelib"))')/checkout.pth")
	@touch $@

# The device's programs themselves, run from the checkout: `iot-agent` and `agentctl`.
$(ENV)/agent/.made: $(LOCKS)/agent.txt $(LOCKS)/build.txt setup.cfg $(ENV)/uv/.made
	@echo "making $(ENV)/agent …" >&2
	@$(UV) venv --quiet --allow-existing --python "$(PYTHON)" $(ENV)/agent
	@$(UV) pip sync --quiet --compile-bytecode --python $(ENV)/agent --require-hashes --build-constraints $(LOCKS)/build.txt $<
	@$(UV) pip install --quiet --python $(ENV)/agent --no-deps --build-constraints $(LOCKS)/build.txt \
		--config-settings editable_mode=compat --editable .
	@touch $@

LOCKED  = uv build agent local cloud sam dev checkov package
UPGRADE = --upgrade
lock: $(ENV)/uv/.made ## pin the newest versions again; LOCKED=dev for one environment, UPGRADE= to add what is new and move nothing else
	@for name in $(LOCKED); do \
		echo "locking $$name …" >&2; \
		$(UV) pip compile --quiet --no-config $(UPGRADE) --universal --python-version 3.11 --generate-hashes --no-header \
			--output-file $(LOCKS)/$$name.txt $(LOCKS)/$$name.in; \
	done

# --- checks -----------------------------------------------------------------------------------------------------------

SCRIPTS = $(shell git ls-files --cached --others --exclude-standard | xargs awk 'FNR == 1 && /^\#!.*[\/ ](ba|da)?sh( |$$)/ {print FILENAME}')

lint: env-dev env-sam env-checkov ## every check that runs nothing: style, types, template, shell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict iot_agent cloud tests packaging
	$(BIN)/cfn-lint cloud/template.yaml
	AWS_DEFAULT_REGION=eu-west-1 $(ENV)/sam/bin/sam validate --lint --template cloud/template.yaml
	$(ENV)/checkov/bin/checkov --file cloud/template.yaml --framework cloudformation --skip-download --compact --quiet
	$(BIN)/shellcheck $(SCRIPTS)

fix: env-dev ## mend what ruff and shellcheck can mend by themselves, and format
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .
	{ $(BIN)/shellcheck --format=diff $(SCRIPTS) || true; } | git apply --allow-empty

# The test files that import nothing which starts a process, opens a socket or imitates AWS, and no other tests' helpers
# than the simulator's. A new file is sorted by what it imports, so nobody keeps a list.
SLOW = ^\s*(from|import) (subprocess|socket|boto3|moto|mypy_boto3|cloud\.(local|setup)|tests\.(?!simulator|cloud(\.| import )(pki|template)\b))
FAST = $(shell git grep --untracked --files-without-match --perl-regexp '$(SLOW)' -- 'tests/*/test_*.py')

test-fast: env-dev ## the tests of pure rules and of the simulator: most of what can go wrong, in under a minute
	$(BIN)/python -m pytest -q -n $(CORES) --dist worksteal $(FAST) $(ARGS)

# The simulator runs no line that the others do not. What is not so fast, and runs the doctor's rules or the protocol's, is
# added by name; when such a file is renamed the floor notices it.
COVER = $(sort $(filter-out tests/simulator/%,$(FAST)) $(wildcard tests/device/test_doctor*.py tests/device/test_protocol.py))

cover: env-dev ## branch coverage of the pure modules, as a table; fails under the floor that .coveragerc sets
	$(BIN)/python -m pytest -q -n $(CORES) --dist worksteal --cov --cov-report=term $(COVER) $(ARGS)

mutate: env-dev ## plant small bugs in the pure rules and see a test notice each; CHANGED=1 only where the code changed, ARGS=schedule only there
	$(BIN)/python -m tests.mutation $(if $(CHANGED),--changed) $(ARGS)

SECONDS = 60
fuzz: env-dev ## fuzz every parser of foreign bytes, for SECONDS=60 together; ARGS='--target agent-yaml' chooses
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

# Here and below, the first line of a recipe looks for the Debian packages that the rest needs: if one cannot be had,
# nothing has been made yet.
test: ## the whole test suite; what needs root runs by sudo, or is left out and counted
	@packaging/packages.sh test
	@$(MAKE) env $(DEB)
	@tests/run.sh $(ARGS)

test-clean: ## type what README says on bare Debian 12 and 13 (RELEASES=trixie for one); needs root
	@packaging/packages.sh clean
	@$(MAKE) env-dev
	@packaging/as-root.sh env RELEASES="$(RELEASES)" $(BIN)/python -m pytest -q -x -p no:cacheprovider tests/clean/readme.py $(ARGS)

prove: ## every method of proof, into docs/evidence.md (at most an hour); SEED=2 for other seeds, QUICK=1 for a small part
	@packaging/packages.sh test
	@$(MAKE) env $(DEB)
	$(BIN)/python -m tests.evidence $(if $(SEED),--seed $(SEED)) $(if $(QUICK),--quick) $(ARGS)

# --- the Debian package -----------------------------------------------------------------------------------------------

CHECKED  = build/deb-$(ARCH)/checked
PACKAGED = git ls-files --cached --others --exclude-standard iot_agent config packaging docs README.md ARCHITECTURE.md SECURITY.md LICENSE setup.cfg pyproject.toml

deb: ## dist/iot-agent_VERSION_ARCH.deb, checked by lintian; ARCH=arm64 for another machine than this
	@packaging/packages.sh deb
	@$(MAKE) $(CHECKED)
	@echo $(DEB)

$(DEB): $(shell $(PACKAGED)) packaging/build-deb.sh | $(ENV)/package/.made
	@echo "making $@ …" >&2
	@packaging/build-deb.sh build/deb-$(ARCH) dist $(ARCH)

# A target of its own: when a recipe fails make deletes its target, and the finished package is not to be deleted.
$(CHECKED): $(DEB)
	@lintian --allow-root --fail-on error,warning,info $(<:.deb=.changes)
	@touch $@

# --- a release --------------------------------------------------------------------------------------------------------

release: ## sdist, wheel, packages for amd64 and arm64, SBOMs and SHA256SUMS, in dist/
	@packaging/packages.sh deb
	@python3 packaging/release.py check
	@test -z "$$(git status --porcelain)" || { echo "make: a release is made of what is committed; git status shows what is not" >&2; exit 1; }
	@$(MAKE) deb ARCH=amd64
	@$(MAKE) deb ARCH=arm64
	@python3 packaging/release.py files $(UV) dist

fork: ## set the project's address and contact once: URL=https://github.com/you/iot-agent CONTACT=you@example.org
	@test -n "$(URL)" -a -n "$(CONTACT)" || { echo "make: say URL=… and CONTACT=…" >&2; exit 1; }
	@git grep -lF "$(PROJECT_URL)" | xargs sed -i 's|$(PROJECT_URL)|$(URL)|g'
	@git grep -lF "$(PROJECT_CONTACT)" | xargs sed -i 's|$(PROJECT_CONTACT)|$(CONTACT)|g'
	@git diff --stat
PROJECT_URL     = $(shell sed -n 's/^url = //p' setup.cfg)
PROJECT_CONTACT = $(shell sed -n 's/^maintainer_email = //p' setup.cfg)

# --- to see it work ---------------------------------------------------------------------------------------------------

demo: ## a device's whole life against a cloud on this machine; KEEP=1 keeps it running, KEYS=softhsm or KEYS=tpm puts its keys on a token
	@packaging/packages.sh env $(filter-out file,$(KEYS))
	@$(MAKE) env-agent env-local env-sam env-cloud
	@$(ENV)/cloud/bin/python cloud/local/demo.py $(if $(KEEP),--keep) $(if $(KEYS),--keys $(KEYS)) $(ARGS)

pictures: ## draw the pictures of README again; make demo >docs/demo.txt records a new run
	@python3 packaging/pictures.py

demo-stop: env-cloud ## stop what `make demo KEEP=1` left running
	@$(ENV)/cloud/bin/python cloud/local/demo.py --stop

bench: ## whole-process figures beside their rivals, into docs/benchmarks.md (three minutes)
	@packaging/packages.sh bench
	@$(MAKE) env-agent env-local env-sam env-cloud env-dev
	@$(BIN)/python -m tests.benchmarks $(ARGS)

local-up: env-local ## a local cloud in build/local until Ctrl-C, for cloud/setup.sh --local build/local
	@$(ENV)/local/bin/python -m cloud.local up --dir build/local

clean: ## remove build/, dist/ and what the tools cached
	rm -rf build dist .aws-sam .mypy_cache .ruff_cache .pytest_cache .hypothesis ./*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
