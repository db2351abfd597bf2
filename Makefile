# Two commands do all on a fresh machine with Python 3.11+, git and Node 20: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check bench proof lint types unit editors vsix clean

demo: $(READY)  ## the main job, on the built-in offline model
	$(BIN)/selfloop demo

test: $(READY) lint types  ## everything
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

check: $(READY) lint types unit  ## the quick part: lint, types, unit tests

bench: $(READY)  ## ratios against baselines of the same run; exits 1 where a target is missed
	cd tests && ../$(BIN)/python -m benchmarks

proof: $(READY)  ## kill -9 at every write and step, every self-edit before the judge, 200 swaps; takes hours
	SELFLOOP_TEST_LIVES=50 SELFLOOP_TEST_STRIDE=1 $(BIN)/pytest tests/e2e/test_crash.py -q --timeout 7200
	SELFLOOP_TEST_ALL=1 $(BIN)/pytest tests/evolution tests/selfevolution -q --timeout 7200
	SELFLOOP_TEST_ALL=1 SELFLOOP_TEST_SWAPS=200 $(BIN)/pytest tests/e2e/test_swap.py tests/e2e/test_bad_generations.py \
		tests/supervisor/test_supervisor_swaps.py -q --timeout 7200

editors: $(READY)  ## the real editors that some tests drive: VS Code in Chromium, Neovim, Emacs; by apt, npm and pip
	tests/vscode/install.sh

vsix: $(READY)  ## the VS Code extension with the server's wheel inside: dist/selfloop.vsix
	rm -rf vscode-client/server && mkdir -p dist
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir vscode-client/server .
	cd vscode-client && npm ci --no-audit --no-fund --loglevel=error && npm run build
	cd vscode-client && npx vsce package --no-dependencies --allow-missing-repository --no-rewrite-relative-links --out ../dist/selfloop.vsix

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/pyrefly check

unit: $(READY)
	$(BIN)/pytest -m unit -n 2 --dist loadfile

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(READY)

clean:
	rm -rf $(VENV) .editors .pytest_cache .ruff_cache dist
