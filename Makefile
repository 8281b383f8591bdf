# Two commands: `make demo` and `make test`. Both need python3 (3.9 to 3.14) and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO = $(if $(filter two_stage,$(NETWORK)),demo_two_stage,demo)
# pip packages that choose torch, e.g. TORCH="torch==2.8.0 torchvision==0.23.0"
TORCH ?= torch torchvision
FRAMES ?=
# What the demo trains: tiny (GatedUNet), or two_stage (the paper's network with 16 features).
NETWORK ?= tiny
# Arguments of pytest, e.g. TESTS="tests/ops -x"; processes that run the tests: one more than two cores, as some tests wait.
TESTS ?=
JOBS ?= 3
# Whole files go to the processes, in the order that tests/conftest.py gives them.
DIST := --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-slow test-all doctor install docs wheel clean

# The stamp is written last, so an interrupted installation is gone over again (pip keeps what is there). Its name
# depends on TORCH, so that other packages are installed when they are asked for.
STAMP := $(BIN)/.installed-$(shell printf '%s' '$(TORCH)' | cksum | cut -d' ' -f1)
$(STAMP): pyproject.toml jddb_plugin/install_toolbox.py
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 9) else "error: Python 3.9 or newer is needed, $(PYTHON) is %d.%d; try: make PYTHON=python3.11" % v)'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python jddb_plugin/install_toolbox.py --quiet
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	# What has no wheel for a Python is left out there; the doctor says so.
	for extra in raw export; do $(BIN)/python -m pip install --quiet --only-binary :all: --no-binary jddb-plugin --editable ".[$$extra]" \
		|| echo "left out on this Python: the packages of the extra '$$extra'"; done
	rm -f $(BIN)/.installed-*
	touch $@

install: $(STAMP)

demo: $(STAMP)
ifeq ($(filter $(NETWORK),tiny two_stage),)
	$(error NETWORK=$(NETWORK): expected tiny or two_stage)
endif
	rm -rf experiments/$(DEMO) results/$(DEMO) tb_logger/$(DEMO)
	$(BIN)/python scripts/demo/prepare.py --test options/test/$(DEMO).yml $(if $(FRAMES),--frames "$(FRAMES)") \
		$(if $(filter two_stage,$(NETWORK)),--clips)
	$(BIN)/jddb restore datasets/demo/test.lmdb -o results/$(DEMO)/shipped_weights.png --noise 0.01,0.0316
	@echo "A noisy burst, restored by the shipped weights: results/$(DEMO)/shipped_weights.png. Next: train a network of your own."
	# One thread: so small a network gains little by more, and loses much where the cores are busy.
	OMP_NUM_THREADS=1 OPENCV_FOR_THREADS_NUM=1 $(BIN)/jddb train -opt options/train/$(DEMO).yml
	$(BIN)/jddb test -opt options/test/$(DEMO).yml
	$(BIN)/python scripts/demo/compare.py --opt options/test/$(DEMO).yml --results results/$(DEMO)
	$(BIN)/jddb restore datasets/demo/test.lmdb -o results/$(DEMO)/restored.png --report results/$(DEMO)/report.html \
		--weights experiments/$(DEMO)/models/net_g_latest.pth --noise 0.01,0.0316

# All but the tests that are marked slow (exports to ONNX, benchmarks), which test-all runs, too.
test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n $(JOBS) $(DIST) -m "not slow" $(TESTS)

# Tests that take minutes: exports, benchmarks, Slurm with all its troubles, nodes that come and go.
test-slow: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) $(DIST) -m slow $(TESTS)

test-all: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n $(JOBS) $(DIST) $(TESTS)

doctor: $(STAMP)
	$(BIN)/jddb doctor

wheel: $(STAMP)
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) experiments/demo* results/demo* tb_logger/demo* datasets/demo
