#!/bin/sh
# `make pin-images`: adds the digest that a registry has now to each image of other projects in .env. Again: newer ones.
set -eu
umask 077
if [ ! -e .env ]; then
    echo "There is no .env. Run \`make env\` first." >&2
    exit 78
fi
trap 'rm -f .env.part' EXIT
# A .env of an earlier version has no images yet.
{ cat .env; grep '_IMAGE=' .env.example | while IFS= read -r line; do grep -q "^${line%%=*}=" .env || echo "$line"; done; } |
    while IFS= read -r line; do
        case $line in
            [A-Z]*_IMAGE=*)
                image=${line#*=} image=${image%%@*}
                if ! digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$image"); then
                    echo "The digest of $image is not known, and .env stays as it was. Is its registry in reach?" >&2
                    exit 75
                fi
                echo "${line%%=*}=$image@$digest"
                ;;
            *) echo "$line" ;;
        esac
    done >.env.part
mv .env.part .env
grep '_IMAGE=' .env
