#!/usr/bin/env bash
# Start train_with_trainer.py in several processes:
#   train_accelerate.sh cpu|gpus|fsdp|nodes [options of train_with_trainer.py]
set -euo pipefail

usage() {
    cat >&2 <<TEXT
usage: $0 cpu|gpus|fsdp|nodes [options of train_with_trainer.py]

  cpu     two processes on the CPU of this machine, or as many as PROCESSES
  gpus    one process per GPU of this machine
  fsdp    the same, with the weights of the encoder split among the GPUs
  nodes   several machines. Run it on each of them, with --out on a disk that all can see, and set
            MACHINES  number of machines
            MACHINE   number of this machine, starting at 0
            MAIN      address of machine 0

PROCESSES is the number of processes on this machine. A step takes --batch-size queries in each process, and each
query is compared with the documents of all processes.
TEXT
    exit 2
}

[ $# -ge 1 ] || usage
how=$1
shift
script=$(dirname "$0")/train_with_trainer.py
# Nothing is read from a configuration file that `accelerate config` may have written.
launch=(accelerate launch --dynamo_backend no)
gpus() { nvidia-smi --list-gpus | wc -l; }

case $how in
cpu)
    # `accelerate launch --cpu --num_processes 2` would start a single process, without a warning.
    export ACCELERATE_USE_CPU=true OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
    "${launch[@]}" --multi_gpu --num_machines 1 --num_processes "${PROCESSES:-2}" --main_process_port 0 \
        --mixed_precision no "$script" "$@"
    ;;
gpus)
    # not tested
    "${launch[@]}" --multi_gpu --num_machines 1 --num_processes "${PROCESSES:-$(gpus)}" \
        --main_process_port 0 --mixed_precision bf16 "$script" "$@"
    ;;
fsdp)
    # not tested
    # LAYER is the class of the encoder's layers, such as BertLayer, MPNetLayer or Qwen3DecoderLayer. Each layer
    # becomes a unit of FSDP. accelerate can't find out the class of a SentenceTransformer's layers by itself.
    "${launch[@]}" --use_fsdp --fsdp_version 2 --num_machines 1 --num_processes "${PROCESSES:-$(gpus)}" \
        --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP \
        --fsdp_transformer_layer_cls_to_wrap "${LAYER:-BertLayer}" \
        --fsdp_state_dict_type FULL_STATE_DICT --fsdp_cpu_ram_efficient_loading false \
        --main_process_port 0 --mixed_precision bf16 "$script" "$@"
    ;;
nodes)
    # not tested
    : "${MACHINES:?}" "${MACHINE:?}" "${MAIN:?}"
    "${launch[@]}" --multi_gpu --num_machines "$MACHINES" --machine_rank "$MACHINE" \
        --num_processes $((MACHINES * ${PROCESSES:-$(gpus)})) --main_process_ip "$MAIN" \
        --main_process_port "${PORT:-29500}" --mixed_precision bf16 "$script" "$@"
    ;;
*) usage ;;
esac
