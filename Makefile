# Everything a user or CI runs. `make demo` and `make test` set up what they need, from a bare machine with Python 3.11+.
SHELL := /bin/bash
EXTRA ?= cpu
UV := $(shell command -v uv || echo .tools/uv/bin/uv)
export UV_SYSTEM_CERTS ?= 1
export PYTHONDONTWRITEBYTECODE :=  # what is imported is compiled then, once; to compile all that is installed takes a minute
RUN := $(UV) run --no-sync
MODEL := var/models/SmolLM2-135M-Instruct
TEST_SECONDS ?= 1600
PROVE_SECONDS ?= 21600
FORBIDDEN := GPL-2.0;GPL-3.0;AGPL;GNU General Public;GNU Affero

.PHONY: demo test prove serve bench lint setup clean
.DEFAULT_GOAL := demo

demo: setup  ## JSONL -> LoRA -> ft: model -> Python and Java, before your eyes
	@$(RUN) python -m demo

test: setup $(MODEL)  ## unit and end-to-end tests on the real engine, and the Java tests: a quarter of an hour
	@$(RUN) python tests/bounded.py $(TEST_SECONDS) pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder

prove: setup $(MODEL)  ## the long proofs: hours; writes bench/results/proofs.json and docs/proofs.md
	@$(RUN) python tests/bounded.py $(PROVE_SECONDS) pytest tests/proofs

serve: setup $(MODEL)  ## the demo's base and adapters on http://127.0.0.1:8000/v1, without a key
	@$(RUN) tuneport serve --model $(MODEL) --data-dir var/demo --no-auth

bench: setup $(MODEL)  ## side by side with `vllm serve`, in one run; writes bench/results
	@$(RUN) python -m bench

lint: setup  ## ruff, pyright, import-linter, hadolint; known vulnerabilities and licences of what is installed
	@$(RUN) ruff check . && $(RUN) ruff format --check . && $(RUN) pyright && $(RUN) lint-imports && $(RUN) hadolint Dockerfile
	@mkdir -p var && $(UV) export --quiet --frozen --no-emit-project --extra $(EXTRA) --output-file var/requirements.txt
	@-$(UV) tool run pip-audit@2.10.1 --requirement var/requirements.txt --no-deps --disable-pip > var/audit.txt 2>&1
	@grep -E "^(No|Found .*) known vulnerabilit" var/audit.txt || echo "pip-audit got no answer, see var/audit.txt"
	@echo "Packages that the service of advisories does not know: $$(grep -c "could not be audited" var/audit.txt)"
	@! grep -A99 "^Found .* known vulnerabilit" var/audit.txt
	@$(UV) tool run pip-licenses@5.5.1 --python .venv/bin/python --from mixed --format markdown --no-version \
		--packages $$(sed -n 's/^\([a-z0-9._-]*\)==.*/\1/p' var/requirements.txt) \
		--fail-on "$(FORBIDDEN)" --partial-match --output-file docs/licences.md > /dev/null
	@git diff --exit-code docs/licences.md

setup: .venv/.synced-$(EXTRA)

.venv/.synced-$(EXTRA): uv.lock pyproject.toml | $(UV)
	@echo "Installing from uv.lock (6 GB; the first time takes a minute or more)"
	@$(UV) sync --quiet --locked --extra $(EXTRA) --group dev
	@rm -f .venv/.synced-* && touch $@

.tools/uv/bin/uv:
	@echo "Fetching uv"
	@python3 -m pip install --quiet --disable-pip-version-check --no-warn-script-location --root-user-action ignore --target .tools/uv "uv>=0.8"

$(MODEL): | setup
	@$(RUN) python -m demo.base var/models

clean:  ## remove what make made: models, data, environment
	rm -rf .venv .tools var
