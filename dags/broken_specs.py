"""Makes no DAG: shows model specs that cannot be loaded among Airflow's import errors."""

from perennial_airflow.specs import broken_specs

if problems := broken_specs():
    raise ValueError("\n\n".join(problems))
