"""Kernel arguments an image ships: ``usr/lib/bootc/kargs.d/*.toml``.

Each file holds ``kargs = ["quiet", "a=b"]`` and may hold
``match-architectures = ["x86_64"]``, in the names Rust has for architectures.
Files apply in the order of their names, and an argument given twice counts once.
An unknown key is an error, because ignoring it would boot with other arguments
than the image's maker meant.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable

from bootc.errors import Error
from bootc.formats import cmdline
from bootc.formats.tree import Directory, External, Inline, Leaf

#: Where they are in an image.
KARGS_D = "usr/lib/bootc/kargs.d"
_KEYS = {"kargs", "match-architectures"}
#: Where Rust's name of an architecture is not the kernel's.
_RUST_NAMES = {"ppc64": "powerpc64", "ppc64le": "powerpc64", "i686": "x86", "armv7l": "arm"}


class KargsError(Error):
    """A ``kargs.d`` file of the image is wrong."""


def read_kargs_d(
    root: Directory, read: Callable[[Inline | External], bytes], machine: str
) -> list[str]:
    """Return the arguments that an image asks for on ``machine`` (a name as ``uname -m`` prints).

    Raises:
        KargsError: a file is not what it should be.
        OSError: ``read`` failed.
    """
    directory = root.lookup(KARGS_D)
    arguments: list[str] = []
    if not isinstance(directory, Directory):
        return arguments
    architecture = _RUST_NAMES.get(machine, machine)
    for raw_name, node in directory.sorted_entries():
        if not raw_name.endswith(b".toml"):
            continue
        name = f"{KARGS_D}/{raw_name.decode('utf-8', 'backslashreplace')}"
        if not isinstance(node, Leaf) or not isinstance(node.content, Inline | External):
            raise KargsError(f"{name} is not a regular file")
        found = parse_kargs_d(name, read(node.content), architecture)
        arguments = cmdline.extend(arguments, found)
    return arguments


def parse_kargs_d(name: str, data: bytes, architecture: str) -> list[str]:
    """Return the arguments of one file, none if it is for other architectures.

    Raises:
        KargsError: not TOML, an unknown key, or a key of the wrong type.
    """
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as exc:
        raise KargsError(f"{name} is not UTF-8 at offset {exc.start}") from None
    except tomllib.TOMLDecodeError as exc:
        raise KargsError(f"{name} is not TOML: {exc}") from None
    except RecursionError:
        raise KargsError(f"{name} nests values too deeply") from None
    unknown = sorted(table.keys() - _KEYS)
    if unknown:
        raise KargsError(f"{name} has the unknown key {unknown[0]!r}")
    kargs = _strings(name, "kargs", table.get("kargs"))
    if "match-architectures" in table:
        matching = _strings(name, "match-architectures", table["match-architectures"])
        if architecture not in matching:
            return []
    return [argument for text in kargs for argument in cmdline.parse(text)]


def _strings(name: str, key: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise KargsError(f"{name} needs {key!r} to be a list of strings")
    return value
