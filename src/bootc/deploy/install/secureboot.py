"""Secure Boot keys that an image brings for firmware in setup mode.

``usr/lib/bootc/install/secureboot-keys/<set>/*.auth`` goes to ``loader/keys/<set>/``
on the ESP, from where systemd-boot enrols them at the first start. A file in the wrong place
is an error: otherwise the machine would silently run without the keys of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bootc.errors import Error, doing
from bootc.formats import fat
from bootc.formats.tree import Directory, External, Inline, Leaf, NotADirectoryInTree
from bootc.fs import atomic
from bootc.fs.dir import Dir

_SOURCE = "usr/lib/bootc/install/secureboot-keys"
_TARGET = "loader/keys"
_SUFFIX = b".auth"


class BadSecureBootKeys(Error):
    """The image's directory of Secure Boot keys is not laid out as it must be."""


def find_keys(root: Directory) -> Iterator[tuple[str, str, Inline | External]]:
    """Yield set, file name and content of every key.

    Raises:
        BadSecureBootKeys: a file is in a place where no key may be.
    """
    try:
        top = root.find_directory(_SOURCE)
    except NotADirectoryInTree as exc:
        raise BadSecureBootKeys(exc.message) from None
    if top is None:
        return
    _check_case(_SOURCE, top)
    for raw_set, directory in top.sorted_entries():
        key_set = _text(raw_set)
        if not isinstance(directory, Directory):
            raise BadSecureBootKeys(f"{_SOURCE}/{key_set} is not a directory of keys")
        _check_case(f"{_SOURCE}/{key_set}", directory)
        for raw_name, node in directory.sorted_entries():
            if not raw_name.endswith(_SUFFIX):
                continue
            name = _text(raw_name)
            if not isinstance(node, Leaf) or not isinstance(node.content, Inline | External):
                raise BadSecureBootKeys(f"{_SOURCE}/{key_set}/{name} is not a regular file")
            yield key_set, name, node.content


def write_keys(
    root: Directory, read: Callable[[Inline | External], bytes], esp: Dir
) -> Iterator[str]:
    """Write the keys to the ESP, and yield the path of each one there.

    Raises:
        BadSecureBootKeys: a file is in a place where no key may be.
        OSError: reading or writing failed.
    """
    for key_set, name, content in find_keys(root):
        path = f"{_TARGET}/{key_set}"
        with doing(f"Writing Secure Boot key {path}/{name}"), esp.ensure_dir(path) as directory:
            atomic.write_file(directory, name, read(content), durable=True)
        yield f"{path}/{name}"


def _check_case(path: str, directory: Directory) -> None:
    names = [name.decode("latin-1") for name in directory.entries]
    if same := fat.same_names(names):
        one, other = sorted(same)
        raise BadSecureBootKeys(f"{path}/{one} and {other} have the same name on the ESP")


def _text(raw: bytes) -> str:
    try:
        name = raw.decode("ascii")
    except UnicodeDecodeError:
        # FAT stores names as UTF-16; bytes that are not text cannot be a name there.
        name = ""
    if not fat.is_name(name):
        raise BadSecureBootKeys(f"{_SOURCE} holds the unusable name {raw!r}")
    return name
