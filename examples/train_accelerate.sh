#!/usr/bin/env bash
# Start train_with_trainer.py on several processes:
#   train_accelerate.sh cpu|gpus|fsdp|nodes [options of train_with_trainer.py]
set -euo pipefail

usage() {
    cat >&2 <<TEXT
usage: $0 cpu|gpus|fsdp|nodes [options of train_with_trainer.py]

  cpu     processes on the CPU of this machine, two unless PROCESSES says otherwise
  gpus    one process for each GPU of this machine
  fsdp    the same, with the encoder's weights split among the GPUs
  nodes   several machines; run it on each, with --out on a disk that all of them share, and
            MACHINES  how many machines there are
            MACHINE   the number of this one, from 0
            MAIN      address of machine 0

PROCESSES is the number of processes on this machine. A step takes --batch-size queries in each process,
and every query meets the documents of all of them.
TEXT
    exit 2
}

[ $# -ge 1 ] || usage
how=$1
shift
script=$(dirname "$0")/train_with_trainer.py
# No question is left to a configuration file that `accelerate config` may have written.
launch=(accelerate launch --dynamo_backend no)
gpus() { nvidia-smi --list-gpus | wc -l; }

case $how in
cpu)
    # `accelerate launch --cpu --num_processes 2` starts a single process, and doesn't say so.
    export ACCELERATE_USE_CPU=true OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
    "${launch[@]}" --multi_gpu --num_machines 1 --num_processes "${PROCESSES:-2}" --main_process_port 0 \
        --mixed_precision no "$script" "$@"
    ;;
gpus)
    # not run: no such hardware at hand
    "${launch[@]}" --multi_gpu --num_machines 1 --num_processes "${PROCESSES:-$(gpus)}" \
        --main_process_port 0 --mixed_precision bf16 "$script" "$@"
    ;;
fsdp)
    # not run: no such hardware at hand
    # LAYER is the class of the encoder's layers, each of which becomes a unit that is split: BertLayer,
    # MPNetLayer, Qwen3DecoderLayer, ... It must be named: a SentenceTransformer doesn't say it.
    "${launch[@]}" --use_fsdp --fsdp_version 2 --num_machines 1 --num_processes "${PROCESSES:-$(gpus)}" \
        --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP \
        --fsdp_transformer_layer_cls_to_wrap "${LAYER:-BertLayer}" \
        --fsdp_state_dict_type FULL_STATE_DICT --fsdp_cpu_ram_efficient_loading false \
        --main_process_port 0 --mixed_precision bf16 "$script" "$@"
    ;;
nodes)
    # not run: no such hardware at hand
    : "${MACHINES:?}" "${MACHINE:?}" "${MAIN:?}"
    "${launch[@]}" --multi_gpu --num_machines "$MACHINES" --machine_rank "$MACHINE" \
        --num_processes $((MACHINES * ${PROCESSES:-$(gpus)})) --main_process_ip "$MAIN" \
        --main_process_port "${PORT:-29500}" --mixed_precision bf16 "$script" "$@"
    ;;
*) usage ;;
esac
