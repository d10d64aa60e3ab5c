"""A step by several processes: `python -m training.distributed --nodes N --processes P --rendezvous … <step> …`.

It runs torchrun and keeps the step's contract, which torchrun alone would not: torchrun ends with 1 whatever a process
ended with. The first process of the first node runs the step and reports into a file of this launcher's; the launcher
passes the report on and ends with the exit code that it means. When there is none it writes one: try again.

Each node runs this same command, once; JOB_COMPLETION_INDEX, as Kubernetes gives it to the pods of an indexed Job,
says which node this is. Nothing restarts within a run: when a process ends badly all do, and the next try of the whole
step goes on from the checkpoint. A node other than the first ends with 75 when its processes did not end well.
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
from training.contract.processes import end_with_parent
from training.contract.steps import STEPS
from training.runner import failure_report, terminated, write_report

#: Kubernetes kills a pod 30 s after it asked it to end.
GRACE_SECONDS = 20
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
        return _pass_on(args.step, report, args.result, ended)


def _torchrun_arguments(args: argparse.Namespace, node: int, folder: str) -> list[str]:
    shape = [f"--nnodes={args.nodes}", f"--nproc-per-node={args.processes}", "--max-restarts=0", f"--log-dir={folder}"]
    if args.nodes == 1:
        where = ["--standalone", "--local-addr=127.0.0.1"]
    else:
        # Ranks by the node's number, not by who comes first: the report is the first node's.
        host, _, port = args.rendezvous.rpartition(":")
        where = [f"--node-rank={node}", f"--master-addr={host}", f"--master-port={port}"]
    return [*shape, *where, "-m", "training.worker"]


def _torchrun(arguments: list[str], processes: int) -> int:
    """Its exit code; negative for a signal's. SIGTERM is passed on, and what does not end in time is killed."""
    environment = {
        # Processes of one machine share its cores.
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)),
        **os.environ,
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(GRACE_SECONDS // 2),
    }
    # In a session of its own, so that a signal for our group reaches it once: through us.
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
            return process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _pass_on(step: str, report: Path, result_uri: str, ended: int) -> int:
    """Put the first process's report where the step's caller looks for it; the exit code that it means."""
    if report.exists():
        told = StepReport.model_validate_json(report.read_text())
    else:
        hint = "A process was killed, or the nodes did not meet; the log says which. Run the step again; it resumes."
        told = failure_report(step, TransientError(f"torchrun ended with {ended} before the step did", hint=hint))
    write_report(result_uri, told)
    if told.error is None:
        return ExitCode.OK
    kind: type[StepError] = getattr(errors, told.error.type, StepError)
    return kind.exit_code


if __name__ == "__main__":
    sys.exit(main())
