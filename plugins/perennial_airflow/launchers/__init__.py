"""The launchers: how Airflow runs a step. CT_LAUNCHER names one.

A launcher is an operator class: a StepTask (perennial_airflow/step_task.py) whose `run_step` runs the step's command to
its end and returns the step's result. Each lies in the module of its name and registers itself. One that runs the
command as a process on this machine extends ProcessStepOperator (perennial_airflow/step_process.py).
"""

from typing import TYPE_CHECKING

from training.contract.implementations import Implementations

if TYPE_CHECKING:
    from perennial_airflow.step_task import StepTask

LAUNCHERS: "Implementations[type[StepTask]]" = Implementations("launcher", __name__)
