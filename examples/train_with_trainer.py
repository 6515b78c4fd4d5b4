"""Train a retriever with mined hard negatives, but for the false ones, in a plain SentenceTransformerTrainer.

In one process (minutes on a CPU):    python examples/train_with_trainer.py --out runs/trainer
The same script in several:           bash examples/train_accelerate.sh cpu --out runs/trainer
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers import SentenceTransformerTrainingArguments as TrainingArguments
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from transformers import set_seed

from rrra_hf import CandidatePool, RRRALoss, RRRAModel, load_collection, mine
from rrra_hf.data import Collection
from rrra_hf.data.python_docs import python_docs
from rrra_hf.training import Resampler
from rrra_hf.training.launch import check_launch

OPTIONS = {
    "--model": "sentence-transformers/all-MiniLM-L6-v2",  # an encoder: folder or Hub name
    "--collection": "python-docs",  # anything that load_collection takes, with the splits train and test
    "--documents": 1500,  # approximate number of documents of python-docs
    "--out": Path("runs/trainer"),  # a folder that all processes can see
    "--max-steps": 20,
    "--batch-size": 12,  # queries per step and process
    "--num-negatives": 2,  # hard negatives per query
    "--depth": 50,  # mined candidates per query
    "--max-length": 64,  # tokens per text
    "--learning-rate": 1e-4,
    "--report-to": "none",  # tensorboard, wandb, ...; its package must be installed
    "--seed": 0,
}


def main(options: argparse.Namespace) -> None:
    """Mine candidates with their probabilities, train, evaluate and save."""
    check_launch()  # refuses a launch that asked for several processes and got one
    set_seed(options.seed)  # LoRA starts from random weights
    model = RRRAModel.from_encoder(options.model, lora=True, max_seq_length=options.max_length)
    model.adapter.requires_grad_(False)  # not trained here; fit it afterwards with fit_model
    encoder = model.to_sentence_transformer()
    # Without this, accelerate takes the Normalize module for a layer norm under FSDP, and fails.
    encoder.base_model_prefix = "0"  # type: ignore[assignment]
    settings = TrainingArguments(
        output_dir=str(options.out / "checkpoints"),
        max_steps=options.max_steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup_steps=0.1,
        batch_sampler="no_duplicates",
        save_strategy="no",
        report_to=options.report_to,
        seed=options.seed,
        ddp_timeout=24 * 3600,  # seconds that the other processes wait for the first one to mine
    )
    print(f"process {settings.process_index + 1} of {settings.world_size} on {settings.device}", flush=True)
    is_main = settings.process_index == 0

    # The first process mines. The others wait, then read what it wrote.
    with settings.main_process_first(local=False, desc="mining"):
        if options.collection == "python-docs":
            collection = python_docs(limit=options.documents, cache_dir=options.out / "collection")
        else:
            collection = load_collection(options.collection)
        training, test = collection.split("train"), collection.split("test")
        if is_main:
            # By embeddings and words, with the probabilities of the adapter that comes trained.
            pool = mine(collection, encoder.to(settings.device), options.depth)
            pool.save(options.out / "pool")
            print(f"nDCG@10 before: {ndcg(encoder, test):.3f}", flush=True)

    # The dataset has the columns query, positive, negative_1, ... and `labels`, their rows in the pool. New
    # negatives are drawn in every epoch, from candidates that aren't suspected of being relevant.
    pool = CandidatePool.load(options.out / "pool")
    resampler = Resampler(
        training, pool, num_negatives=options.num_negatives, labels="rows", seed=options.seed
    )
    trainer = SentenceTransformerTrainer(
        model=encoder,
        args=settings,
        train_dataset=resampler.dataset,
        loss=RRRALoss(encoder, pool=pool, gather_across_devices=settings.world_size > 1),
        callbacks=[resampler],
    )
    trainer.train()

    # All processes must call this: under FSDP it gathers the weights in the first one.
    weights = trainer.accelerator.get_state_dict(trainer.model)
    if is_main:
        weights = {name.removeprefix("0.model."): weight for name, weight in weights.items()}
        model.save_pretrained(options.out / "model", state_dict=weights)
        trained = SentenceTransformer(str(options.out / "model"))
        print(f"nDCG@10 after:  {ndcg(trained, test):.3f}, saved in {options.out / 'model'}")


def ndcg(encoder: SentenceTransformer, collection: Collection) -> float:
    """Return nDCG@10 of a split, measured by sentence-transformers' evaluator."""
    evaluator = InformationRetrievalEvaluator(
        queries=dict(zip(collection.query_ids, collection.query_texts, strict=True)),
        corpus=dict(zip(collection.document_ids, collection.document_texts, strict=True)),
        relevant_docs={
            query: {document for document, grade in grades.items() if grade > 0}
            for query, grades in collection.qrels.items()
        },
        write_csv=False,
    )
    return evaluator(encoder)["cosine_ndcg@10"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for option, default in OPTIONS.items():
        parser.add_argument(option, type=type(default), default=default, help=f"default: {default}")
    main(parser.parse_args())
