"""Reading of pickled state, in which only listed classes can be loaded.

A pickle names each class by the module that held it when the state was written. So each reader has a table from
(module, class) to today's class. With it, state that was written before a class moved is read after the move. A pickle
that names a class outside the table, as a forged one would, is refused before anything runs.
"""

import pickle
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Final

Classes = Mapping[tuple[str, str], Any]
"""Classes that a pickle may load, by the module and the name in the pickle."""
NO_CLASSES: Final[Classes] = {}


class UnknownStateClass(Exception):
    """A pickle in the state names a class that its reader does not list."""


class _StateUnpickler(pickle.Unpickler):
    """An unpickler that finds classes in a table and nowhere else."""

    def __init__(self, packed: bytes, classes: Classes) -> None:
        super().__init__(BytesIO(packed))
        self._classes = classes

    def find_class(self, module: str, name: str) -> Any:
        """Return the class that the table has under this name. Raises UnknownStateClass."""
        try:
            return self._classes[module, name]
        except KeyError:
            raise UnknownStateClass(
                f"the state names {module}.{name}, which its reader does not list. If that class was moved or renamed, "
                "add its earlier name to the table beside the reader; otherwise these bytes are not ours"
            ) from None


def read_pickle(packed: bytes, classes: Classes = NO_CLASSES) -> Any:
    """Return what `packed` holds: plain data, and objects of `classes`. Raises UnknownStateClass."""
    return _StateUnpickler(packed, classes).load()
