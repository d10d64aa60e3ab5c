"""The process in which a version is loaded and scored for the first time: `python -m serving.trial_process <socket>`.

It reads requests, JSON objects, from the socket, and answers each with one. It imports little, so that it starts fast,
and has none of the service's credentials. It ends when the socket closes, also while a model is scored.
"""

import json
import os
import queue
import resource
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from training.adapters.onnx_model import OnnxModel
from training.contract.errors import StepError

#: The largest request and answer, in bytes.
LONGEST_MESSAGE = 2**20


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    requests = queue.Queue[bytes]()
    threading.Thread(target=_read, args=(connection, requests), daemon=True).start()
    if (adjustment := Path("/proc/self/oom_score_adj")).exists():
        adjustment.write_text("1000")  # When memory is short, the kernel ends this process and not the service.
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection.send_bytes(b"{}")
    while True:
        request = json.loads(requests.get())
        _limit_memory(request["memory_mib"])
        answer = _try_out(request["folder"], request["maximum_mib"])
        connection.send_bytes(json.dumps(answer).encode())


def _read(connection: Connection, requests: queue.Queue[bytes]) -> None:
    """Put all requests into the queue. End the process when there are no more."""
    try:
        while True:
            requests.put(connection.recv_bytes(LONGEST_MESSAGE))
    except (EOFError, OSError):
        os._exit(0)


def _limit_memory(mib: int) -> None:
    """Allow `mib` beyond what the process has now. Without /proc there is no limit."""
    if (sizes := Path("/proc/self/statm")).exists():
        has = int(sizes.read_text().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        allowed = has + mib * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (allowed if most < 0 else min(allowed, most), most))


def _try_out(folder: str, maximum_mib: int) -> dict[str, str]:
    """Empty when the artifact in `folder` can be loaded and gives its golden scores; else `problem` and `hint`."""
    try:
        OnnxModel.load(folder, maximum_mib=maximum_mib).check_golden()
    except StepError as error:
        return {"problem": error.message[:10_000], "hint": error.hint[:1000]}
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        return {"problem": f"The golden rows cannot be scored: {why}"[:10_000], "hint": "Do not serve it. Train again."}
    return {}


if __name__ == "__main__":
    main()
