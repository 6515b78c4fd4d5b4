"""Names of the files and folders of a saved model, adapter or retriever."""

from __future__ import annotations

MODULES_NAME = "modules.json"
ROUTER_NAME = "router_config.json"
ADAPTER_FOLDER = "adapter"
INDEX_FOLDER = "index"
INDEX_META_NAME = "meta.json"
# Folder in that of the index.
WORDS_FOLDER = "words"
CARD_NAME = "README.md"
PLOT_NAME = "reliability.png"
EVALUATION_NAME = "evaluation.json"
# Folder of evaluation results in the Hub's own format.
RESULTS_FOLDER = ".eval_results"
