"""Reads the kernel arguments that an image ships: ``usr/lib/bootc/kargs.d/*.toml``.

Each file has ``kargs = ["quiet", "a=b"]`` and may have ``match-architectures = ["x86_64"]``,
with Rust's names of architectures. Files apply in the order of their names, and a repeated
argument counts once. An image may use the same arguments as an administrator
(:func:`bootc.formats.cmdline.check`).

Anything else is an error, for example an unknown key or a link in the place of a file. If
bootc ignored an argument silently, the machine could become unreachable.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable

from bootc.errors import Error, doing
from bootc.formats import cmdline
from bootc.formats.cmdline import CmdlineError
from bootc.formats.tree import Directory, External, Inline, Leaf, NotADirectoryInTree

#: Their directory in an image.
KARGS_D = "usr/lib/bootc/kargs.d"
_KEYS = {"kargs", "match-architectures"}
#: Rust's names of architectures that differ from the kernel's.
_RUST_NAMES = {"ppc64": "powerpc64", "ppc64le": "powerpc64", "i686": "x86", "armv7l": "arm"}


class KargsError(Error):
    """A file in ``kargs.d`` of the image is wrong."""


def read_kargs_d(
    root: Directory,
    read: Callable[[Inline | External], bytes],
    machine: str,
    *,
    checked: bool = True,
) -> list[str]:
    """Return the kernel arguments of an image for a machine.

    Args:
        root: The tree of the image.
        read: Returns the content of a file.
        machine: The architecture, as ``uname -m`` prints it.
        checked: Refuse arguments that no entry may have. False for an image that runs already.

    Raises:
        KargsError: a file is wrong.
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
    """Return the arguments of one file; empty if it is for other architectures.

    Raises:
        KargsError: the file is not TOML, or has an unknown key, a value of a wrong type, or an
            argument that no entry may have.
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
