#!/bin/sh
# Sets up .venv in this checkout.  Usage: scripts/install.sh core|all|test
#   core  what the command line and the demo need (no Qt, napari or nipype)
#   all   core with napari, nipype and the test tools, and the system libraries of Qt
#   test  what make test-slow needs: all, a browser for the test that looks at the report page, a virtual display, SLURM, and graphviz
# Does nothing when the stamp left by the last run has the same inputs.
set -eu

stage=${1:-all}
case $stage in
core | all | test) ;;
*) echo "usage: scripts/install.sh core|all|test" >&2; exit 2 ;;
esac

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
venv=$root/.venv
constraints=requirements/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { echo "install: $*" >&2; }
die() { echo "install: $*" >&2; exit 2; }

apt_updated=no
# install Debian packages when root; otherwise name the command and fail
need_apt() {
    say "missing on this system: $*"
    if [ "$(id -u)" -ne 0 ]; then
        die "run this, then the same make command again: sudo apt-get install -y --no-install-recommends $*"
    fi
    command -v apt-get >/dev/null || die "apt-get must be available to install: $*. Install them by hand."
    if [ $apt_updated = no ]; then
        DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2 || return 1
        apt_updated=yes
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >&2
}

good_python() { command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; }

find_python() {
    for python in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.14; do
        if [ -n "$python" ] && good_python "$python"; then
            command -v "$python"
            return 0
        fi
    done
    return 1
}

# a virtual environment holds absolute paths: one made or copied from elsewhere is not ours
venv_is_ours() {
    [ -x "$venv/bin/python" ] && good_python "$venv/bin/python" &&
        [ "$("$venv/bin/python" -c 'import sys; print(sys.prefix)')" = "$venv" ] &&
        head -n 1 "$venv/bin/pip" 2>/dev/null | grep -qF "$venv/bin/python" &&
        "$venv/bin/python" -m pip --version >/dev/null 2>&1
}

make_venv() {
    if ! find_python >/dev/null; then
        need_apt python3 python3-venv || true
    fi
    python=$(find_python) || die "Python must be 3.11 or newer, found none. Install one, or set PYTHON=/path/to/python3."
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        need_apt "python$version-venv"
    fi
    say "creating .venv with $python"
    rm -rf "$venv"
    "$python" -m venv "$venv"
}

# what the environment is made from; the place counts too, as an editable install points at it, and the compilers,
# as the kernels are compiled again when one has come or changed
inputs() {
    {
        echo "$root ${CXX:-} ${NEURALDIFFUSER_BUILD:-} ${NEURALDIFFUSER_SANITIZE:-} ${TORCH_CUDA_ARCH_LIST:-}"
        "$venv/bin/python" -VV
        for tool in "${CXX:-c++}" "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" nvcc; do $tool --version 2>&1 || true; done
        cat pyproject.toml setup.py "$constraints" scripts/install.sh
        find csrc -type f ! -name '*.pyc' | LC_ALL=C sort | xargs cat
    } | sha256sum | cut -d' ' -f1
}

installed() { [ -f "$venv/.installed-$1" ] && [ "$(cat "$venv/.installed-$1")" = "$(inputs)" ]; }

# shared library -> Debian package, for Qt (offscreen too) and OpenGL
qt_libraries() {
    missing=""
    for pair in libGL.so.1:libgl1 libEGL.so.1:libegl1 libxkbcommon.so.0:libxkbcommon0 libdbus-1.so.3:libdbus-1-3 \
        libfontconfig.so.1:libfontconfig1 libglib-2.0.so.0:libglib2.0-0; do
        if ! ldconfig -p 2>/dev/null | grep -qF "${pair%%:*} "; then
            missing="$missing ${pair#*:}"
        fi
    done
    # shellcheck disable=SC2086
    [ -z "$missing" ] || need_apt $missing
}

browser() {
    for name in chromium chromium-browser google-chrome; do
        if command -v $name >/dev/null 2>&1; then return 0; fi
    done
    if [ "$(id -u)" -eq 0 ]; then
        need_apt chromium || say "no chromium here: the test that looks at the page in a browser is skipped"
    else
        say "no chromium here: the browser test is skipped. To run it: sudo apt-get install -y chromium"
    fi
}

# a virtual display, for napari in a real window and for the pictures
display() {
    missing=""
    for pair in xvfb-run:xvfb xauth:xauth; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
    done
    for pair in libxcb-cursor.so.0:libxcb-cursor0 libxkbcommon-x11.so.0:libxkbcommon-x11-0 \
        libxcb-icccm.so.4:libxcb-icccm4 libxcb-keysyms.so.1:libxcb-keysyms1 libxcb-shape.so.0:libxcb-shape0; do
        ldconfig -p 2>/dev/null | grep -qF "${pair%%:*} " || missing="$missing ${pair#*:}"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -eq 0 ]; then
        # shellcheck disable=SC2086
        need_apt $missing || say "no virtual display here: the tests in a real window are skipped"
    else
        say "the tests in a real window are skipped. To run them: sudo apt-get install -y$missing"
    fi
}

# programs (in sbin for daemons, which is not on every user's PATH) -> Debian packages; what is skipped without them
programs() {
    skipped=$1
    shift
    missing=""
    for pair in "$@"; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        # shellcheck disable=SC2086
        without_services need_apt $missing || say "missing:$missing; $skipped"
    else
        say "$skipped. To have it: sudo apt-get install -y --no-install-recommends$missing"
    fi
}

# packages that bring daemons try to start them, which fails or hangs in a container, and the tests start their own:
# Debian asks this script, and 101 says no; a policy that is there already is the administrator's
without_services() {
    policy=/usr/sbin/policy-rc.d
    if [ -e $policy ]; then
        "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    status=0
    "$@" || status=$?
    rm -f $policy
    trap - EXIT
    return $status
}

# a cluster of its own for the tests of the SLURM engine, and `dot` for the picture of a workflow
cluster() {
    programs "the tests on a real SLURM are skipped" slurmctld:slurmctld slurmd:slurmd sbatch:slurm-client munged:munge
    programs "the workflow is not drawn as a picture" dot:graphviz
}

has_compiler() {
    for name in ${CXX:-c++ g++ clang++}; do
        if command -v "$name" >/dev/null 2>&1; then return 0; fi
    done
    return 1
}

has_headers() {
    "$venv/bin/python" -c "
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')))"
}

# the kernels need a C++ compiler and Python's headers; without them everything works, more slowly
compiler() {
    if [ "${NEURALDIFFUSER_BUILD:-auto}" = off ]; then return 0; fi
    wanted=""
    has_compiler || wanted=g++
    has_headers || wanted="$wanted $("$venv/bin/python" -c 'import sys; print("python%d.%d-dev" % sys.version_info[:2])')"
    if [ -z "$wanted" ]; then return 0; fi
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        # shellcheck disable=SC2086
        need_apt $wanted || true
    fi
    if ! has_compiler || ! has_headers; then
        say "missing: $wanted. Plain PyTorch runs instead of compiled kernels. To have them:" \
            "sudo apt-get install -y $wanted, then the same make command again"
    fi
}

pip_install() {
    extras=$1
    compiler
    # torch first and on its own: later packages then find it and do not choose another; it and the tools of
    # [build-system] must be there before the build, which is not isolated so that it compiles against this torch
    "$venv/bin/python" -m pip install -q -c "$constraints" \
        "setuptools>=77" "pybind11>=3.0" "ninja>=1.11" "torch==2.13.0"
    "$venv/bin/python" -m pip install -q --no-build-isolation -c "$constraints" -e ".$extras"
    # pip hides what a successful build prints
    say "$("$venv/bin/python" -c \
        'import json; print(json.load(open("napari_neuraldiffuser/_build_report.json"))["reason"])' 2>&1)"
}

venv_is_ours || make_venv
if [ "$stage" != core ]; then qt_libraries; fi
case $stage in
core)
    if ! installed core && ! installed all; then
        say "installing the core (torch, diffusers, nilearn ...); some minutes"
        pip_install ""
    fi
    ;;
*)
    if ! installed all; then
        say "installing core, napari, nipype and the test tools; some minutes"
        pip_install "[all]"
        inputs >"$venv/.installed-all"
    fi
    ;;
esac
inputs >"$venv/.installed-core"
if [ "$stage" = test ]; then
    browser
    display
    cluster
fi
