"""Train a retriever with mined, weighted hard negatives in a plain SentenceTransformerTrainer.

One process, minutes on a CPU:   python examples/train_with_trainer.py --out runs/trainer
Several, the very same script:   bash examples/train_accelerate.sh cpu --out runs/trainer
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers import SentenceTransformerTrainingArguments as TrainingArguments
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from transformers import set_seed

from rrra_hf import CandidatePool, FitArguments, RRRALoss, RRRAModel, cross_fit, load_collection
from rrra_hf.candidates import mine_collection
from rrra_hf.data import Collection
from rrra_hf.data.python_docs.collect import python_docs
from rrra_hf.embeddings import embed_collection
from rrra_hf.training import Resampler, check_launch

OPTIONS = {
    "--model": "sentence-transformers/all-MiniLM-L6-v2",  # an encoder: folder or Hub name
    "--collection": "python-docs",  # anything that load_collection takes, with the splits train and test
    "--documents": 1500,  # of python-docs, about
    "--out": Path("runs/trainer"),  # all processes must see it
    "--max-steps": 20,
    "--batch-size": 12,  # queries a step and process
    "--num-negatives": 2,  # hard negatives a query
    "--depth": 50,  # candidates mined for each query
    "--fit-steps": 300,  # of each adapter that judges candidates
    "--max-length": 64,  # tokens of a text
    "--learning-rate": 1e-4,
    "--seed": 0,
}


def main(options: argparse.Namespace) -> None:
    """Mine, estimate, train, evaluate, save."""
    check_launch()  # refuses a launch that asked for several processes and silently got one
    set_seed(options.seed)  # LoRA starts from random weights
    model = RRRAModel.from_encoder(options.model, lora=True, max_seq_length=options.max_length)
    model.adapter.requires_grad_(False)  # not trained here; rrra_hf.fit_model fits it afterwards
    encoder = model.to_sentence_transformer()
    # Or accelerate, about to split the weights (FSDP), takes the Normalize module for a layer norm and fails.
    encoder.base_model_prefix = "0"  # type: ignore[assignment]
    settings = TrainingArguments(
        output_dir=str(options.out / "checkpoints"),
        max_steps=options.max_steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup_steps=0.1,
        batch_sampler="no_duplicates",
        save_strategy="no",
        report_to="none",
        seed=options.seed,
        ddp_timeout=24 * 3600,  # seconds that the other processes wait while the first one mines
    )
    print(f"process {settings.process_index + 1} of {settings.world_size} on {settings.device}", flush=True)
    is_main = settings.process_index == 0

    # Once, by the first process; the others wait, and read what it wrote.
    with settings.main_process_first(local=False, desc="mining"):
        if options.collection == "python-docs":
            collection = python_docs(limit=options.documents, cache_dir=options.out / "collection")
        else:
            collection = load_collection(options.collection)
        training, test = collection.split("train"), collection.split("test")
        if is_main:
            embeddings = embed_collection(training, encoder.to(settings.device))
            pool = mine_collection(training, embeddings, options.depth)
            fit = FitArguments(max_steps=options.fit_steps, seed=options.seed)
            pool = cross_fit(pool, embeddings.queries, embeddings.documents, arguments=fit, folds=2)
            pool.save(options.out / "pool")
            print(f"nDCG@10 before: {ndcg(encoder, test):.3f}", flush=True)

    # Columns query, positive, negative_1 ... and `scores`, the negatives' weights; drawn anew every epoch.
    pool = CandidatePool.load(options.out / "pool")
    resampler = Resampler(training, pool, num_negatives=options.num_negatives, seed=options.seed)
    trainer = SentenceTransformerTrainer(
        model=encoder,
        args=settings,
        train_dataset=resampler.dataset,
        loss=RRRALoss(encoder, gather_across_devices=settings.world_size > 1),
        callbacks=[resampler],
    )
    trainer.train()

    # Asked of all processes: where the weights are split among them (FSDP), the first one gets them whole.
    weights = trainer.accelerator.get_state_dict(trainer.model)
    if is_main:
        weights = {name.removeprefix("0.model."): weight for name, weight in weights.items()}
        model.save_pretrained(options.out / "model", state_dict=weights)
        trained = SentenceTransformer(str(options.out / "model"))
        print(f"nDCG@10 after:  {ndcg(trained, test):.3f}, saved in {options.out / 'model'}")


def ndcg(encoder: SentenceTransformer, collection: Collection) -> float:
    """Return nDCG@10 of a split, by sentence-transformers' own evaluator."""
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
