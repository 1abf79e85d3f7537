# The first Python that is new enough; name another one with `make demo PYTHON=...`
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && exit; done; echo python3)
DEMO_ARGS ?=
# where the environment is; another place with `make test VENV=/a/new/folder`
VENV ?= .venv
override VENV := $(or $(VENV:~/%=$(HOME)/%),.venv)
BIN := $(VENV)/bin
# two workers with one thread each; no progress bars in logs
# compiled code is kept: the tests load the library with its types checked, which takes seconds to compile
QUIET := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 FSIC_PROGRESS=0 MPLBACKEND=Agg

.PHONY: help demo test cover lowest audit lab export notebooks docs clean python
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo "  With VENV=/a/new/folder the environment is made there; one that was not made here is left as it is."

python:
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) here: install Python 3.11 or newer, or name it: make demo PYTHON=/path/to/python3.11"; exit 1; }

demo: python ## learn, score unseen labels, show the places used; DEMO_ARGS="--quick" takes a minute
	@$(PYTHON) tools/setup_env.py demo "$(VENV)"
	"$(BIN)/fsic_demo" $(DEMO_ARGS)

# the tests run every notebook, on the exported library (tests/test_notebooks.py); nbdev_test runs some as they stand
test: python ## clean and exported notebooks, then pytest, which runs every notebook
	@$(PYTHON) tools/setup_env.py dev "$(VENV)"
	"$(BIN)/python" tools/notebooks.py check
	$(QUIET) "$(BIN)/nbdev_test" --n_workers 2 --file_re '^(00|08)'
	$(QUIET) "$(BIN)/python" -m pytest -n 2 --dist worksteal --timeout 900

cover: python ## the tests with the lines of the library that none of them runs, commands and other processes included
	@$(PYTHON) tools/setup_env.py dev "$(VENV)"
	rm -f .coverage .coverage.*
	-$(QUIET) "$(BIN)/coverage" run -p -m pytest -q --timeout 1800 $(TESTS)
	"$(BIN)/coverage" combine -q
	"$(BIN)/coverage" report --skip-covered -m

# what needs neither the notebooks' tools nor a network beyond the index
CORE := $(addprefix tests/test_,$(addsuffix .py,annotations baselines beds cache configs core data episodes evaluate features field lcm metrics model named names own partial prepare probes protocols readers refine runs scenes support tables tagger words))
lowest: python ## tests with the lowest versions that settings.ini allows, in VENV-lowest
	@mkdir -p build
	@$(PYTHON) tools/lowest.py demo tag train > build/lowest.txt
	@PIP_CONSTRAINT="$(CURDIR)/build/lowest.txt" $(PYTHON) tools/setup_env.py test,demo,tag,train "$(VENV)-lowest"
	$(QUIET) "$(VENV)-lowest/bin/python" -m pytest -n 2 --dist worksteal --timeout 900 $(wildcard $(CORE))

audit: python ## known vulnerabilities of the installed packages (error 3: no advisory service can be reached)
	@$(PYTHON) tools/setup_env.py dev "$(VENV)"
	@"$(BIN)/python" tools/audit.py

lab: python ## JupyterLab on the notebooks
	@$(PYTHON) tools/setup_env.py dev "$(VENV)"
	"$(BIN)/jupyter" lab --notebook-dir nbs

export: python ## write the library from the notebooks
	@$(PYTHON) tools/setup_env.py dev "$(VENV)"
	"$(BIN)/nbdev_clean"
	"$(BIN)/nbdev_export"

notebooks: export ## run every notebook, save the outputs, write README.md
	"$(BIN)/python" tools/notebooks.py run
	"$(BIN)/python" tools/notebooks.py readme

docs: python ## the documentation site in _site/html, from the saved outputs, without a network
	@$(PYTHON) tools/setup_env.py dev "$(VENV)"
	"$(BIN)/python" tools/build_docs.py

clean: python ## remove .venv if it was made here, builds and the caches of tools; your results and fsic_nb's own caches stay
	@$(PYTHON) tools/setup_env.py clean "$(VENV)"
	@$(PYTHON) tools/setup_env.py clean "$(VENV)-lowest"
	rm -rf build dist _site _docs _proc .coverage .coverage.* *.egg-info .pytest_cache .hypothesis __pycache__ .ipynb_checkpoints
	find fsic_nb nbs tests tools -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -exec rm -rf {} +
	@echo "Kept: scenes, features and weights in $${FSIC_HOME:-fsic_nb in your cache folder (or where FSIC_HOME pointed)}; delete that folder yourself to have them made again."
