#!/bin/sh
# `make env`: writes .env from .env.example, with a random secret for every empty value. Never changes an existing .env.
set -eu
umask 077
mkdir -p -m 755 landing
if [ -e .env ]; then
    echo ".env exists already; nothing was changed."
    exit
fi
random() { head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }
while IFS= read -r line; do
    case $line in
        AIRFLOW_FERNET_KEY=) echo "$line$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')" ;;
        AIRFLOW_JWT_SECRET=) echo "$line$(random 64)" ;;
        AIRFLOW_PASSWORD= | GRAFANA_PASSWORD=) echo "$line$(random 8)" ;;
        [A-Z]*=) echo "$line$(random 24)" ;;
        *) echo "$line" ;;
    esac
done <.env.example >.env.part
mv .env.part .env
echo "Wrote .env with random secrets. The login of Airflow is admin / $(sed -n 's/^AIRFLOW_PASSWORD=//p' .env)"
