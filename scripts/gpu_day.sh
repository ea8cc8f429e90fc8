#!/bin/sh
# Everything that needs an NVIDIA GPU, in one go, the most important first: builds the kernels with CUDA, times the pipeline
# at full size against the published loop, runs the GPU tests plain and under compute-sanitizer, the demo, and the rest of
# the benchmarks.  Usage: scripts/gpu_day.sh RESULTS_FOLDER
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

# step NAME SECONDS COMMAND...: output to NAME.txt, one line to the summary; what takes longer is ended, and failed
step() {
    name=$1
    limit=$2
    shift 2
    start=$(date +%s)
    limited "$@" >"$out/$name.txt" 2>&1
    status=$?
    if [ $status -eq 0 ]; then verdict=passed; else verdict="FAILED ($status)"; failed=1; fi
    say "$name: $verdict in $(($(date +%s) - start)) s. $(tail -n 1 "$out/$name.txt" | cut -c1-160)"
}

# Functions of this script cannot be given to `timeout`: each sets its limit where it starts a program.
limited() {
    case $1 in
    machine | pipeline | sanitize) "$@" ;;
    *) timeout "$limit" "$@" ;;
    esac
}

# pipeline PART ARM...: benchmarks/pipeline.py at Stable Diffusion 1.4's size, the package in bfloat16
pipeline() {
    part=$1
    shift
    timeout "$limit" "$python" benchmarks/pipeline.py --size full --device cuda --dtype bfloat16 --rounds 1 \
        --repeats "${repeats:-4}" --parts "$part" --arms "$@" --json "$out/$name.json"
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
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout "$limit" "$sanitizer" --tool "$1" --target-processes all --error-exitcode 86 \
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
# The most important first, each with a limit of its own: about eight minutes as far as the demo, and what comes after it
# when there is time.
step build 120 "$python" -m pip install --no-build-isolation --no-deps -e .
if [ $failed -ne 0 ]; then
    say "The kernels must be built before anything can be tested: see $out/build.txt."
    exit 1
fi
step machine 20 machine
# exact bf16 against the plain float32 loop, the fast settings, peak memory, at Stable Diffusion 1.4's size
step pipeline 150 pipeline time "published loop" "exact, published" exact fast
repeats=16
step memory 60 pipeline memory "published loop" exact fast
repeats=4
step simulate 60 "$python" -m napari_neuraldiffuser.cli simulate "$out/nsd"
step scores 60 "$python" benchmarks/pipeline.py --parts scores --subject "$out/nsd" --device cuda --dtype bfloat16 \
    --json "$out/scores.json"
step tests 80 "$python" -m pytest -m gpu --durations=20
step demo 40 "$python" -m napari_neuraldiffuser.cli demo "$out/demo" --device cuda
step kernels 50 "$python" benchmarks/kernels.py --device cuda --json "$out/kernels.json"
step lease 20 "$python" -m pytest tests/nipype_interfaces/test_gpu_lease.py
step workers 40 "$python" benchmarks/gpu_workers.py --device cuda --quick --json "$out/workers.json"
sanitizer=$(find_sanitizer)
if [ -n "$sanitizer" ]; then
    for tool in memcheck racecheck initcheck synccheck; do step $tool 60 sanitize $tool; done
else
    say "compute-sanitizer must be installed (it comes with the CUDA toolkit), got none: memory checks are left out."
    failed=1
fi
step options 300 pipeline time "published loop" "exact" "tiny decoder" "gradient of the clean estimate" \
    "features held for 3 steps" "text guidance in the first fifth" "half the steps"
step bench 900 "$python" scripts/run_benchmarks.py --out "$out/bench" --device cuda
say "$([ $failed -eq 0 ] && echo "All steps passed." || echo "At least one step failed.") Results: $out"
exit $failed
