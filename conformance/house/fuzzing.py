"""What comes from outside, spoilt: any bytes describe a few edits of a valid file, and say which file to spoil and how.

A target takes bytes, spoils one file, and lets the suite read it. It raises AssertionError, or whatever the suite
should not have raised, when something is wrong; else it says in a word what came of it.
"""

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")
LONGEST = 2**17  # bytes of a spoilt file
MEMORY = Path("/dev/shm")  # noqa: S108 - files on a disk would take most of the time
NUMBERS = (0, 1, 7, 8, 9, 10**8, 10**8 + 1, 2**31, 2**32 - 1, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 9, 2**64 - 1)
FLOATS = (0x7FC01234, 0x7F800001, 0x7F800000, 0xFF800000, 0x00000001, 0x80000000, 0x7F7FFFFF, 0x3F800001)
WORDS = (
    *b"""-1 0 1 2 65 1.5 -0.0 1e999 NaN Infinity -Infinity true false null [] {} "" [[]] [0] [-1] [0,0] [0,4] [4,0]
    [1,1,1,1] [0,4611686018427387904] [4294967296,4294967296,4294967296] [16777216,16] [0,18446744073709551615] "F32"
    "F64" "BF16" "F16" "F8_E4M3" "F8_E8M0" "F4" "F6_E2M3" "C64" "BOOL" "U8" "I8" "U64" "I64" "f32" "../../x" "/dev/zero"
    "done" "refused" "failed" "not_supported" "\\ud800" "\\u0000" "\\u001b[2J" "[/bold]" "__metadata__" {"a":[0,1]}
    65537 4294967296 9007199254740993 9223372036854775808 18446744073709551615 18446744073709551616 1e308 -1e308
    "pass" "fail" "exact" "bounded" "selection" "reject" "float32" "bfloat16" "deepseek-v3" "expert" "moe" "y" "a\\nb"
    """.split(),
    *(
        b"9" * 400,
        b"9" * 5000,
        b"[" * 2000,
        b'{"a":' * 2000,
        b"[" * 500 + b"]" * 500,
        b'"' + b"x" * 300 + b'"',
        b"",
        b",",
    ),
)
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|\[[^\[\]]*\]|\{[^{}]*\}')


class Told:
    """Choices read off bytes; the first of all where these have ended."""

    def __init__(self, data: bytes) -> None:
        """Begin at the beginning."""
        self.data, self.at = data, 0

    def some(self, size: int) -> bytes:
        """The next bytes."""
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, below: int) -> int:
        """A whole number."""
        return int.from_bytes(self.some((max(below - 1, 1).bit_length() + 7) // 8), "little") % max(below, 1)

    def choice(self, options: Sequence[T]) -> T:
        """One of these."""
        return options[self.number(len(options))]


Edit = tuple[int, int, bytes]  # from, to, and what stands there instead


def flip(data: bytes, told: Told) -> Edit:
    """One bit."""
    at = told.number(len(data))
    return at, at + 1, bytes(byte ^ 1 << told.number(8) for byte in data[at : at + 1])


def put(data: bytes, told: Told) -> Edit:
    """A few bytes in the place of others, or between them, or nothing in their place."""
    at = told.number(len(data))
    return at, at + told.choice((1, 0, 2, 4, 8, 16, 64)), told.some(told.choice((1, 0, 2, 4, 8)))


def double(data: bytes, told: Told) -> Edit:
    """A range twice."""
    at = told.number(len(data))
    return at, at, data[at : at + told.number(4096)]


def truncate(data: bytes, told: Told) -> Edit:
    """Nothing from somewhere on."""
    return told.number(len(data)), len(data), b""


def header(data: bytes, told: Told) -> Edit:
    """Another length of a header."""
    near = int.from_bytes(data[:8], "little") + told.number(17) - 8
    return 0, 8, (told.choice((*NUMBERS, near, len(data) - 8)) % 2**64).to_bytes(8, "little")


def number(data: bytes, told: Told) -> Edit:
    """NaN with a payload, infinity, the least and the largest number."""
    at = told.number(len(data) // 4) * 4 + len(data) % 4
    return at, at + 4, told.choice(FLOATS).to_bytes(4, "little")


def word(data: bytes, told: Told) -> Edit:
    """Another word of JSON; a safetensors header's length follows, so that what is read is the word."""
    found = tokens(data)
    begin, end = told.choice(found) if found else (0, 0)
    other = told.choice(found) if found else (0, 0)
    by = told.choice((*WORDS, *[data[slice(*other)]] * 8))
    if not packed(data):
        return begin, end, by
    size = int.from_bytes(data[:8], "little") + len(by) - (end - begin)
    return 0, end, size.to_bytes(8, "little") + data[8:begin] + by


EDITS = (word, flip, put, double, truncate, header, number, word, word)


def packed(data: bytes) -> bool:
    """Whether these may be tensors, with a header of moderate length."""
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data)


@lru_cache(maxsize=64)
def tokens(data: bytes) -> list[tuple[int, int]]:
    """Where the words of JSON stand, of a file's header if it holds tensors."""
    first, last = (8, 8 + int.from_bytes(data[:8], "little")) if packed(data) else (0, len(data))
    return [found.span() for found in TOKEN.finditer(data, first, last)]


def mutated(seed: bytes, edits: bytes | Told) -> bytes:
    """A file after a few edits; no edits are described by no bytes."""
    told, data = edits if isinstance(edits, Told) else Told(edits), seed
    for _ in range(told.number(5)):
        begin, end, by = told.choice(EDITS)(data, told)
        data = (data[:begin] + by + data[end:])[:LONGEST]
    return data


class Harm(NamedTuple):
    """What was done to which file; `content`, if it is still a file; whether anything is other than before."""

    way: str
    name: str
    content: bytes | None
    changed: bool


class Tree:
    """Files in a private folder, of which one at a time is spoilt and put back."""

    ways = ("edit",) * 12 + ("remove", "link", "zero", "loop", "pipe", "folder", "add")
    extra = ("notes.txt", ".hidden", "README.md", "out.safetensors", "prompt.json", "a\nb", "x\udcff")

    def __init__(self, files: dict[str, bytes]) -> None:
        """Write them."""
        self.files, self.root = files, private() / f"tree-{len(list(private().iterdir()))}"
        for name, content in files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_bytes(content)
        (self.root.with_suffix(".same")).mkdir()

    @contextmanager
    def spoilt(self, told: Told) -> Iterator[Harm]:
        """One of them spoilt."""
        way, name = told.choice(self.ways), told.choice(list(self.files))
        harm = Harm(way, name, None, changed=True)
        if way == "add":
            harm = harm._replace(name=str(Path(name).with_name(told.choice(self.extra))))
        path, before = self.root / harm.name, self.files.get(harm.name)
        try:
            yield self.spoil(harm, path, told)
        finally:
            if before is None or harm.way != "edit":
                clear(path)
            if before is not None:
                path.write_bytes(before)

    def spoil(self, harm: Harm, path: Path, told: Told) -> Harm:
        """Do it."""
        if harm.way in ("edit", "add"):
            content = mutated(self.files.get(harm.name, b"mine"), told)
            path.write_bytes(content)
            return harm._replace(content=content, changed=content != self.files.get(harm.name))
        path.unlink()
        if harm.way == "pipe":
            os.mkfifo(path)
        elif harm.way == "folder":
            path.mkdir()
        elif harm.way != "remove":
            same = self.root.with_suffix(".same") / path.name
            same.write_bytes(self.files[harm.name])
            path.symlink_to({"link": same, "zero": "/dev/zero", "loop": path}[harm.way])
        return harm


def clear(path: Path) -> None:
    """Leave nothing there."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def memory() -> Path | None:
    """Where files lie in memory, if there is such a place."""
    return MEMORY if os.access(MEMORY, os.W_OK) else None


@cache
def private() -> Path:
    """A folder of this process's own, in memory unless TMPDIR says where, gone when it ends."""
    made = tempfile.mkdtemp(prefix="moespec-fuzz-", dir=memory() if "TMPDIR" not in os.environ else None)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)
