# The few commands that a person types. Every target does its own set-up, and may be run first or again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUST := Cargo.toml Cargo.lock $(shell find rust -name '*.rs' -o -name Cargo.toml -path 'rust/*')
MATRIX := 3.10 3.11 3.12 3.13
# They pass where torch is absent.
WITHOUT_TORCH := tests/test_partition.py tests/test_dlpack_without_torch.py tests/test_model_config.py \
	tests/test_recorded_answers.py tests/cli/test_show.py tests/cli/test_numbers.py tests/spec/test_checks_reject.py tests/spec/test_document.py

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-peers coverage lint bench exhaustive chapters engines determinism prove evidence \
	fuzz fuzz-planted mutants wheel wheel-matrix sdist leaks clean peers-named

help: ## List the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-14s %s\n", $$1, $$2}'

# torch is gigabytes, so the environment is made once and again only when its requirements change.
$(VENV)/.requirements: pyproject.toml spec/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet "maturin>=1.9.4,<2" "torch>=2.4" --group test --group lint --group bench
	$(BIN)/python -m pip install --quiet --editable "spec[proofs]"
	touch $@

$(VENV)/.package: $(VENV)/.requirements $(RUST)
	env -u CONDA_PREFIX VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --locked --extras torch,cli,plot,yaml --quiet > /dev/null
	touch $@

setup: $(VENV)/.package ## Make the environment and build the package into it

demo: setup ## The main job on real input: tables, tensors and demo.png
	$(BIN)/python examples/demo.py

test: setup ## Pass the tests: crate, package, specification
	cargo test -p expert-placement --locked --quiet
	cargo run -p expert-placement --profile test --locked --quiet --example split_batch
	cargo test --manifest-path rust/fuzz/Cargo.toml --target-dir target/fuzz --locked --quiet
	$(BIN)/python -m pytest --benchmark-disable --numprocesses auto --maxprocesses 8 --dist worksteal

peers-named:
	@test -f "$(PEERS)/load.py" || { \
		echo "PEERS names no folder with a load.py: make test-peers PEERS=folder, as CONTRIBUTING.md says"; exit 1; }

# Where the engines' sources are absent, loading fails, and the tests would be skipped.
test-peers: peers-named setup ## Compare with the engines' own functions: PEERS=folder, as CONTRIBUTING.md says
	$(BIN)/python -W ignore "$(PEERS)/load.py"
	PEERS="$(abspath $(PEERS))" $(BIN)/python -m pytest --benchmark-disable \
		tests/integrations tests/test_rebalance.py tests/bench

# The tests run in a copy under target/coverage, with a build that counts, and take some two or three times as long.
coverage: setup ## Say which lines the tests reach, in Rust and Python; fail where one is unexplained
	$(BIN)/python -m tests.coverage

# The compiled core checks itself natively, by the invariants of the same names; through Python `make test` checks it.
exhaustive: setup ## Check every invariant up to 1024 experts and ranks, pairs and maps up to 256; some ten minutes
	cargo test --locked --quiet -p expert-placement --lib -- --ignored
	$(BIN)/expert-placement check --implementation expert_placement_spec.reference:Partition \
		--experts 0..=1024 --ranks 1..=1024 --wide 256 --alone 64 --samples 0 --require all
	$(BIN)/expert-placement check --implementation expert_placement.conformance:TorchPartition \
		--experts 0..=1024 --ranks 1..=1024 --wide 256 --alone 64 --samples 0 \
		--require tables --require offsets --require maps

chapters: setup ## Check placements, plans, migrations and routing by their chapters, over small domains; some three minutes
	for chapter in placement balance migration; do \
		$(BIN)/expert-placement check --chapter $$chapter --implementation expert_placement --domain quick \
			--require all || exit 1; done
	$(BIN)/expert-placement check --chapter routing --implementation expert_placement.conformance:RustRouting \
		--implementation expert_placement.conformance:TorchRouting --domain quick --require all

# The wheels of the engines are some hundred megabytes, and are downloaded once.
engines: setup ## Check the engines' own functions, and compare with docs/engines.json; some minutes
	$(BIN)/expert-placement-spec engines --sources target/engines --fetch
	PEERS_DIR="$(CURDIR)/target/engines" $(BIN)/python -m pytest --benchmark-disable tests/spec/test_engines.py

RECORDED := rust/expert-placement/tests/it/recorded/answers.txt
ANSWERS := cargo build --quiet --locked -p expert-placement --example recorded_answers
SCALAR := -C no-vectorize-loops -C no-vectorize-slp -C target-feature=-sse3,-ssse3,-sse4.1,-sse4.2,-avx,-avx2,-fma

# Four builds: for debugging, for any CPU, for this one, and with neither vectors nor instructions made for hashing.
determinism: ## Compare builds for debugging, for any CPU, for this one and without SIMD, on 1 and 2 threads, with the record
	$(ANSWERS)
	$(ANSWERS) --release
	RUSTFLAGS="-C target-cpu=native" $(ANSWERS) --release --target-dir target/native
	RUSTFLAGS="$(SCALAR)" $(ANSWERS) --release --features sha2/force-soft --target-dir target/scalar
	@for build in target/debug target/release target/native/release target/scalar/release; do \
		for threads in 1 2; do \
			$$build/examples/recorded_answers $$threads > target/answers.txt || exit 1; \
			cmp target/answers.txt $(RECORDED) || exit 1; \
			echo "$$build, $$threads threads: the $$(wc -l < target/answers.txt) answers that are recorded"; \
		done; \
	done

# A target's cases are made of bytes by the same functions that `make test` calls on the corpus in rust/fuzz.
fuzz: setup ## Run each fuzz target of the crate for SECONDS, 60 without other word
	$(BIN)/python tests/fuzz.py --seconds $(or $(SECONDS),60)

fuzz-planted: setup ## Plant a rare bug in what each fuzz target looks at, and see that it is found within SECONDS
	$(BIN)/python tests/fuzz.py --planted --seconds $(or $(SECONDS),60)

# Everything takes many hours; what is through is kept.
mutants: setup ## Test mutants of the files that changed since they were, FILES='rust/*/report.rs' or those named; hours
	$(BIN)/python -m tests.mutation $(FILES)

EVIDENCE := target/evidence
PROOFS := --proofs $(EVIDENCE)/proofs.json --coq $(EVIDENCE)/coq.json

# What was proved has to be what the record says, and the record what SPEC.md says.
prove: setup ## Prove the invariants with z3, CrossHair and Coq, and compare with the record of spec/evidence.json
	mkdir -p $(EVIDENCE)
	$(BIN)/expert-placement-spec prove --record $(EVIDENCE)/proofs.json
	$(BIN)/python spec/proofs/run.py --json $(EVIDENCE)/coq.json
	$(BIN)/expert-placement-spec evidence $(PROOFS)

evidence: setup ## Prove and check anew, and write spec/evidence.json and what SPEC.md says of it; some ten minutes
	mkdir -p $(EVIDENCE)
	$(BIN)/expert-placement-spec prove --record $(EVIDENCE)/proofs.json
	$(BIN)/python spec/proofs/run.py --json $(EVIDENCE)/coq.json
	$(BIN)/expert-placement-spec check --implementation expert_placement_spec.reference:Partition \
		--implementation expert_placement:Partition --implementation expert_placement.conformance:TorchPartition \
		--json > $(EVIDENCE)/partition.json
	for chapter in placement balance migration; do \
		$(BIN)/expert-placement-spec check --chapter $$chapter --implementation expert_placement_spec.model \
			--implementation expert_placement --domain quick --json > $(EVIDENCE)/$$chapter.json || exit 1; done
	$(BIN)/expert-placement-spec check --chapter routing --implementation expert_placement_spec.model \
		--implementation expert_placement.conformance:RustRouting \
		--implementation expert_placement.conformance:TorchRouting --domain quick --json > $(EVIDENCE)/routing.json
	$(BIN)/expert-placement-spec evidence --write $(PROOFS) --check $(EVIDENCE)/partition.json \
		--check $(EVIDENCE)/placement.json --check $(EVIDENCE)/balance.json --check $(EVIDENCE)/migration.json \
		--check $(EVIDENCE)/routing.json

lint: setup ## Formatters, linters, types, stubs, and the source distribution's content
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
	cargo clippy -p expert-placement --no-default-features --locked --quiet -- -D warnings
	cargo fmt --manifest-path rust/fuzz/Cargo.toml --check
	cargo clippy --manifest-path rust/fuzz/Cargo.toml --target-dir target/fuzz --all-targets --locked --quiet -- -D warnings
	cargo check -p expert-placement --all-targets --no-default-features --locked --quiet
	cargo check -p expert-placement --all-targets --no-default-features --features alloc --locked --quiet
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked --quiet -p expert-placement
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest expert_placement._core
	$(BIN)/python tests/sdist_content.py

bench: setup ## Measure against the baselines, as ratios in one run
	$(BIN)/python -m pytest tests/bench --benchmark-only --benchmark-disable-gc
	$(BIN)/python -m tests.bench.report
	$(BIN)/python -m tests.bench.planners
	cargo bench --locked -p expert-placement

wheel: setup ## Build the wheel into dist/
	rm -rf dist/*.whl
	$(BIN)/maturin build --release --locked --out dist

wheel-matrix: wheel ## Run the tests that need no torch on every CPython of this machine, with the one wheel
	@tested=""; for version in $(MATRIX); do \
		python=""; \
		for candidate in "python$$version" "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version.*/bin/python; do \
			if "$$candidate" -c "" 2>/dev/null; then python="$$candidate"; break; fi; \
		done; \
		if [ -z "$$python" ]; then echo "CPython $$version: not on this machine"; continue; fi; \
		echo "CPython $$version:"; \
		environment="target/venv-$$version"; \
		"$$python" -m venv --clear "$$environment" && \
		"$$environment/bin/python" -m pip install --quiet pytest hypothesis ./spec "$$(ls dist/*.whl)[cli]" && \
		"$$environment/bin/expert-placement-spec" vectors check && \
		"$$environment/bin/python" -m pytest -q -p no:cacheprovider $(WITHOUT_TORCH) || exit 1; \
		tested="$$tested $$version"; \
	done; \
	if [ -z "$$tested" ]; then echo "tested on no CPython: none of $(MATRIX) is on this machine"; exit 1; fi; \
	echo "tested on CPython:$$tested"

sdist: setup ## Build the source distribution into dist/, and a wheel from it in an empty folder
	rm -rf dist/*.tar.gz
	$(BIN)/maturin sdist --out dist
	folder=$$(mktemp -d) && $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir "$$folder" dist/*.tar.gz && ls "$$folder"

leaks: setup ## Count the memory that is lost under valgrind (needs valgrind; some minutes)
	$(BIN)/python tests/leaks.py

clean: ## Remove everything that was built
	rm -rf target dist $(VENV) demo.png
