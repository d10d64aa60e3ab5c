"""typeguard 4: how to import a library without the type checks that it adds to its own classes."""

from collections.abc import Iterator
from contextlib import contextmanager

import typeguard


@contextmanager
def no_type_checks() -> Iterator[None]:
    """Classes that are decorated with `typeguard.typechecked` within the block stay as they are.

    typeguard would rewrite their source, which takes seconds for a large library.
    """
    checked = typeguard.typechecked
    typeguard.typechecked = lambda target: target  # type: ignore[assignment]
    try:
        yield
    finally:
        typeguard.typechecked = checked
