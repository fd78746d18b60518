# Everything runs in the project's own virtual environment, made from requirements.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Hundreds of short processes of ours start: each module is compiled once, whatever the machine's default is.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test interop properties simulate mutants chaos bench-content bench-prediction bench-raft bench-runner bench-scheduler bench-idle bench-cached bench-memory bench-feed compare-suites check lock clean

demo: $(STAMP)
	@$(BIN)/python examples/demo.py

# Three at a time, a file each: many tests wait for real nodes.
test: check
	$(BIN)/python -m pytest -n 3 --dist loadfile

# With the reference tools (.ci/kubo, .ci/importer), and files of 1 GiB among the cases: minutes.
interop: $(STAMP)
	MESH_LONG=1 $(BIN)/python -m pytest --timeout=600 tests/interop

# Every property with MORE times the examples of `make test`, and fresh ones each time.
MORE ?= 20
properties: $(STAMP)
	MESH_PROPERTIES=$(MORE) $(BIN)/python -m pytest --timeout=0 $$(grep -rlE "^from hypothesis" --include="test_*.py" tests)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Real nodes in network namespaces, under faults (root, Linux). MINUTES or TRIALS; SEED, PLAN and NODES as a failure names
# them; SUITE=networkx.
chaos: $(STAMP)
	$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),10) $(foreach option,TRIALS SEED FAULTS NODES PLAN SUITE,\
		$(if $($(option)),--$(shell echo $(option) | tr A-Z a-z) $($(option))))

# Failover, commits and a state of a million verdicts (docs/consensus.md); QUICK=1 for a short look.
bench-raft: $(STAMP) $(VENV)/benchmarks/.installed
	@$(BIN)/python -m benchmarks.raft --peer-python $(VENV)/benchmarks/bin/python $(if $(QUICK),--quick) \
		$(if $(KILLS),--kills $(KILLS)) $(if $(IDLE_MINUTES),--idle-minutes $(IDLE_MINUTES)) \
		$(if $(LOADED_MINUTES),--loaded-minutes $(LOADED_MINUTES)) $(if $(ONLY),--only $(ONLY))

# Content beside Kubo and plain HTTP (docs/content.md); QUICK=1: one short round; ONLY: files, large, tree or many.
bench-content: $(STAMP)
	@$(BIN)/python -m benchmarks.content $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

# How long slots stand idle in a run on three nodes of this host.
bench-idle: $(STAMP)
	@$(BIN)/python -m benchmarks.idle

# The scheduler alone, a day of a million tests among it: about ten minutes. For less: DAY="--tests 100000 --nodes 100".
bench-scheduler: $(STAMP)
	@$(BIN)/python -m benchmarks.scheduler $(DAY)

# How well durations are predicted, on recorded histories: seconds. FILES: others than those in benchmarks/histories.
bench-prediction: $(STAMP)
	@$(BIN)/python -m benchmarks.prediction $(FILES)

$(VENV)/benchmarks/.installed: benchmarks/requirements.txt $(STAMP)
	$(PYTHON) -m venv $(VENV)/benchmarks
	$(VENV)/benchmarks/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# Suites on two slots, serial, xdist and ours, interleaved (docs/running.md). SUITES="trivial click"; QUICK=1: one round.
RUNNER_BENCH := $(VENV)/bench-runner
bench-runner: $(RUNNER_BENCH)/.installed
	@$(RUNNER_BENCH)/bin/python -m benchmarks.runner --cache $(RUNNER_BENCH)/suites $(if $(QUICK),--quick) \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(SUITES)

# networkx's suite with --cached, unchanged and after edits (docs/content.md): some minutes. SUITE=click.
bench-cached: $(STAMP)
	@$(BIN)/python -m benchmarks.cached --cache $(RUNNER_BENCH)/suites $(if $(SUITE),--suite $(SUITE))

# What ten listeners to the feed of events cost a node in a busy run, and how late an event is: a minute.
bench-feed: $(STAMP)
	@$(BIN)/python -m benchmarks.feed

# What a run of 100,000 tests adds to the memory of the node that coordinates it: two minutes.
bench-memory: $(STAMP)
	@$(BIN)/python -m benchmarks.memory

# The same suites, and trio's own, by `pytest --mesh` and by serial pytest, test by test. SUITES="click trio".
compare-suites: $(RUNNER_BENCH)/.installed
	@$(RUNNER_BENCH)/bin/python -m benchmarks.outcomes --cache $(RUNNER_BENCH)/suites $(SUITES)

# It sees the project's environment, and adds to it: every way of running has the same interpreter, pytest and plugins.
$(RUNNER_BENCH)/.installed: benchmarks/runner-requirements.txt $(STAMP)
	$(PYTHON) -m venv $(RUNNER_BENCH)
	@echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
		> $$($(RUNNER_BENCH)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth
	$(RUNNER_BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# Simulated lives. SEEDS: 17 (that one, told in full), 0-9999, +500 (fresh ones). RIG: core, storms, mesh (real services).
SEEDS ?= +200
RIG ?= core
simulate: $(STAMP)
	@$(BIN)/python -m tests.simulation.simulate $(SEEDS) --rig $(RIG)

# One fence at a time is taken out, and some seed or test must notice. MUTANTS: names with commas, or all.
mutants: $(STAMP)
	@$(BIN)/python -m tests.simulation.mutants "$(MUTANTS)"

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	rm -rf $(VENV)/lib/python*/site-packages/trio-stubs # of trio-typing, which libp2p needs: old, and they hide trio's types
	@touch $@

# No index address is written into the lock.
lock: $(STAMP)
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --custom-compile-command "make lock" --output-file requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis
