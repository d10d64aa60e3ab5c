"""Runs a step in several processes: `python -m training.distributed --nodes N --processes P --rendezvous … <step> …`.

It runs torchrun and adds the step's exit code and report: torchrun itself ends with 1 after any failure. The first
process of the first node runs the step and writes its report to a temporary file. This program copies the report to
`--result` and ends with the exit code of its error. Without a report it writes one with a transient error.

Every node runs this same command once. JOB_COMPLETION_INDEX, which Kubernetes sets in the pods of an indexed Job, is
the number of the node. No process is restarted: when one fails all end, and the next try of the step continues from the
checkpoint. Nodes other than the first end with 75 when one of their processes failed.
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from training.__main__ import read_inputs
from training.contract import errors
from training.contract.errors import ExitCode, StepError, TransientError
from training.contract.messages import StepReport
from training.contract.processes import TORCHRUN_GRACE_SECONDS, end_with_parent
from training.contract.steps import STEPS
from training.runner import failure_report, terminated, write_report

_NODE = "JOB_COMPLETION_INDEX"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.distributed", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1, help="machines or pods, each of which runs this command")
    parser.add_argument("--processes", type=int, default=1, help="processes on each node: one per GPU")
    parser.add_argument("--rendezvous", default="", help="host:port on the first node (several nodes only)")
    parser.add_argument("step", choices=list(STEPS), metavar="STEP")
    parser.add_argument("--inputs", default="{}", help="JSON, @file, or - for standard input")
    parser.add_argument("--result", default="-", help="path of the report; - (default) is standard output")
    args = parser.parse_args(argv)
    if args.nodes > 1 and ":" not in args.rendezvous:
        parser.error("several nodes need --rendezvous host:port")
    signal.signal(signal.SIGTERM, terminated)
    node = int(os.environ.get(_NODE, "0"))
    with TemporaryDirectory(prefix="torchrun-") as folder:
        report = Path(folder, "report.json")
        step = [args.step, "--inputs", read_inputs(args.inputs), "--result", str(report)]
        ended = _torchrun([*_torchrun_arguments(args, node, folder), *step], args.processes)
        if node > 0:
            return ExitCode.OK if ended == 0 else ExitCode.TRANSIENT
        return _publish(args.step, report, args.result, ended)


def _torchrun_arguments(args: argparse.Namespace, node: int, folder: str) -> list[str]:
    shape = [f"--nnodes={args.nodes}", f"--nproc-per-node={args.processes}", "--max-restarts=0", f"--log-dir={folder}"]
    if args.nodes == 1:
        where = ["--standalone", "--local-addr=127.0.0.1"]
    else:
        # Set the rank by the number of the node, because the first node writes the report.
        host, _, port = args.rendezvous.rpartition(":")
        where = [f"--node-rank={node}", f"--master-addr={host}", f"--master-port={port}"]
    return [*shape, *where, "-m", "training.worker"]


def _torchrun(arguments: list[str], processes: int) -> int:
    """Run torchrun and return its exit code, negative for a signal. Forwards SIGTERM, and kills torchrun after that."""
    environment = {
        # The processes share the cores of the machine.
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)),
        **os.environ,
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(TORCHRUN_GRACE_SECONDS // 2),
    }
    # In its own session, so that a signal for our process group reaches it only once, from us.
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *arguments],
        env=environment,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    try:
        return process.wait()
    except TransientError:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        process.terminate()
        try:
            return process.wait(TORCHRUN_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _publish(step: str, report: Path, result_uri: str, ended: int) -> int:
    """Write the first process's report to `result_uri` and return the exit code of its error."""
    if report.exists():
        result = StepReport.model_validate_json(report.read_text())
    else:
        hint = "A process was killed, or the nodes did not connect; see the log. Run the step again; it resumes."
        result = failure_report(step, TransientError(f"torchrun ended with {ended} before the step did", hint=hint))
    write_report(result_uri, result)
    if result.error is None:
        return ExitCode.OK
    kind: type[StepError] = getattr(errors, result.error.type, StepError)
    return kind.exit_code


if __name__ == "__main__":
    sys.exit(main())
