# make try    install into .venv, fetch the default models, run a pipeline
# make test   the same, then lint and the whole test suite
# make test-all   the tests that take minutes, too
# make coverage   the test suite, and the lines that it does not reach
# make test-engines   the examples on Spark and Ray, in an environment of their own
# make lint   ruff, mypy and clang-format
# make bench  ours beside other programs, on a quiet machine: PEERS=DIR, which tests/bench/peers.sh fills
# make docs   the documents as a site, in build/site
# make clean-store   what the commands keep on the disk goes away: models, prompts, vocabularies
# make sanitize   the C++ under the address and undefined-behaviour sanitizers (minutes)
PYTHON ?= python3
BIN := .venv/bin
TESTS := -m pytest -n auto --dist loadfile --no-loadscope-reorder
CPP := $(wildcard toast/launcher/*.c toast/kernels/src/*.cpp toast/kernels/src/*.h toast/vocabulary/src/*.cpp toast/vocabulary/src/*.h tests/kernels_*.cpp tests/kernels_*.h)

# the tests run thousands of commands: half of each would be compiling its modules again
unexport PYTHONDONTWRITEBYTECODE

.PHONY: try test test-all test-engines bench docs lint coverage sanitize install models clean clean-store

try: models
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh tests/try.sh

test: lint models
	$(BIN)/python $(TESTS)

coverage: models
	$(BIN)/python -m coverage run $(TESTS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

test-all: test
	$(BIN)/python -m pytest -m long

test-engines:
	$(PYTHON) -m venv .venv-engines
	.venv-engines/bin/python -m pip install --quiet --editable '.[test,parquet]' pyspark 'ray[data]' pandas --config-settings editable_mode=compat
	.venv-engines/bin/python -m pytest tests/test_engines.py

bench: models
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python tests/bench/table.py $(if $(PEERS),--peers $(PEERS)) $(if $(GGUF),--gguf $(GGUF)) --json docs/bench.json --markdown docs/speed.md --svg docs/images/speed.svg
	$(BIN)/python tests/bench/session.py docs/images/session.svg

docs: install
	$(BIN)/python -m pip install --quiet --group docs
	$(BIN)/sphinx-build -q -W -b html docs build/site

lint: .venv/.linters
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy toast embed rerank
	$(BIN)/clang-format --dry-run -Werror $(CPP)

sanitize: install
	$(BIN)/python -m pytest -m sanitize

install: .venv/.installed

# in CI a failed build of the kernels or the launcher is an error, a missing compiler too
# --no-compile: of thousands of modules a few hundred are ever imported, which Python compiles then; ours are compiled
# at once, since the folder may be read-only later
.venv/.installed: pyproject.toml setup.py $(wildcard toast/launcher/* toast/kernels/src/* toast/kernels/CMakeLists.txt toast/vocabulary/src/* toast/vocabulary/CMakeLists.txt)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(if $(CI),TOAST_KERNELS=require TOAST_LAUNCHER=require )$(BIN)/python -m pip install --quiet --no-compile --editable '.[test]' --config-settings editable_mode=compat
	$(BIN)/python -m compileall -q toast embed rerank
	touch $@

.venv/.linters: .venv/.installed
	$(BIN)/python -m pip install --quiet --group lint
	touch $@

models: install
	@echo ready | $(BIN)/embed > /dev/null
	@echo ready | $(BIN)/toast -n 1 > /dev/null

clean:
	rm -rf .venv .venv-engines build dist *.egg-info

clean-store:
	rm -rf "$${TOAST_HOME:-$${XDG_CACHE_HOME:-$$HOME/.cache}/toast}"
