"""Pickle -> plain values: numbers, text, containers, descriptions of tensors, and stubs for all other objects.

`read_pickle` interprets the instructions of a pickle itself and never calls, imports or builds what they name. A class
or function of the file is only a `Name`, and what it would have returned is a `Stub`. Hence no file can run code.
"""

import io
import itertools
import mmap
import pickle
import pickletools
from dataclasses import dataclass, field
from typing import Any

import torch

_MAX_INSTRUCTIONS = 3_000_000
"""A checkpoint of 1,000 tensors has about 50,000."""
_MAX_WRAPPERS = 8
_DTYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "Untyped": torch.uint8, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
}  # fmt: skip
"""Type of a storage, without the word Storage -> type of its values; untyped storages are counted in bytes."""
_BY_NAME = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_DICTS = frozenset(("collections.OrderedDict", "collections.defaultdict", "builtins.dict", "__builtin__.dict"))
_PARAMETERS = frozenset(("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"))
_TENSORS = frozenset(f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3"))
_SUBCLASSES = frozenset(("torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type"))
_NEW_OBJECTS = ("copyreg.", "copy_reg.")
"""Helpers that build an instance of the class that is their first argument."""


@dataclass(frozen=True)
class Name:
    """Name of a class or function that a pickle refers to; it is never imported."""

    text: str


@dataclass(eq=False)
class Stub:
    """An object that was not built.

    Its name is that of its class, or of the function that would have returned it. Its contents are its attributes and
    items, by name or number.
    """

    name: str
    contents: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Storage:
    """Reference to the values of a tensor, which are outside the pickle.

    `start` is the index of the first value; above 0 for a view of a larger storage.
    """

    key: str
    dtype: torch.dtype
    count: int
    start: int = 0


@dataclass(frozen=True)
class StoredTensor:
    """Description of a tensor; offset and strides count the values of its storage."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_pickle(stream: io.BytesIO | mmap.mmap) -> Any:
    """Interpret one pickle and leave the stream after its end.

    Both types of streams allocate only the bytes that they have, whatever number the pickle requests.

    Raises:
        ValueError, TypeError, LookupError: The pickle is cut short or not valid.
    """
    machine = _Machine()
    source: Any = stream  # typeshed does not know that an mmap is enough
    instructions = ((code.name, value) for code, value, _ in pickletools.genops(source))
    for name, value in itertools.islice(instructions, _MAX_INSTRUCTIONS):
        if name == "STOP":
            return machine.stack.pop()
        machine.step(name, value)
    raise ValueError(f"has more than {_MAX_INSTRUCTIONS:,} pickle instructions")


class _Machine:
    """Stack, marks and memo of the pickle machine. Source: the comments in Python's `pickletools`."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, value: Any) -> None:
        """Interpret one instruction."""
        stack = self.stack
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name.startswith("EMPTY_"):
            stack.append(_EMPTY[name]())
        elif name in _LITERALS:
            stack.append(value)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[int(value)])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else int(value)] = stack[-1]
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name == "PROTO":
            if value > pickle.HIGHEST_PROTOCOL:
                raise ValueError(f"has the pickle protocol {value}, which does not exist")
        elif name == "FRAME":
            pass
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP":
            if self._marks and self._marks[-1] == len(stack):
                self._marks.pop()
            else:
                stack.pop()
        elif name == "POP_MARK":
            self._since_mark()
        elif name in _FIXED or name in _MARKED:
            self._collect(name)
        else:
            self._refer(name, value)

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _collect(self, name: str) -> None:
        """Make a container of items on the stack, or add items to the one below them."""
        if name in _FIXED:
            count = _FIXED[name]
            items = self.stack[len(self.stack) - count :]
            del self.stack[len(self.stack) - count :]
            if len(items) < count:
                raise ValueError("too few items on the stack")
        else:
            items = self._since_mark()
        if name.startswith("TUPLE"):
            self.stack.append(tuple(items))
        elif name in ("LIST", "DICT", "FROZENSET"):
            empty: Any = {} if name == "DICT" else []
            _extend(empty, items, by_key=name == "DICT")
            self.stack.append(empty)
        else:
            _extend(self.stack[-1], items, by_key=name in ("SETITEM", "SETITEMS"))

    def _refer(self, name: str, value: Any) -> None:
        """Interpret the instructions that would import or build something."""
        stack = self.stack
        if name == "GLOBAL":
            stack.append(Name(".".join(value.split(" "))))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(Name(f"{module}.{attribute}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments = stack.pop()
            stack.append(_result(stack.pop(), arguments))
        elif name == "NEWOBJ_EX":
            _, arguments = stack.pop(), stack.pop()
            stack.append(_result(stack.pop(), arguments))
        elif name == "INST":
            stack.append(_result(Name(".".join(value.split(" "))), tuple(self._since_mark())))
        elif name == "OBJ":
            kind, *arguments = self._since_mark()
            stack.append(_result(kind, tuple(arguments)))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Stub):
                for part in state if isinstance(state, tuple) else (state,):
                    stack[-1].contents |= part if isinstance(part, dict) else {"state": part}
        elif name in ("PERSID", "BINPERSID"):
            stack.append(_storage(stack.pop() if name == "BINPERSID" else value))
        else:
            raise ValueError(f"instruction {name} is not supported")


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Any] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list, "EMPTY_TUPLE": tuple}
"""Sets become lists: hashing a deeply nested tuple would overflow the C stack."""
_PLAIN_KEYS = (str, int, float, bytes, type(None))
_LITERALS = frozenset(
    ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
     "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
     "BINBYTES8", "BYTEARRAY8")
)  # fmt: skip
_FIXED = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2}
_MARKED = frozenset(("TUPLE", "LIST", "DICT", "FROZENSET", "APPENDS", "SETITEMS", "ADDITEMS"))


def _extend(target: Any, items: list[Any], *, by_key: bool) -> None:
    """Add items to a container, or to the contents of a stub, which may be a container of an unknown class."""
    if by_key:
        pairs = zip(items[::2], items[1::2], strict=True)
        plain = {key: value for key, value in pairs if isinstance(key, _PLAIN_KEYS)}
        (target.contents if isinstance(target, Stub) else _of(dict, target)).update(plain)
    elif isinstance(target, Stub):
        target.contents |= dict(enumerate(items, len(target.contents)))
    else:
        _of(list, target).extend(items)


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"a {type(value).__name__} in place of a {kind.__name__}")
    return value


def _result(function: Any, arguments: Any) -> Any:
    """Return a plain value for what a function or class of the file would return, and a stub for anything unknown."""
    for _ in range(_MAX_WRAPPERS):
        name = function.text if isinstance(function, Name) else "unknown object"
        if name in _SUBCLASSES and isinstance(arguments, tuple) and len(arguments) > 2:
            function, arguments = arguments[0], arguments[2]
        else:
            break
    known = isinstance(arguments, tuple)
    if known and name in _TENSORS:
        return _tensor(arguments[:4], arguments[6] if name.endswith("_v3") else None)
    if known and name in _PARAMETERS and arguments:
        return arguments[0]
    if name in _DICTS:
        values: dict[Any, Any] = {}
        pairs = arguments[0] if known and arguments and isinstance(arguments[0], list) else ()  # Python 2 wrote these
        _extend(values, list(itertools.chain.from_iterable(_of(list, pair) for pair in pairs)), by_key=True)
        return values
    if known and name == "torch.Size" and arguments:
        return tuple(_of(tuple if isinstance(arguments[0], tuple) else list, arguments[0]))
    if known and name.startswith(_NEW_OBJECTS) and arguments and isinstance(arguments[0], Name):
        return {} if arguments[0].text in _DICTS else Stub(arguments[0].text)
    return Stub(name, dict(enumerate(arguments)) if known else {})


def _tensor(arguments: tuple[Any, ...], dtype: Any) -> StoredTensor | Stub:
    storage, offset, shape, stride = arguments
    if not isinstance(storage, Storage) or (dtype is not None and dtype.text not in _BY_NAME):
        return Stub("a tensor of an unsupported type")
    counts = (offset, *_of(tuple, shape), *_of(tuple, stride))
    if any(type(count) is not int or count < 0 for count in counts):
        raise ValueError("a tensor has an impossible shape")
    if len(shape) != len(stride):
        raise ValueError("a tensor has more axes than strides")
    kind = storage.dtype if dtype is None else _BY_NAME[dtype.text]
    return StoredTensor(storage, kind, offset, shape, stride)


def _storage(reference: Any) -> Any:
    """Return what a persistent id refers to: a storage, or in old files a module together with its source code."""
    kind, what, *rest = _of(tuple, reference)
    if kind == "module":
        return what
    if kind != "storage":
        raise ValueError(f"refers to a {kind!r} outside the pickle")
    key, _, count, *view = rest
    kind = (what.text if isinstance(what, Name) else str(what)).rsplit(".", 1)[-1].removesuffix("Storage")
    if kind not in _DTYPES:
        return Stub(kind)
    start, count = (view[0][1], view[0][2]) if view and view[0] else (0, count)
    if any(type(number) is not int or number < 0 for number in (start, count)):
        raise ValueError("a storage has an impossible size")
    return Storage(str(key), _DTYPES[kind], count, start)
