"""BentoML as its tutorial has it: a JSON endpoint around the same ONNX row."""

import os
from pathlib import Path

import bentoml
import numpy as np
import onnxruntime as ort

NAMES = os.environ["BENCH_NAMES"].split(",")


@bentoml.service(workers=1)
class Stock:
    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(Path(os.environ["BENCH_MODEL"]).read_bytes(), options)

    @bentoml.api
    def predict(self, event: dict) -> dict:
        features = np.array([[event[name] for name in NAMES]], np.float32)
        return {"score": float(self.session.run(["scores"], {"features": features})[0][0])}
