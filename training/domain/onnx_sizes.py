"""How much memory the constants of an ONNX graph take: a file of 246 bytes can ask for 24 GB.

The bytes of the file are read here, by the field numbers of onnx.proto, before anything else opens them. The package
onnx is not used: the serving image does not have it, and it copies the whole file. A tensor whose shape the graph
computes is not counted.
"""

import math
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

#: Bytes of an element, by TensorProto.DataType; 8 where nothing is said.
_ELEMENT = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 9: 1, 10: 2, 12: 4, 15: 16, 16: 2, 17: 1, 18: 1, 19: 1, 20: 1}
_FLOAT = 1
#: The type of the numbers in raw_data, and the field of numbers that are not there, by TensorProto.DataType.
_NUMBERS = {1: ("<f4", 4), 6: ("<i4", 5), 7: ("<i8", 7), 11: ("<f8", 10)}
#: A tensor with more numbers is not a shape.
_LONGEST_SHAPE = 64
#: How many subgraphs may contain each other.
_DEEPEST = 32
#: Its operators have no subgraphs and make no shapes, but have attributes with millions of numbers.
_CLASSIC_ML = b"ai.onnx.ml"

#: The values of each field of a protobuf message: a number, or bytes.
Message = Mapping[int, Sequence[int | memoryview]]
Constants = Mapping[bytes, list[float]]


def oversized_constants(content: bytes, limit: int) -> str | None:
    """What makes the constants of the graph take more than `limit` bytes; None when nothing does.

    `content` is a ModelProto. Raises ValueError when it cannot be read.
    """
    sizes = _Sizes()
    try:
        model = _message(memoryview(content))
        sizes.add_graph(_message(_merged(model, 7)), {}, 0)
        for function in _parts(model, 25):
            sizes.add_nodes(_message(function), 7, {}, 0)
    except (IndexError, struct.error, OverflowError) as error:
        raise ValueError(f"the file is damaged: {error}") from error
    if sizes.total <= limit:
        return None
    return f"its constants take {sizes.total / 2**20:,.0f} MiB, and the largest is {sizes.largest_name}"


class _Sizes:
    """Bytes of the constants that were added: `total`, and of the largest of them."""

    def __init__(self) -> None:
        self.total = self.largest = 0.0
        self.largest_name = ""

    def add_graph(self, graph: Message, outer: Constants, depth: int) -> None:
        """Add a GraphProto. `outer`: the constants of the graphs around it, which it may use."""
        if depth > _DEEPEST:
            raise ValueError(f"more than {_DEEPEST} subgraphs contain each other")
        constants = dict(outer)
        for part in _parts(graph, 5):
            tensor = _message(part)
            name = bytes(_merged(tensor, 8))
            self._add(f"the initializer {_text(name)}", _elements(_numbers(tensor, 1)), _type(tensor))
            constants[name] = _values(tensor)
        for part in _parts(graph, 15):
            sparse = _message(part)
            tensor = _message(_merged(sparse, 1))
            self._add(
                f"the sparse initializer {_text(_merged(tensor, 8))}", _elements(_numbers(sparse, 3)), _type(tensor)
            )
        self.add_nodes(graph, 1, constants, depth)

    def add_nodes(self, message: Message, number: int, outer: Constants, depth: int) -> None:
        """Add the NodeProtos in the field `number` of `message`."""
        constants = dict(outer)
        for part in _parts(message, number):
            node = _message(part)
            if bytes(_merged(node, 7)) == _CLASSIC_ML:
                continue
            operator = _text(_merged(node, 4))
            attributes = {_text(_merged(each, 1)): each for each in map(_message, _parts(node, 5))}
            inputs = [constants.get(bytes(name), []) for name in _parts(node, 1)]
            elements, of_type = _made(operator, attributes, inputs)
            outputs = _parts(node, 2)
            name = _text(outputs[0]) if outputs else "nothing"
            self._add(f"{name}, which {operator} makes", elements, of_type)
            if operator == "Constant" and outputs:
                constants[bytes(outputs[0])] = _constant(attributes)
            for attribute in attributes.values():
                for subgraph in (_merged(attribute, 6), *_parts(attribute, 11)):
                    self.add_graph(_message(subgraph), constants, depth + 1)

    def _add(self, name: str, elements: float, of_type: int) -> None:
        size = elements * _ELEMENT.get(of_type, 8)
        self.total += size
        if size > self.largest:
            self.largest, self.largest_name = size, name


def _made(operator: str, attributes: Mapping[str, Message], inputs: Sequence[list[float]]) -> tuple[float, int]:
    """How many elements of which type a node makes of constants; 0 when that is not known."""
    value = _message(_merged(attributes.get("value", {}), 5))
    match operator, inputs:
        case "Constant", _:
            return _elements(_numbers(value, 1)) if value else 0, _type(value)
        case "ConstantOfShape", [shape, *_] if shape:
            return _elements(shape), _type(value)
        case (("Expand" | "Tile"), [_, shape, *_]) if shape:
            return _elements(shape), _FLOAT
        case "Range", [[start], [end], [step]] if step:
            return max(0.0, (end - start) / step), _FLOAT
        case (("RandomNormal" | "RandomUniform"), _):
            return _elements(_numbers(attributes.get("shape", {}), 8)), _FLOAT
    return 0, _FLOAT


def _constant(attributes: Mapping[str, Message]) -> list[float]:
    """The numbers of a node Constant, if they may be a shape."""
    if found := _numbers(attributes.get("value_ints", {}), 8) or _numbers(attributes.get("value_int", {}), 3):
        return list(map(float, found[:_LONGEST_SHAPE]))
    return _values(_message(_merged(attributes.get("value", {}), 5)))


def _values(tensor: Message) -> list[float]:
    """The numbers of a TensorProto, if they may be a shape."""
    if _type(tensor) not in _NUMBERS or _elements(_numbers(tensor, 1)) > _LONGEST_SHAPE:
        return []
    kind, number = _NUMBERS[_type(tensor)]
    if raw := _merged(tensor, 9):
        return [float(each) for each in np.frombuffer(raw, kind)]
    if kind.startswith("<f"):
        return [float(each) for part in _parts(tensor, number) for each in np.frombuffer(part, kind)]
    return list(map(float, _numbers(tensor, number)))


def _type(tensor: Message) -> int:
    return (_numbers(tensor, 2) or [_FLOAT])[-1]


def _elements(shape: Sequence[float]) -> float:
    return math.prod(max(0, size) for size in shape)


def _text(name: bytes | memoryview) -> str:
    return bytes(name).decode(errors="replace")[:100]


# --- protobuf ---


def _message(data: bytes | memoryview) -> Message:
    """The fields of a protobuf message (https://protobuf.dev/programming-guides/encoding/)."""
    fields = defaultdict[int, list[int | memoryview]](list)
    for number, value in _fields(memoryview(data)):
        fields[number].append(value)
    return fields


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        wire = key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        if wire == 2:
            length, place = _varint(data, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"the file is damaged: a field of type {wire}")
        if place + length > len(data):
            raise ValueError("the file is damaged: it ends early")
        yield key >> 3, data[place : place + length]
        place += length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """A number, and the place after it."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value & (2**64 - 1), place
        if shift > 63:
            raise ValueError("the file is damaged: a number of more than 64 bits")


def _parts(message: Message, number: int) -> list[memoryview]:
    """The values of a repeated field of messages or texts."""
    return [part for part in message.get(number, ()) if isinstance(part, memoryview)]


def _merged(message: Message, number: int) -> bytes | memoryview:
    """The value of a field that is not repeated. Readers merge those of a message that is given several times."""
    parts = _parts(message, number)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _numbers(message: Message, number: int) -> list[int]:
    """The values of a repeated field of signed integers, packed or not."""
    found = list[int]()
    for value in message.get(number, ()):
        if isinstance(value, int):
            found.append(value)
            continue
        place = 0
        while place < len(value):
            each, place = _varint(value, place)
            found.append(each)
    return [each - 2**64 if each >= 2**63 else each for each in found]
