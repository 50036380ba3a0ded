"""Reads the pickle inside a PyTorch checkpoint as data: nothing in it is called.

A pickle is a small program, and one of its instructions calls any function of any
module: to unpickle a stranger's file is to run it. So `pickle` has no part in this
reader. `pickletools` of the standard library cuts the file into instructions, and the
loop below carries out those that build plain values. The few names that a checkpoint
needs stand for records of ours; every other name is refused.
"""

import dataclasses
import pickletools
import warnings
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

__all__ = ["Storage", "Tensor", "load"]

_DTYPES = {
    "Double": np.float64,
    "Float": np.float32,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
}
# Files from before PyTorch 0.4 name the device too.
_STORAGES = {
    f"torch.{device}{kind}Storage": np.dtype(dtype)
    for kind, dtype in _DTYPES.items()
    for device in ("", "cuda.")
}


class Storage(NamedTuple):
    """A run of numbers in the file, which several tensors may share."""

    key: str
    dtype: np.dtype
    size: int  # in numbers


@dataclasses.dataclass
class Tensor:
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: Storage | None = None
    offset: int = 0
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()

    def restore(self, state):
        """What PyTorch before 0.4 wrote after the object."""
        if len(state) == 4:  # a tensor
            self.storage, self.offset, self.shape, self.strides = state
        elif len(state) == 5:  # a Parameter: its tensor, and gradient bookkeeping
            vars(self).update(vars(state[0]))


class _Global(NamedTuple):
    """A name of a module; only what `_CALLS` says about it ever happens."""

    name: str


class _Ignored:
    """An object that holds no weights: options, counters, random states."""


def load(file) -> tuple[Any, dict[str, Storage]]:
    """Reads one pickle.

    Args:
      file: binary, at the first instruction; afterwards just behind the last one. A
        pickle states lengths, so `file.read(n)` must not reserve n bytes: give a
        BytesIO or an mmap.

    Returns:
      The value, of dicts (with strings and integers as keys), lists, tuples, plain
      values and Tensors; and the storages that it named, by key.

    Raises:
      ValueError: not a pickle, a damaged one, or one with a name that is not known.
    """
    machine = _Machine()
    try:
        with warnings.catch_warnings():
            # Of an odd backslash in a name, which will be refused.
            warnings.simplefilter("ignore", DeprecationWarning)
            for opcode, argument, _ in pickletools.genops(file):
                machine.step(opcode.name, argument)
        return machine.stack.pop(), machine.storages
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            "its pickle is damaged: an instruction does not suit what it works on"
        ) from error


class _Machine:
    """The stack and the memo of a pickle, and what its instructions do to them."""

    def __init__(self):
        self.stack, self.marks, self.memo, self.storages = [], [], {}, {}
        self.argument = None  # what follows the opcode in the file

    def step(self, name, argument):
        self.argument = argument
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _FRESH:
            self.stack.append(_FRESH[name]())
        elif name in _STEPS:
            _STEPS[name](self)
        else:
            raise ValueError(f"its pickle has the instruction {name}, unknown here")

    def since_mark(self):
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    # The instructions ----------------------------------------------------------------

    def nothing(self):
        pass

    def mark(self):
        self.marks.append(len(self.stack))

    def pop(self):
        self.stack.pop()

    def put(self):
        self.memo[self.argument] = self.stack[-1]

    def memoize(self):
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self):
        self.stack.append(self.memo[self.argument])

    def long_tuple(self):
        self.stack.append(tuple(self.since_mark()))

    def short_tuple(self, count):
        items = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def append(self):
        self.extend([self.stack.pop()])

    def appends(self):
        self.extend(self.since_mark())

    def extend(self, items):
        if not isinstance(self.stack[-1], _Ignored):
            self.stack[-1].extend(items)

    def set_item(self):
        value, key = self.stack.pop(), self.stack.pop()
        self.update([(key, value)])

    def set_items(self):
        items = self.since_mark()
        self.update(zip(items[::2], items[1::2], strict=True))

    def update(self, items):
        if not isinstance(self.stack[-1], _Ignored):
            _fill(self.stack[-1], items)

    def name(self):
        self.stack.append(_known(self.argument.replace(" ", ".")))

    def stack_name(self):
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_known(module + "." + name))

    def call(self):
        arguments, called = self.stack.pop(), self.stack.pop()
        self.stack.append(_CALLS[called.name](*arguments))

    def state(self):
        state = self.stack.pop()
        if isinstance(self.stack[-1], Tensor):
            self.stack[-1].restore(state)

    def persistent(self):
        kind, named, key, _, size, *window = self.stack.pop()
        if kind != "storage" or type(key) is not str or type(size) is not int:
            raise ValueError("its pickle refers to something that is not a storage")
        if any(part is not None for part in window):
            raise ValueError("its storages are windows of others, unknown here")
        storage = Storage(key, _STORAGES[named.name], size)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"its pickle describes storage {key:.40} in two ways")
        self.stack.append(storage)


def _known(name):
    """The name, if it is one of those that only describe weights."""
    if name not in _CALLS and name not in _STORAGES:
        raise ValueError(
            f"refused: it names {name!r:.200}, and a checkpoint of weights has no need "
            "of that; to unpickle it could run code. If you trust the file, save its "
            "state_dict alone: torch.save(model.state_dict(), path)"
        )
    return _Global(name)


def _fill(target, items):
    for key, value in items:
        # Other keys name no weights; and to hash a deep tuple overflows C's stack.
        if isinstance(key, (str, int)):
            target[key] = value
    return target


def _ordered_dict(items=()):
    return _fill({}, items)  # Python 2 wrote the items, Python 3 sets them later


def _tensor(storage=None, offset=0, shape=(), strides=(), *_):
    return Tensor(storage, offset, shape, strides)


def _parameter(tensor=None, *_):
    return Tensor() if tensor is None else tensor


def _ignored(*_):
    return _Ignored()


# What training programs store beside the weights.
_IGNORED = [
    "argparse.Namespace",
    "collections.Counter",
    "collections.defaultdict",
    "torch.device",
    *(
        f"{module}.{kind}"
        for module in ("builtins", "__builtin__")
        for kind in ("set", "dict", "list")
    ),
    *(f"torch.{kind}" for kind in ("float16", "bfloat16", "float32", "float64")),
    # A NumPy number: its type, and its bytes as Python 2 could read them.
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "_codecs.encode",
]
_CALLS = dict.fromkeys(_IGNORED, _ignored) | {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.Size": tuple,
}
_CALLS |= {  # the tensors of PyTorch 0.1, empty until their state follows
    name.replace("Storage", "Tensor"): _tensor for name in _STORAGES
}

_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINSTRING", "SHORT_BINSTRING"),  # Python 2's
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_FRESH = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_STEPS = {
    "PROTO": _Machine.nothing,
    "FRAME": _Machine.nothing,
    "STOP": _Machine.nothing,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "TUPLE": _Machine.long_tuple,
    "TUPLE1": lambda machine: machine.short_tuple(1),
    "TUPLE2": lambda machine: machine.short_tuple(2),
    "TUPLE3": lambda machine: machine.short_tuple(3),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.state,
    "BINPERSID": _Machine.persistent,
}
