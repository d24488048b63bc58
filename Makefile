# make try    install into .venv, fetch the default models, run a pipeline
# make test   the same, then the whole test suite
# make sanitize   the kernels under the address and undefined-behaviour sanitizers (minutes)
PYTHON ?= python3
BIN := .venv/bin

.PHONY: try test sanitize install models clean

try: models
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh tests/try.sh

test: models
	$(BIN)/python -m pytest

sanitize: install
	$(BIN)/python -m pytest -m sanitize

install: .venv/.installed

.venv/.installed: pyproject.toml setup.py $(wildcard toast/kernels/*/* toast/kernels/CMakeLists.txt)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[test]' --config-settings editable_mode=compat
	touch $@

models: install
	@echo ready | $(BIN)/embed > /dev/null
	@echo ready | $(BIN)/toast -n 1 > /dev/null

clean:
	rm -rf .venv build dist *.egg-info
