#!/usr/bin/env bash
# Prints the Secrets that values-local.yaml and airflow-values.yaml name, with random passwords, for
#   helm/local-secrets.sh NAMESPACE | kubectl apply -f -
# Run it once only: the databases keep the passwords that they were created with. The login is admin, with the password
# in perennial-airflow.
set -euo pipefail
namespace=${1:?"Name the namespace: helm/local-secrets.sh NAMESPACE"}

random() { head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }
database=$(random 16) redis=$(random 16) steps=$(random 16)
fernet=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')

secret() { # name, then key=value …
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\nstringData:\n' "$1" "$namespace"
    shift
    for pair in "$@"; do printf "  %s: '%s'\n" "${pair%%=*}" "${pair#*=}"; done
}

secret perennial-postgresql "password=$database"
secret perennial-redis "password=$redis"
secret perennial-credentials "CT_ONLINE_STORE=redis://:$redis@perennial-redis:6379/0" "MLFLOW_TRACKING_PASSWORD=$steps"
secret perennial-mlflow-login "admin-password=$(random 12)" "secret-key=$(random 32)" "steps-password=$steps" \
    "serving-password=$(random 16)"
secret perennial-airflow \
    "connection=postgresql+psycopg2://perennial:$database@perennial-postgresql:5432/airflow" \
    "fernet-key=$fernet" "api-secret-key=$(random 32)" "jwt-secret=$(random 64)" \
    "admin-password=$(random 12)"
