#!/bin/sh
# Everything that needs an NVIDIA GPU, in one go: builds the kernels with CUDA, runs the GPU tests plain and under
# compute-sanitizer, the demo, and the benchmarks.  Usage: scripts/gpu_day.sh RESULTS_FOLDER
# Every step leaves its output there; summary.txt has one line a step.  Exit status 1 when a step failed.
# PYTHON=/path/to/python uses an environment of your own (with a CUDA build of torch) instead of .venv.
set -u

if [ $# -ne 1 ]; then
    echo "usage: scripts/gpu_day.sh RESULTS_FOLDER" >&2
    exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-.venv/bin/python}
summary=$out/summary.txt
failed=0
: >"$summary"

say() { echo "$*" | tee -a "$summary"; }

# step NAME COMMAND...: output to NAME.txt, one line to the summary
step() {
    name=$1
    shift
    start=$(date +%s)
    if "$@" >"$out/$name.txt" 2>&1; then verdict=passed; else verdict="FAILED ($?)"; failed=1; fi
    say "$name: $verdict in $(($(date +%s) - start)) s. $(tail -n 1 "$out/$name.txt" | cut -c1-160)"
}

machine() {
    nvidia-smi
    "$python" - <<'PYTHON'
import json, platform
from napari_neuraldiffuser.core.networks.kernels.backend import backend_info
print(json.dumps({"platform": platform.platform(), **backend_info()}, indent=2))
PYTHON
}

# The tests of graphs, streams and launches are left out: under a sanitizer every launch waits for the one before.
sanitize() {
    # uncached: each tensor is an allocation of its own, so that a byte beyond it belongs to nobody
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$1" --target-processes all --error-exitcode 86 \
        "$python" -m pytest -q -p no:cacheprovider tests/gpu/test_gpu_kernels.py
}

find_sanitizer() {
    for candidate in compute-sanitizer "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer" \
        "${CUDA_HOME:-/usr/local/cuda}/compute-sanitizer/compute-sanitizer"; do
        if command -v "$candidate" >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
}

"$python" scripts/require_gpu.py || exit 1
export NEURALDIFFUSER_BUILD=cuda NEURALDIFFUSER_STRICT=1 OMP_WAIT_POLICY=passive
step build "$python" -m pip install --no-build-isolation --no-deps -e .
if [ $failed -ne 0 ]; then
    say "The kernels must be built before anything can be tested: see $out/build.txt."
    exit 1
fi
step machine machine
step tests "$python" -m pytest -m gpu --durations=20
sanitizer=$(find_sanitizer)
if [ -n "$sanitizer" ]; then
    for tool in memcheck racecheck initcheck synccheck; do step $tool sanitize $tool; done
else
    say "compute-sanitizer must be installed (it comes with the CUDA toolkit), got none: memory checks are left out."
    failed=1
fi
step demo "$python" -m napari_neuraldiffuser.cli demo "$out/demo" --device cuda
step bench "$python" scripts/run_benchmarks.py --out "$out/bench" --device cuda
say "$([ $failed -eq 0 ] && echo "All steps passed." || echo "At least one step failed.") Results: $out"
exit $failed
