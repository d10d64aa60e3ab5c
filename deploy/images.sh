#!/bin/sh
# `make images`: builds the targets of the Dockerfile as <IMAGES>/<target>:<TAG>; the target `spark` with EXTRAS=spark.
set -eu
spark=
if [ "${EXTRAS:-}" = spark ]; then spark=spark; fi
for target in mlflow airflow serving training backup $spark; do
    image=$IMAGES/$target:$TAG
    docker build --quiet --target "$target" --tag "$image" --build-arg GIT_SHA="$GIT_SHA" --build-arg IMAGE="$image" \
        --build-arg TORCH_BACKEND="$TORCH_BACKEND" --build-arg EXTRAS="${EXTRAS:-}" . >/dev/null
    docker image inspect --format '{{join .RepoTags " "}}  {{.Size}} bytes' "$image"
done
