#!/bin/sh
# The postgres image runs this once, when its volume is empty: a database and a login each for Airflow and MLflow.
set -e
for name in airflow mlflow; do
    eval "password=\$$(echo "$name" | tr a-z A-Z)_DB_PASSWORD"
    psql -v ON_ERROR_STOP=1 -v name="$name" -v password="$password" \
        --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" -q <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
SQL
done
