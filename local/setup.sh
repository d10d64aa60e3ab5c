#!/usr/bin/env bash
# Makes the environment, or the lock that decides what is in it.
#
#   setup.sh <venv>        what runs the loop: the extras of pyproject.toml except `dev`
#   setup.sh <venv> dev    what tests and lint need as well
#   setup.sh <venv> lock   resolve requirements.txt and serving/requirements.txt anew
set -euo pipefail
venv=$1

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; }

find_python() {
    local candidates=("${PYTHON:-}") candidate
    [ -n "${PYTHON:-}" ] || candidates=(python3.11 python3.12 python3)
    for candidate in "${candidates[@]}"; do
        if fits "$candidate"; then echo "$candidate"; return; fi
    done
    echo "Perennial needs Python 3.11 or 3.12; tried ${candidates[*]} (python3 is $(python3 --version 2>&1 | head -1))." >&2
    echo "Install one of them (Debian: apt install python3.11 python3.11-venv), or name one: make setup PYTHON=/path/to/python3.11" >&2
    return 1
}

if ! fits "$venv/bin/python"; then
    python=$(find_python)
    echo "Making $venv with $("$python" --version)"
    if ! output=$("$python" -m venv --clear "$venv" 2>&1); then
        printf '%s\n' "$output" >&2
        echo "$python cannot make a virtual environment. On Debian and Ubuntu its venv module is a package of its own: apt install python3.11-venv" >&2
        exit 1
    fi
fi
if [ ! -x "$venv/bin/uv" ]; then
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip >/dev/null
    # -qq: errors only. pip warns of every configured index folder that does not hold this one package.
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check uv
fi

# uv does not read pip's configuration. Whoever is behind a mirror has configured it there.
pip_setting() { "$venv/bin/python" -m pip config get "global.$1" 2>/dev/null | xargs || true; }
index=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$(pip_setting index-url)}}
links=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-$(pip_setting find-links)}}
# An empty variable would be an index without a name. pip separates the links by spaces, uv by commas.
if [ -n "$index" ]; then export UV_DEFAULT_INDEX=$index; fi
if [ -n "$links" ]; then export UV_FIND_LINKS=${links// /,}; fi

# torch's CUDA build requires these, its CPU build does not. The lock names neither build and none of them: it is the
# same whichever build the locking machine sees, and an install with TORCH_BACKEND=cu… adds what that build requires.
CUDA_PACKAGES="cuda-bindings cuda-toolkit nvidia-cublas nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13
    nvidia-nvshmem-cu13 triton"

if [ "${2:-}" = lock ]; then
    excluded=$(mktemp)
    trap 'rm -f "$excluded"' EXIT
    printf '%s\n' $CUDA_PACKAGES > "$excluded"
    export UV_CUSTOM_COMPILE_COMMAND="make lock"
    "$venv/bin/uv" pip compile pyproject.toml --all-extras -o requirements.txt --python-version 3.11 -q \
        --excludes "$excluded"
    sed -i.old 's/^\(torch==[^+]*\)+.*/\1/' requirements.txt && rm requirements.txt.old
    # A Bento takes its requirements from a file: the serving extra, at the versions of the lock.
    "$venv/bin/uv" pip compile pyproject.toml --extra serving -c requirements.txt -o serving/requirements.txt \
        --python-version 3.11 --no-annotate -q
    exit
fi

extras=(airflow training serving mlflow local)
if [ "${2:-}" = dev ]; then extras+=(dev); fi

# PyPI's torch for Linux brings several GB of CUDA. --torch-backend picks a build of the right kind, but it asks PyTorch's
# own index, which a closed network does not reach; there, a torch wheel among the find-links is the build to take.
backend=(--torch-backend="${TORCH_BACKEND:-cpu}")
for place in ${links//,/ }; do
    if compgen -G "${place#file://}/torch-*.whl" >/dev/null; then backend=(); fi
done
# The environment takes 2.5 GB, and uv's cache as much again where it lies on another disk.
free=$(df -Pk . | awk 'NR == 2 {print $4}')
if [ "$free" -lt $((3 * 1024 * 1024)) ]; then
    echo "Only $((free / 1024 / 1024)) GB are free at $PWD; the environment needs 3 GB. Free some." >&2
    exit 1
fi
echo "Installing the extras ${extras[*]} into $venv, at the versions of requirements.txt"
# --exact removes what the lock does not name any more.
"$venv/bin/uv" pip install -q --exact --python "$venv/bin/python" ${backend[@]+"${backend[@]}"} \
    -r pyproject.toml -c requirements.txt "${extras[@]/#/--extra=}"
