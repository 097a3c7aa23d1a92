#!/usr/bin/env bash
# All that a GPU is needed for, in one command: the suite on `reference:cupy`, the tests with the mark `gpu`, the bench.
# Exit 3: there is no GPU here. PYTHON names another interpreter than python3; results land in bench/results/.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! devices=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>&1); then
  echo "bench/gpu.sh: no GPU here: nvidia-smi says: ${devices##*$'\n'}" >&2
  exit 3
fi
echo "on $devices"
slug=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | tr '[:upper:]' '[:lower:]' | tr -cs 'a-z0-9\n' -)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf '\n== %s (%ss)\n' "$*" "$SECONDS"; }

say "a fresh environment"
"${PYTHON:-python3}" -m venv "$work/venv"
bin="$work/venv/bin"
"$bin/pip" install -q -U pip
"$bin/pip" install -q -e '.[conformance,cupy]' 'cupy-cuda12x[ctk]>=14' --group test

failed=()
step() { # what it is, and the command
  say "$1"
  shift
  "$@" || failed+=("$* (exit $?)")
}
step "the whole suite on the GPU" "$bin/moespec" check reference:cupy --timeout 600
step "bits against NumPy's where clauses say exact; the list of what CuPy has" \
  "$bin/python" -m pytest -p no:cacheprovider -m "gpu or peers" conformance/house/test_cupy.py
step "times, and ratios to cuBLAS's own" "$bin/moespec" bench --backend cupy --json "bench/results/$slug.json"
step "the FP8 units" "$bin/python" bench/hopper/probe.py

say "done"
if ((${#failed[@]})); then
  printf 'failed: %s\n' "${failed[@]}"
  exit 1
fi
