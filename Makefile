# The two commands of the README are `make demo` and `make test`. Each builds .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
DEMO_TASK := BabyAI-UnlockPickup-v0
LARGEST := 0:2,1:2,2:2
BUDGET := 2e6
SEEDS := 2
TESTS :=

.PHONY: demo report test study lint clean

demo: .venv/ready
	$(BIN)/python train_mop.py --task_id $(DEMO_TASK) --trial 0 --overwrite
	$(BIN)/python train.py --task_id $(DEMO_TASK) --trial 1 --overwrite
	$(BIN)/python batch_eval.py --task $(DEMO_TASK) --final_only
	$(BIN)/python batch_eval.py --task $(DEMO_TASK) --trial 0 --final_only --disable_experts $(LARGEST) --skip_routing
	$(BIN)/python routing_viz.py --checkpoint checkpoints/$(DEMO_TASK)/trial_0/checkpoint_final.pt
	$(BIN)/python cross_task_viz.py
	$(BIN)/python report.py

# everything that was evaluated, on one page that needs no network and no program but a browser
report: .venv/ready
	$(BIN)/python report.py

# As many tests side by side as there are processors, up to 8: each process needs half a gigabyte
test: .venv/ready
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal $(TESTS)

# BUDGET env-steps per run; interrupted, the same command goes on where it stopped
study: .venv/ready
	$(BIN)/python study.py levels --budget $(BUDGET) --seeds $(SEEDS)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --project pyproject.toml --pythonpath $(BIN)/python
	$(BIN)/marimo check --strict routing_viz.py cross_task_viz.py

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

clean:
	rm -rf .venv
