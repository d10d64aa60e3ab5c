#!/usr/bin/env bash
# Installs the environment, or resolves the lock that pins it.
#
#   setup.sh <venv>        install what runs the loop: all extras of pyproject.toml except `dev`
#   setup.sh <venv> dev    also install what tests and lint need; EXTRAS=spark installs that extra as well
#   setup.sh <venv> lock   resolve requirements.txt and serving/requirements.txt again
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
    # -qq shows errors only. Otherwise pip warns about every configured index folder without this package.
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check uv==0.13.9
fi

# uv does not read pip's configuration, where users behind a mirror have configured it.
pip_setting() { "$venv/bin/python" -m pip config get "global.$1" 2>/dev/null | xargs || true; }
index=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$(pip_setting index-url)}}
links=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-$(pip_setting find-links)}}
# uv would read an empty variable as an index without a name. pip separates links by spaces, uv by commas.
if [ -n "$index" ]; then export UV_DEFAULT_INDEX=$index; fi
if [ -n "$links" ]; then export UV_FIND_LINKS=${links// /,}; fi

# torch's CUDA build requires these packages, its CPU build does not. The lock excludes them and names no build, so it
# does not depend on the build that the locking machine sees. An install with TORCH_BACKEND=cu… adds what that build
# requires.
CUDA_PACKAGES="cuda-bindings cuda-toolkit nvidia-cublas nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13
    nvidia-nvshmem-cu13 triton"
# Where it is installed, each process that imports jsonschema, and so Airflow, compiles a grammar of URIs for 2.5 s of
# CPU. cyclonedx-bom asks for it. Without it, jsonschema does not check the format of URIs.
SLOW_PACKAGES="rfc3987-syntax"

excluded=$(mktemp)
trap 'rm -f "$excluded"' EXIT
if [ "${2:-}" = lock ]; then
    printf '%s\n' $CUDA_PACKAGES $SLOW_PACKAGES > "$excluded"
    export UV_CUSTOM_COMPILE_COMMAND="make lock"
    "$venv/bin/uv" pip compile pyproject.toml --all-extras -o requirements.txt --python-version 3.11 -q \
        --excludes "$excluded" --generate-hashes
    # The hashes are those of PyPI. Each build of torch has its own, on PyTorch's index: torch gets no hash.
    awk '/^torch==/ {sub(/[+ ].*/, ""); print; torch = 1; next} torch && /--hash=/ {next} {torch = 0; print}' \
        requirements.txt > "$excluded" && cat "$excluded" > requirements.txt
    # A Bento reads its requirements from a file: the extra `serving`, at the versions of the lock.
    "$venv/bin/uv" pip compile pyproject.toml --extra serving -c requirements.txt -o serving/requirements.txt \
        --python-version 3.11 --no-annotate -q
    exit
fi

extras=(airflow training serving mlflow pages local)
if [ "${2:-}" = dev ]; then extras+=(dev); fi
# Others that somebody wants: EXTRAS=spark.
extras+=(${EXTRAS:-})

# PyPI's torch for Linux requires several GB of CUDA. --torch-backend chooses the right build, but it uses PyTorch's own
# index, which a closed network does not reach. If the find-links have a torch wheel, install that one instead.
backend=(--torch-backend="${TORCH_BACKEND:-cpu}")
for place in ${links//,/ }; do
    if compgen -G "${place#file://}/torch-*.whl" >/dev/null; then backend=(); fi
done
# The environment takes 2.5 GB, and uv's cache the same again if it is on another disk.
free=$(df -Pk . | awk 'NR == 2 {print $4}')
if [ "$free" -lt $((3 * 1024 * 1024)) ]; then
    echo "Only $((free / 1024 / 1024)) GB are free at $PWD; the environment needs 3 GB. Free some." >&2
    exit 1
fi
echo "Installing the extras ${extras[*]} into $venv, at the versions of requirements.txt"
printf '%s\n' $SLOW_PACKAGES > "$excluded"
# --exact removes packages that are no longer in the lock.
"$venv/bin/uv" pip install -q --exact --python "$venv/bin/python" ${backend[@]+"${backend[@]}"} \
    --excludes "$excluded" -r pyproject.toml -c requirements.txt "${extras[@]/#/--extra=}"
