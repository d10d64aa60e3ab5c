"""`mlflow models serve` and MLServer around the same ONNX file."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.serving import load
from benchmarks.serving.bench_environment import BIN, BenchEnvironment, running
from benchmarks.serving.report import line

MLSERVER = ["mlserver==1.7.1", "mlserver-mlflow==1.7.1", "onnxruntime"]


def compare(world: BenchEnvironment, folder: Path, port: int, seconds: int) -> None:
    import mlflow
    import numpy as np
    import onnx
    from mlflow.models import infer_signature

    row = np.full((1, len(world.names)), 0.5, np.float32)
    model = folder / "mlflow-model"
    content = onnx.load(world.model / "model.onnx")
    mlflow.onnx.save_model(content, str(model), signature=infer_signature(row, np.array([0.5], np.float32)))
    command = [str(BIN / "mlflow"), "models", "serve", "-m", str(model), "--env-manager", "local", "--port", str(port)]
    path = f"{BIN}:/usr/bin:/bin"
    body = {"inputs": row.tolist()}
    with running(command, {"PATH": path}, f"http://127.0.0.1:{port}/ping", folder / "contenders.log"):
        line("mlflow models serve", _twice(f"http://127.0.0.1:{port}/invocations", body, seconds, folder))
    python = mlserver_environment(folder)
    if python is None:
        return
    settings = folder / "mlserver"
    settings.mkdir()
    (settings / "settings.json").write_text(
        f'{{"http_port": {port + 1}, "grpc_port": {port + 2}, "metrics_port": {port + 3}, "host": "127.0.0.1",'
        ' "parallel_workers": 0, "debug": false}'
    )
    (settings / "model-settings.json").write_text(
        f'{{"name": "bench", "implementation": "mlserver_mlflow.MLflowRuntime", "parameters": {{"uri": "{model}"}}}}'
    )
    tensor = {"name": "features", "shape": list(row.shape), "datatype": "FP32", "data": row.ravel().tolist()}
    body = {"inputs": [tensor | {"parameters": {"content_type": "np"}}]}
    command = [str(python.parent / "mlserver"), "start", str(settings)]
    url = f"http://127.0.0.1:{port + 1}/v2/models/bench"
    with running(command, {"PATH": f"{python.parent}:/usr/bin:/bin"}, f"{url}/ready", folder / "contenders.log"):
        line("MLServer", _twice(f"{url}/infer", body, seconds, folder))


def _twice(url: str, body: Any, seconds: int, folder: Path) -> list[load.Load]:
    load.full(url, [body], 1, folder)
    return [load.full(url, [body], seconds, folder) for _ in range(2)]


def mlserver_environment(folder: Path) -> Path | None:
    """A Python with MLServer. None when it cannot be installed; the reason is printed."""
    uv = str(BIN / "uv") if (BIN / "uv").exists() else shutil.which("uv")
    place, python = folder / "mlserver-environment", folder / "mlserver-environment" / "bin" / "python"
    try:
        assert uv, "uv is not there"
        subprocess.run([uv, "venv", "-q", "-p", sys.executable, str(place)], check=True, capture_output=True)
        command = [uv, "pip", "install", "-q", "-p", str(python), *MLSERVER]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    except (AssertionError, subprocess.SubprocessError) as error:
        print(f"  MLServer could not be installed: {getattr(error, 'stderr', None) or error}")
        return None
    return python
