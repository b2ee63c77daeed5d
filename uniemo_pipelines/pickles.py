"""Reading pickles that nobody vouches for: `torch.save`'s files and bare pickles, numpy's among them.

A pickle can name any function and have it called. Here one may name what tensors, arrays, dicts, lists, strings and
numbers are made of, and the namespace in which argparse keeps a program's settings; one that names anything else is
refused before any of it is called. No other module of this library reads pickles.
"""

import argparse
import codecs
import collections
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy
import torch

# Where they are differs between numpy 1 and 2, so numpy itself is asked.
_RECONSTRUCT, _FROM_BUFFER = numpy.zeros(1).__reduce__()[0], numpy.zeros(1).__reduce_ex__(5)[0]
_SCALAR = numpy.float64(0).__reduce__()[0]
_NUMBERS_AND_STRINGS = numpy.typecodes["AllInteger"] + numpy.typecodes["AllFloat"] + "?US"
_DTYPES = {type(numpy.dtype(code)) for code in _NUMBERS_AND_STRINGS}

_ALLOWED: dict[str, Any] = {
    "numpy.ndarray": numpy.ndarray,
    "numpy.dtype": numpy.dtype,
    "collections.OrderedDict": collections.OrderedDict,
    "_codecs.encode": codecs.encode,  # an array's bytes in pickles of protocol 2 and before
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray._reconstruct"] = _RECONSTRUCT
    _ALLOWED[f"{_core}.multiarray.scalar"] = _SCALAR
    _ALLOWED[f"{_core}.numeric._frombuffer"] = _FROM_BUFFER

# The released code keeps its settings in every stage-1 checkpoint; a Namespace only ever sets its own attributes.
_ALLOWED_IN_CHECKPOINTS = [*((value, name) for name, value in _ALLOWED.items()), *_DTYPES, argparse.Namespace]


class _RefusedGlobal(Exception):
    """A pickle asks for something that is not allowed."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[f"{module}.{name}"]
        except KeyError:
            raise _RefusedGlobal(f"{module}.{name}") from None


def read_pickle(path: Path) -> Any:
    """What a file of `torch.save` (either format) or of `pickle.dump` holds; tensors on the CPU.

    Tensors of the newer format are read from the file as they are used: a checkpoint's optimiser costs nothing.

    Raises:
        ValueError: the pickle names something that is not allowed, or the file is cut short, damaged or no pickle.
        OSError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            content = None if is_zip else _Unpickler(file).load()
        # The older format starts with a pickled number of its own.
        if is_zip or (isinstance(content, int) and content == torch.serialization.MAGIC_NUMBER):
            content = _load_checkpoint(path, is_zip)
        return content
    except _RefusedGlobal as error:
        raise ValueError(
            f"{path}: expected tensors, arrays, dicts, lists, strings and numbers, found a pickle that asks for "
            f"{error}; nothing of it was run. Do not open this file by other means unless you trust its author."
        ) from None
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to ask for
        reason = str(error).split("\n")[0].split(". ")[0] or type(error).__name__
        raise ValueError(
            f"{path}: expected a file of torch.save or a pickle, found one cut short, damaged or of another kind "
            f"({reason}); fetch it again."
        ) from None


def _load_checkpoint(path: Path, is_zip: bool) -> Any:
    if is_zip and not zipfile.is_zipfile(path):
        raise EOFError("its end is missing")
    with torch.serialization.safe_globals(_ALLOWED_IN_CHECKPOINTS):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        except pickle.UnpicklingError as error:
            if asked := re.search(r"GLOBAL ([\w.]+)", str(error)):
                raise _RefusedGlobal(asked[1].rstrip(".")) from None
            raise
