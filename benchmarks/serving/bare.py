"""The yardstick: uvicorn, Starlette and orjson around one ONNX row, written by hand, and nothing else.

    uvicorn benchmarks.serving.bare:app        # BENCH_MODEL, BENCH_NAMES; with BENCH_REDIS the features come from there

With Redis it does what a careful engineer would: one pipeline of two HMGETs, Feast's keys and protobuf values.
"""

import os
import struct
from pathlib import Path

import numpy as np
import onnxruntime as ort
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

NAMES = os.environ["BENCH_NAMES"].split(",")
REDIS = os.environ.get("BENCH_REDIS", "")

options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(Path(os.environ["BENCH_MODEL"]).read_bytes(), options)


async def predict(request: Request) -> Response:
    body = orjson.loads(await request.body())
    features = np.array([[body[name] for name in NAMES]], np.float32)
    score = float(session.run(["scores"], {"features": features})[0][0])
    return Response(orjson.dumps({"score": score}), media_type="application/json")


if REDIS:
    import mmh3
    from feast.protos.feast.types.Value_pb2 import Value
    from redis.asyncio import Redis

    client = Redis.from_url(REDIS)

    def fields(view: str, names: list[str]) -> list[bytes | str]:
        found: list[bytes | str] = [mmh3.hash(f"{view}:{name}", signed=False).to_bytes(4, "little") for name in names]
        return [*found, f"_ts:{view}"]

    CUSTOMER = fields("customer_features", NAMES[:6])
    TERMINAL = fields("terminal_features", NAMES[6:12])

    def key(column: str, value: int) -> bytes:
        head = struct.pack("<III", 1, 2, len(column)) + column.encode()
        return head + struct.pack("<IIq", 4, 8, value) + b"perennial"

    def number(field: bytes | None) -> float:
        return Value.FromString(field).float_val if field else 0.0

    async def predict(request: Request) -> Response:
        body = orjson.loads(await request.body())
        pipe = client.pipeline(transaction=False)
        pipe.hmget(key("customer_id", body["customer_id"]), CUSTOMER)
        pipe.hmget(key("terminal_id", body["terminal_id"]), TERMINAL)
        customer, terminal = await pipe.execute()
        looked_up = [number(field) for field in (*customer[:-1], *terminal[:-1])]
        features = np.array([[*looked_up, body["amount"], 0.0, 0.0, 1.0, 1.0]], np.float32)
        score = float(session.run(["scores"], {"features": features})[0][0])
        return Response(orjson.dumps({"score": score}), media_type="application/json")


app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
