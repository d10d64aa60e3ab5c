"""Tensors of the Open Inference Protocol: their datatypes, and their values in JSON and as binary data.

https://github.com/kserve/open-inference-protocol and, for binary data, Triton's extension `binary_tensor_data`:
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import struct
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

BOOL, BYTES, FP64, INT64 = "BOOL", "BYTES", "FP64", "INT64"
INTEGERS = tuple(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))
FLOATS = ("FP16", "FP32", FP64)
#: Datatype → its NumPy type, little-endian as the protocol wants it. BYTES have none, and BF16 is not supported.
NUMPY_TYPES: dict[str, np.dtype] = {
    BOOL: np.dtype(np.bool_),
    **{name: np.dtype(f"<{'u' if name[0] == 'U' else 'i'}{int(name.rpartition('T')[2]) // 8}") for name in INTEGERS},
    **{name: np.dtype(f"<f{int(name[2:]) // 8}") for name in FLOATS},
}
DATATYPES = (*NUMPY_TYPES, BYTES)
#: What a value of `data` may be in JSON. Null is a missing value.
_JSON_TYPES: dict[str, tuple[type, ...]] = {
    BOOL: (bool,),
    BYTES: (str,),
    **dict.fromkeys(INTEGERS, (int,)),
    **dict.fromkeys(FLOATS, (int, float)),
}


def from_json(datatype: str, shape: Sequence[int], data: Any) -> list[Any]:
    """The values of `data`, row by row: bool, int, float, str, or None. `data` is flat, or nested as `shape` says.

    Raises ValueError when it is neither, or when a value is not of `datatype`.
    """
    values = data
    for length in shape[1:]:
        if isinstance(values, list) and values and isinstance(values[0], list):
            if not all(isinstance(part, list) and len(part) == length for part in values):
                raise ValueError(f"data is nested, but not all of its lists have {length} values")
            values = [value for part in values for value in part]
    if not isinstance(values, list) or len(values) != prod(shape):
        count = f"has {len(values)} values" if isinstance(values, list) else "is no list"
        raise ValueError(f"data {count}, but its shape {list(shape)} has {prod(shape)}")
    allowed = {type(None), *_JSON_TYPES[datatype]}
    if not set(map(type, values)) <= allowed:
        place, value = next((i, value) for i, value in enumerate(values) if type(value) not in allowed)
        raise ValueError(f"data[{place}] is {shown(value)}, which is no {datatype}")
    return values


def shown(value: Any) -> str:
    """`value` of a JSON body for an error message: short, and without what is in a list or an object."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return repr(value if isinstance(value, str) else str(value)[:50])[:52]


def from_binary(datatype: str, shape: Sequence[int], content: bytes) -> list[Any]:
    """The values of a tensor's binary data, row by row: bool, int, float or str.

    Raises ValueError when `content` does not have the size of `shape`, or is not UTF-8.
    """
    if datatype == BYTES:
        return _texts(content, prod(shape))
    of = NUMPY_TYPES[datatype]
    if len(content) != prod(shape) * of.itemsize:
        raise ValueError(f"has {len(content)} bytes, but {datatype} of shape {list(shape)} has {prod(shape)} values")
    values: list[Any] = np.frombuffer(content, of).tolist()
    return values


def to_binary(datatype: str, values: Sequence[Any]) -> bytes:
    """`values` as binary data, the inverse of `from_binary`."""
    if datatype == BYTES:
        texts = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return np.asarray(values, NUMPY_TYPES[datatype]).tobytes()


def _texts(content: bytes, count: int) -> list[str]:
    """Each text has its length before it: four bytes, little-endian."""
    texts, at = list[str](), 0
    while at + 4 <= len(content):
        (length,) = struct.unpack_from("<I", content, at)
        end = at + 4 + length
        if end > len(content):
            break
        try:
            texts.append(content[at + 4 : end].decode())
        except UnicodeDecodeError:
            raise ValueError(f"value {len(texts)} is not UTF-8") from None
        at = end
    if at != len(content) or len(texts) != count:
        raise ValueError(
            f"has {len(content)} bytes, which are not {count} BYTES with a length of four bytes before each"
        )
    return texts
