#!/usr/bin/env bash
# Sets the commit whose images production runs: helm/gitops/release.sh COMMIT. Commit the changed files afterwards.
set -euo pipefail
cd "$(dirname "$0")/production"
commit=$(git rev-parse --verify --quiet "${1:?"Name the commit: helm/gitops/release.sh COMMIT"}^{commit}") ||
    { echo "There is no commit $1 here: fetch it first." >&2; exit 1; }
sed -i.old "s/^\(  tag:\).*/\1 \"$commit\"/" images.yaml
sed -i.old "s/^\(defaultAirflowTag:\).*/\1 \"$commit\"/" airflow.yaml
rm -f images.yaml.old airflow.yaml.old
git --no-pager diff --stat -- .
