from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.deploy.install.secureboot import BadSecureBootKeys, write_keys
from bootc.formats.tree import Directory, External, Inline, Leaf, Node, Stat, Symlink
from bootc.fs.dir import Dir

KEYS = b"usr/lib/bootc/install/secureboot-keys"


def tree(keys: Node) -> Directory:
    root = Directory()
    here = root
    *above, last = KEYS.split(b"/")
    for name in above:
        here.entries[name] = below = Directory()
        here = below
    here.entries[last] = keys
    return root


def directory(**entries: Node) -> Directory:
    return Directory(Stat(0o755), {name.encode(): node for name, node in entries.items()})


def file(data: bytes) -> Leaf:
    return Leaf(Stat(0o644), Inline(data))


def read(content: Inline | External) -> bytes:
    assert isinstance(content, Inline)
    return content.data


def write(root: Directory, path: Path) -> list[str]:
    with Dir.open(path) as esp:
        return list(write_keys(root, read, esp))


def test_keys_go_to_the_esp_and_other_files_do_not(tmp_path: Path) -> None:
    auto = directory(**{"PK.auth": file(b"pk"), "db.auth": file(b"db"), "db.crt": file(b"no")})
    written = write(tree(directory(auto=auto, other=directory())), tmp_path)
    assert written == ["loader/keys/auto/PK.auth", "loader/keys/auto/db.auth"]
    assert (tmp_path / "loader/keys/auto/PK.auth").read_bytes() == b"pk"
    assert sorted(os.listdir(tmp_path / "loader/keys/auto")) == ["PK.auth", "db.auth"]


def test_a_file_above_the_keys(tmp_path: Path) -> None:
    root = Directory(entries={b"usr": directory(lib=directory(bootc=file(b"")))})
    with pytest.raises(BadSecureBootKeys, match=r"^usr/lib/bootc is not a directory but a file"):
        write(root, tmp_path)


def test_an_image_without_keys(tmp_path: Path) -> None:
    assert write(Directory(), tmp_path) == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (file(b""), "secureboot-keys is not a directory"),
        (directory(**{"PK.auth": file(b"pk")}), "secureboot-keys/PK.auth is not a directory"),
        (
            directory(auto=directory(**{"PK.auth": Leaf(Stat(), Symlink(b"x"))})),
            "auto/PK.auth is not a regular file",
        ),
        (
            directory(auto=directory(**{"PK.auth": directory()})),
            "auto/PK.auth is not a regular file",
        ),
        (Leaf(Stat(), Symlink(b"x")), "secureboot-keys is not a directory but a symbolic link"),
        (Directory(Stat(), {b"\xff": Directory()}), "the unusable name"),
        (Directory(Stat(), {b"a:b": Directory()}), "the unusable name b'a:b'"),
        (directory(auto=directory(**{"a\rb.auth": file(b"pk")})), "the unusable name"),
        (
            directory(auto=directory(), Auto=directory()),
            "Auto and auto have the same name on the ESP",
        ),
        (
            directory(auto=directory(**{"PK.auth": file(b"1"), "pk.auth": file(b"2")})),
            "auto/PK.auth and pk.auth have the same name on the ESP",
        ),
    ],
)
def test_keys_in_the_wrong_place(tmp_path: Path, keys: Node, message: str) -> None:
    with pytest.raises(BadSecureBootKeys, match=message):
        write(tree(keys), tmp_path)
