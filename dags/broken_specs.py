"""Makes no DAG: shows specs of sources and models that cannot be loaded among Airflow's import errors."""

from perennial_airflow.specs import broken_specs

if problems := broken_specs():
    raise ValueError("\n\n".join(problems))
