# make demo: a real run in the terminal, no key needed.   make test: all checks.
# make bench: what a run costs beside the model, next to two references; some minutes.
# All set up what they need in $(VENV), and again only when pyproject.toml has changed.

PYTHON ?= $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo python3)
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip -qq --disable-pip-version-check
ARGS ?=

.PHONY: demo test bench extension site dist clean

demo: $(VENV)/installed
	@PATH="$(abspath $(VENV))/bin:$$PATH" jupyter rlm demo $(ARGS)

test: $(VENV)/installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	PATH="$(abspath $(VENV))/bin:$$PATH" $(VENV)/bin/python -m pytest -n 2 $(ARGS)

bench: $(VENV)/installed
	@PATH="$(abspath $(VENV))/bin:$$PATH" jupyter rlm bench overhead $(ARGS)

# Needs Node 20 or newer. The wheel that `make dist` builds has the extension if this was done before.
extension: $(VENV)/installed-test
	cd extension && npm ci && PATH="$(abspath $(VENV))/bin:$$PATH" npm run build

# The in-browser demo, in build/site.
site: extension
	$(VENV)/bin/python jupyterlite_site/build.py $(ARGS)

dist: $(VENV)/installed-test
	rm -rf dist
	$(VENV)/bin/python -m build --no-isolation --outdir dist . >/dev/null
	@ls dist

# The stamps come last in their recipes, so that a failed set-up is done again.
$(VENV)/created:
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/installed: pyproject.toml $(VENV)/created
	$(PIP) install --editable .
	@touch $@

$(VENV)/installed-test: pyproject.toml $(VENV)/installed
	$(PIP) install --editable '.[test]'
	@touch $@

clean:
	rm -rf extension/lib extension/labextension extension/node_modules
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
