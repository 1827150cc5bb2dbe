"""Kernel arguments an image ships: ``usr/lib/bootc/kargs.d/*.toml``.

Each file holds ``kargs = ["quiet", "a=b"]`` and may hold
``match-architectures = ["x86_64"]``, in the names Rust has for architectures.
Files apply in the order of their names, and an argument given twice counts once.
An unknown key is an error, because ignoring it would boot with other arguments
than the image's maker meant. For the same reason whatever stands in the way of the files
or in them is an error: arguments that are silently left out make a machine nobody can reach.
An image may ask for what a person may ask for (:func:`bootc.formats.cmdline.check`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable

from bootc.errors import Error, doing
from bootc.formats import cmdline
from bootc.formats.cmdline import CmdlineError
from bootc.formats.tree import Directory, External, Inline, Leaf, NotADirectoryInTree

#: Where they are in an image.
KARGS_D = "usr/lib/bootc/kargs.d"
_KEYS = {"kargs", "match-architectures"}
#: Where Rust's name of an architecture is not the kernel's.
_RUST_NAMES = {"ppc64": "powerpc64", "ppc64le": "powerpc64", "i686": "x86", "armv7l": "arm"}


class KargsError(Error):
    """A ``kargs.d`` file of the image is wrong."""


def read_kargs_d(
    root: Directory,
    read: Callable[[Inline | External], bytes],
    machine: str,
    *,
    checked: bool = True,
) -> list[str]:
    """Return the arguments that an image asks for on ``machine`` (a name as ``uname -m`` prints).

    Args:
        root: The image's tree.
        read: Returns the content of a file.
        machine: The machine.
        checked: Refuse arguments that no entry may get. Not for an image that runs already.

    Raises:
        KargsError: a file is not what it should be.
        OSError: ``read`` failed; a note names the file.
    """
    try:
        directory = root.find_directory(KARGS_D)
    except NotADirectoryInTree as exc:
        raise KargsError(
            f"{exc.message}: the image's kernel arguments would be lost",
            hint=f"make {KARGS_D} a directory of files *.toml",
        ) from None
    arguments: list[str] = []
    if directory is None:
        return arguments
    architecture = _RUST_NAMES.get(machine, machine)
    for raw_name, node in directory.sorted_entries():
        if not raw_name.endswith(b".toml"):
            continue
        name = f"{KARGS_D}/{raw_name.decode('utf-8', 'backslashreplace')}"
        if not isinstance(node, Leaf) or not isinstance(node.content, Inline | External):
            raise KargsError(f"{name} is not a regular file")
        with doing(f"Reading {name} of the image"):
            data = read(node.content)
        found = parse_kargs_d(name, data, architecture, checked=checked)
        arguments = cmdline.extend(arguments, found)
    return arguments


def parse_kargs_d(name: str, data: bytes, architecture: str, *, checked: bool = True) -> list[str]:
    """Return the arguments of one file, none if it is for other architectures.

    Raises:
        KargsError: not TOML, an unknown key, a key of the wrong type, or an argument that no
            entry may get.
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
    if checked:
        _check(name, kargs)
    if "match-architectures" in table:
        matching = _strings(name, "match-architectures", table["match-architectures"])
        if architecture not in matching:
            return []
    return [argument for text in kargs for argument in cmdline.parse(text)]


def _check(name: str, kargs: list[str]) -> None:
    for text in kargs:
        try:
            cmdline.check(text)
        except CmdlineError as exc:
            raise KargsError(f"{name}: {exc.message}", hint=exc.hint) from None


def _strings(name: str, key: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise KargsError(f"{name} needs {key!r} to be a list of strings")
    return value
