#!/bin/sh
# Used by the Dockerfile: installs extras of pyproject.toml into /opt/venv, at the lock's versions.
# Usage: install.sh --extra NAME …
set -eu
here=$(dirname "$0")
backend=${TORCH_BACKEND:+--torch-backend=$TORCH_BACKEND}
# If the find-links have a torch wheel, install that one. --torch-backend would use PyTorch's own index.
for wheel in "${UV_FIND_LINKS:-/none}"/torch-*.whl; do
    if [ -e "$wheel" ]; then backend=; fi
done
export UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_CACHE_DIR=/root/.cache/uv
"$here/bin/uv" pip install --quiet --python /opt/venv/bin/python $backend \
    -r "$here/pyproject.toml" -c "$here/requirements.txt" "$@"
# pyspark is a source distribution: each time that it is built, uv keeps 2 GB, also when the next build does not use them.
"$here/bin/uv" cache prune --quiet
