# On a fresh machine, `make demo` and `make test` are enough. Each creates .venv if it doesn't exist.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TEST_WITH := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
PYTEST := -m pytest -n 2 --dist worksteal
# uv installs in seconds what takes pip minutes. Like pip, it takes the best version that any index has.
UV := set -a; . $(VENV)/.uv; $(BIN)/uv pip install --quiet --index-strategy unsafe-best-match
INSTALL := $(UV) --python $(BIN)/python --constraint constraints.txt
# uv leaves it to the first import to write bytecode. Without it, each process compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# Collections of the benchmark (BEIR folders in DATA) and the methods compared on them.
DATA ?= data
BENCHMARK ?= nl2bash worldtree-open scifact
METHODS ?= encoder,bm25,rrf,mix,pretrained,query-map,two-sided-map,residual,features,features-as-labelled,prf
COMPARE_TO = OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/rrra compare --out results
COMPARE = $(COMPARE_TO)/benchmark --max-length 256 --methods $(METHODS)

# Tests that run with the lowest versions that pyproject.toml allows: of the rooms that call much of them. torch is
# the exception: it has the version of constraints.txt, because PyPI has no older builds for CPUs only.
LOWEST := .venv-lowest
LOWEST_TESTS := $(addprefix tests/,cli/test_cli.py fitting/test_fit_model.py indexes losses models retrieval)

.PHONY: demo test fast check lowest build docs figures benchmark pretrained detection training cards clean

demo: $(VENV)/.demo
	$(BIN)/rrra demo

test: $(VENV)/.dev $(VENV)/.browser
	$(TEST_WITH) $(BIN)/python $(PYTEST) --durations 25

fast: $(VENV)/.dev $(VENV)/.browser
	$(TEST_WITH) $(BIN)/python $(PYTEST) -m "not slow"

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Wheel and sdist in dist/.
build: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Pictures, and the figures that texts quote from docs/results.md, docs/detection.md and docs/zero-shot.md.
figures: $(VENV)/.dev
	$(BIN)/python docs/pictures.py
	$(BIN)/python docs/figures.py

lowest: $(LOWEST)/.made
	cat $(LOWEST)/constraints.txt
	$(TEST_WITH) $(LOWEST)/bin/python $(PYTEST) -q -m "not slow" $(LOWEST_TESTS)

# docs/results.md: systems on the frozen encoder. Two processes run one collection and seed at a time. The last
# command finds all cells finished and writes the tables.
benchmark: $(VENV)/.dev
	for seed in 0 1 2; do for name in $(BENCHMARK); do echo $$seed $(DATA)/$$name; done; done | \
	xargs -P 2 -n 2 sh -c '$(COMPARE) "$$1" --seeds 1 --seed "$$0" > /dev/null'
	$(COMPARE) $(addprefix $(DATA)/,$(BENCHMARK)) --seeds 3 --markdown docs/results.md

# The adapter that comes with the package, and docs/zero-shot.md: how it does on collections that didn't teach it.
pretrained: $(VENV)/.dev
	$(INSTALL) --no-deps wordllama
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/pretrain.py --data $(DATA) \
	--save src/rrra_hf/models/pretrained --out results/zero-shot --markdown docs/zero-shot.md

# docs/detection.md: detection of false negatives, with one label per query, on collections that didn't teach the
# trained adapter. Takes half an hour.
detection: $(VENV)/.dev
	$(COMPARE_TO)/detection $(DATA)/climatefever $(DATA)/covidfact --max-length 128 --detect --seeds 3 \
		--markdown docs/detection.md

# docs/training.md: strategies of choosing negatives, with one label per query. Cells are kept in
# benchmarks/training_cells, and what is missing is run: four to forty minutes for each strategy, collection and
# seed. OPTIONS=--float32 is for CPUs that are slow in bfloat16, and OPTIONS=--finished writes the page of the cells
# that there are. The first command measures what the strategies cost.
SEEDS ?= 0 1 2
MODES ?= full lora
TRAINING = OMP_NUM_THREADS=1 $(BIN)/python benchmarks/training.py --data $(DATA) $(OPTIONS)
training: $(VENV)/.dev
	$(TRAINING) --float32 --collections healthver --steps 20 --kept benchmarks/training_cells/costs
	$(TRAINING) --seeds $(SEEDS) --train $(MODES) \
	--markdown docs/training.md --picture docs/pictures/training_gains.svg

# Cards of the reference models, in model_cards/.
REFERENCE = all-MiniLM-L6-v2-rrra
FITTED = results/models/$(REFERENCE)
CACHE = --cache-dir results/models/embeddings
cards: $(addprefix card-,$(BENCHMARK))
card-%: $(VENV)/.dev
	$(BIN)/rrra fit $(DATA)/$* --out $(FITTED)-$* --max-length 256 $(CACHE)
	$(BIN)/rrra card $(FITTED)-$* $(DATA)/$* $(CACHE)
	mkdir -p model_cards/$(REFERENCE)-$*
	cp $(FITTED)-$*/README.md $(FITTED)-$*/reliability.png model_cards/$(REFERENCE)-$*/

# The environment with uv, and where pip is configured to find packages, for uv.
$(VENV)/.uv:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/python -m pip config list | LC_ALL=C sort -r | sed -n -e "s/='\\\\n/='/" -e 's/\\n/ /g' \
	-e 's/^.*\.cert=/SSL_CERT_FILE=/p' -e 's/^.*\.index-url=/UV_DEFAULT_INDEX=/p' \
	-e 's/^.*\.extra-index-url=/UV_EXTRA_INDEX_URL=/p' \
	-e '/\.find-links=/ { s/^[^=]*=/UV_FIND_LINKS=/; y/ /,/; p }' > $@

$(VENV)/.demo: $(VENV)/.uv pyproject.toml constraints.txt
	$(INSTALL) --editable ".[demo]"
	touch $@

$(VENV)/.dev: $(VENV)/.uv pyproject.toml constraints.txt
	$(INSTALL) --editable ".[dev]"
	touch $@

# After the other environment, because both installations write into src/.
$(LOWEST)/.made: pyproject.toml constraints.txt | $(VENV)/.dev
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	sed -n 's/^    "\([a-z0-9-]*\)>=\([0-9.]*\)",$$/\1==\2/p' pyproject.toml | grep -v '^torch=' > $(LOWEST)/constraints.txt
	grep '^torch==' constraints.txt >> $(LOWEST)/constraints.txt
	$(UV) --python $(LOWEST)/bin/python --constraint $(LOWEST)/constraints.txt --editable ".[compare,demo,serve]" \
	hypothesis psutil pytest pytest-xdist
	touch $@

# A test opens the page of `rrra app` in Chromium. It is skipped if Chromium can't be installed.
$(VENV)/.browser: $(VENV)/.dev
	command -v chromium chromedriver || \
	(apt-get update && apt-get install -y --no-install-recommends chromium chromium-driver) || true
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) build dist
