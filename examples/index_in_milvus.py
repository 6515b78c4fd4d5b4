"""Encode a corpus in several processes, store it in Milvus, and mine where it lives.

In one process:    python examples/index_in_milvus.py --collection my-collection --out retrievers/large
In two on a CPU:   ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 --num_machines 1 \
                       --mixed_precision no --dynamo_backend no examples/index_in_milvus.py ...
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from datasets import Dataset
from sentence_transformers import SentenceTransformer

from rrra_hf import Retriever, load_collection, mine
from rrra_hf.data import Collection
from rrra_hf.embeddings import encode
from rrra_hf.retrieval.documents import document_table, document_texts
from rrra_hf.training.launch import check_launch
from rrra_hf.training.processes import joined_processes

OPTIONS = {
    "--collection": "python-docs",  # anything that load_collection takes, with labelled queries
    "--model": "sentence-transformers/all-MiniLM-L6-v2",  # an encoder: folder or Hub name
    "--uri": "documents.db",  # a file, or the address of a cluster; its token is read from MILVUS_TOKEN
    "--index-type": "AUTOINDEX",  # Milvus's name for an index of embeddings; FLAT is exact
    "--cache": Path("cache"),  # embeddings of a shard: a folder that all processes can see
    "--shard": 1_000_000,  # documents that are encoded and stored together
    "--depth": 150,  # mined candidates per query
    "--out": Path("retrievers/large"),  # retriever/, which has the model and the address, and pool/
}


def main(options: argparse.Namespace) -> None:
    """Encode and store shard by shard, save the retriever, and mine candidates of the training queries."""
    check_launch()  # refuses a launch that asked for several processes and got one
    collection = load_collection(options.collection)
    retriever = Retriever(SentenceTransformer(options.model))
    with joined_processes() as processes:
        for start in range(0, len(collection.corpus), options.shard):
            rows = range(start, min(start + options.shard, len(collection.corpus)))
            shard = collection.corpus.select(rows)
            # The processes divide the shard among themselves, and find the others' part in the cache.
            texts = document_texts(document_table(shard))
            encode(retriever.encoder, texts, task="document", cache_dir=options.cache)
            print(
                f"process {processes.index} of {processes.count} encoded {start:,} to {rows.stop:,}",
                flush=True,
            )
            processes.on_main(partial(store, retriever, shard, options))
        processes.on_main(partial(finish, retriever, collection, options))


def store(retriever: Retriever, shard: Dataset, options: argparse.Namespace) -> None:
    """Store documents whose embeddings are in the cache."""
    if retriever.has_index:
        retriever.add(shard, cache_dir=options.cache)
    else:
        place = {"uri": options.uri, "index_type": options.index_type}
        retriever.index(shard, options.cache, kind="milvus", **place)


def finish(retriever: Retriever, collection: Collection, options: argparse.Namespace) -> None:
    """Save the retriever, and mine candidates of the training queries in Milvus."""
    retriever.save_pretrained(options.out / "retriever")
    pool = mine(collection, depth=options.depth, index=retriever)
    pool.save(options.out / "pool")
    print(
        f"{len(retriever.corpus):,} documents in {options.uri}, candidates of {len(pool):,} queries in "
        f"{options.out / 'pool'}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for option, default in OPTIONS.items():
        parser.add_argument(option, type=type(default), default=default, help=f"default: {default}")
    main(parser.parse_args())
