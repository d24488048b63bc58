# make try    install into .venv, fetch the default models, run a pipeline
# make test   the same, then the whole test suite
PYTHON ?= python3
BIN := .venv/bin

.PHONY: try test install models clean

try: models
	@echo '$$ embed < README.md > vectors.npy'
	@$(BIN)/embed < README.md > vectors.npy
	@echo '$$ head -1 README.md | embed --dims 4 --json'
	@head -1 README.md | $(BIN)/embed --dims 4 --json

test: models
	$(BIN)/python -m pytest

install: .venv/.installed

.venv/.installed: pyproject.toml setup.py $(wildcard toast/kernels/*/* toast/kernels/CMakeLists.txt)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[test]' --config-settings editable_mode=compat
	touch $@

models: install
	@printf 'ready' | $(BIN)/embed > /dev/null

clean:
	rm -rf .venv build dist *.egg-info
