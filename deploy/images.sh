#!/bin/sh
# `make images`: builds every target of the Dockerfile as <IMAGES>/<target>:<TAG>.
set -eu
for target in mlflow airflow serving training backup; do
    image=$IMAGES/$target:$TAG
    docker build --quiet --target "$target" --tag "$image" --build-arg GIT_SHA="$GIT_SHA" --build-arg IMAGE="$image" \
        --build-arg TORCH_BACKEND="$TORCH_BACKEND" --build-arg EXTRAS="${EXTRAS:-}" . >/dev/null
    docker image inspect --format '{{join .RepoTags " "}}  {{.Size}} bytes' "$image"
done
