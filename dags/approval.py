"""`<model>_approval`: a person decides whether a registered version may serve; if so, it is rolled out."""

from airflow.sdk import DAG
from perennial_airflow.approvals import MAXIMUM_RUNS, AskForApprovalOperator
from perennial_airflow.human_task import ApproveOperator
from perennial_airflow.operators import StepOperator
from perennial_airflow.params import add_params, approval_params
from perennial_airflow.refs import result
from perennial_airflow.specs import dag_settings, model_specs
from perennial_airflow.wiring import check_wiring

DOC = """
The training DAG starts a run for each version about which a person must decide; the model spec says when (`approval`).
**approve** waits under Required Actions, without a worker slot, and keeps no other training from running.
**record_approval** writes who decided, when and with which comment to ledger and registry, **rollout** brings an
approved version into service. Rejected, expired and superseded versions stay registered and get no traffic. An answer
of somebody who may not decide does not count: **ask_again** starts another run.
"""

for spec in model_specs("approval"):
    if not spec.approval.when:
        continue
    with DAG(**dag_settings(spec, "approval", "approve", MAXIMUM_RUNS), schedule=None, doc_md=DOC) as dag:
        about = {"model": spec.name, "version": dag.param("version")}
        request = StepOperator(step="request_approval", inputs=about)
        answer = ApproveOperator(task_id="approve", question=result(request))
        recorded = {**about, "attempt": dag.param("attempt"), "answer": result(answer)}
        record = result(StepOperator(step="record_approval", inputs=recorded, trigger_rule="none_failed"))
        AskForApprovalOperator(task_id="ask_again", model=spec.name, about=record)
        version = {name: record[name] for name in ("version", "digest", "judged_against", "reason")}
        to_serve = {"model": spec.name, **version, "run": "{{ run_id }}"}
        StepOperator(step="rollout", run_if=[record["approved"]], inputs=to_serve)
    add_params(dag, approval_params())
    check_wiring(dag)
