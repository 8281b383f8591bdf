# Two commands: `make demo` and `make test`. Both need python3 (3.9 to 3.12) and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# pip packages that choose torch, e.g. TORCH="torch==2.8.0 torchvision==0.23.0"
TORCH ?= torch torchvision
FRAMES ?=

.PHONY: demo test test-slow lint doctor install clean

# The stamp is written last, so an interrupted installation is gone over again (pip keeps what is there). Its name
# depends on TORCH, so that other packages are installed when they are asked for.
STAMP := $(BIN)/.installed-$(shell printf '%s' '$(TORCH)' | cksum | cut -d' ' -f1)
$(STAMP): setup.py
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 9) <= v <= (3, 12) else "error: Python 3.9 to 3.12 is needed, $(PYTHON) is %d.%d; try: make PYTHON=python3.11" % v)'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel
	$(BIN)/python -m pip install --quiet $(TORCH)
	# Without build isolation basicsr finds the torch above instead of downloading a second one.
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[dev,raw,export]'
	rm -f $(BIN)/.installed-*
	touch $@

install: $(STAMP)

demo: $(STAMP)
	rm -rf experiments/demo results/demo tb_logger/demo
	$(BIN)/python scripts/demo/prepare.py $(if $(FRAMES),--frames "$(FRAMES)")
	$(BIN)/python -m jddb_plugin.train -opt options/train/demo.yml
	$(BIN)/python -m jddb_plugin.test -opt options/test/demo.yml
	$(BIN)/python scripts/demo/compare.py
	$(BIN)/python -m jddb_plugin.restore datasets/demo/test.lmdb -o results/demo/restored.png --report results/demo/report.html \
		--weights experiments/demo/models/net_g_latest.pth --noise 0.01,0.0316

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -m "not slow"

# Tests that take minutes: Slurm with all its troubles, nodes that come and go.
test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

doctor: $(STAMP)
	$(BIN)/python -m jddb_plugin.doctor

clean:
	rm -rf $(VENV) experiments/demo results/demo tb_logger/demo datasets/demo
