#!/usr/bin/env bash
# Accuracy and seconds of training on one NVIDIA GPU, in under ten minutes: recipes of fenwicks on
# JAX, then the record's in plain PyTorch, as it is and compiled, each seed after seed while the
# time lasts. Results are appended to a JSON-lines file as they come.
#
#   DATA_DIR=~/cifar bash examples/benchmarks/gpu.sh gpu.jsonl
#
# Needs fenwicks, JAX and PyTorch for CUDA (pip install -e . 'jax[cuda13]' torch); not TensorFlow.
# Without a GPU, its parts can be tried:
#
#   DEVICE=cpu MINUTES=1 EPOCHS=1 LIMIT=128 BATCH_SIZE=64 WIDTH=0.125 bash .../gpu.sh /tmp/gpu.jsonl
set -euo pipefail
log=$(realpath "${1:-gpu.jsonl}")
[ -z "${DATA_DIR:-}" ] || DATA_DIR=$(realpath "$DATA_DIR")
cd "$(dirname "$0")/../.."

python=${PYTHON:-python3}
minutes=${MINUTES:-9}
recipes=${RECIPES:-speed94,page10,fenwicks24}
device=${DEVICE:-gpu}
# fenwicks would take all GPUs, PyTorch takes one.
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0}
# The first seed compiles the programs of a recipe, and the others find them here.
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$cache}
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$cache/inductor}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

flags=(--device="$device" --dataset="${DATASET:-cifar10}" --log="$log")
[ -z "${DATA_DIR:-}" ] || flags+=(--data_dir="$DATA_DIR")
[ -z "${EPOCHS:-}" ] || flags+=(--epochs="$EPOCHS")
[ -z "${LIMIT:-}" ] || flags+=(--limit="$LIMIT" --test_limit="$LIMIT")
[ -z "${BATCH_SIZE:-}" ] || flags+=(--batch_size="$BATCH_SIZE")
[ -z "${WIDTH:-}" ] || flags+=(--width="$WIDTH")
[ -z "${RUNS:-}" ] || flags+=(--runs="$RUNS")
[ -z "${PRECISION:-}" ] || flags+=(--precision="$PRECISION")

status=0
# part NAME BACKEND SHARE FLAGS...: its share of the minutes, in percent; a hard end a bit later.
part() {
    local name=$1 backend=$2 seconds=$(awk "BEGIN {print 60 * $minutes * $3 / 100}")
    shift 3
    printf '\n== %s (after %s s)\n' "$name" "$SECONDS"
    KERAS_BACKEND=$backend timeout --signal=INT "$(awk "BEGIN {print 1.1 * $seconds + 10}")" \
        "$python" examples/benchmarks/seeds.py "${flags[@]}" "$@" \
        --minutes="$(awk "BEGIN {print $seconds / 60}")" || { status=$?; echo "$name: status $status"; }
}

command -v nvidia-smi > /dev/null && nvidia-smi -L || echo 'no nvidia-smi here'
part 'fenwicks on JAX' jax 54 --recipes="$recipes"
part 'PyTorch' torch 10 --side=pytorch --recipes=speed94_muon
part 'PyTorch, compiled' torch 30 --side=pytorch --recipes=speed94_muon --compile

printf '\n== done (after %s s)\n' "$SECONDS"
exit "$status"
