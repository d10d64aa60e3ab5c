"""Perennial's training code: contracts, domain, estimators, adapters and steps. It does not know Airflow."""
