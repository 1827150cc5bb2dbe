from __future__ import annotations

import base64
from pathlib import Path

import pytest

from bootc.deploy.install.request import InstallRefused
from bootc.deploy.install.root_keys import home_of_root, read_keys, with_keys
from bootc.errors import one_line
from bootc.formats.tree import Directory, Inline, Leaf, Stat, Symlink

KEY = b"ssh-ed25519 AAAA somebody@example\n"
LABEL = {b"security.selinux": b"etc_t"}


def image(target: str | None) -> Directory:
    home = Directory() if target is None else Leaf(Stat(0o777), Symlink(target.encode()))
    return Directory(entries={b"root": home})


@pytest.mark.parametrize("target", ["var/roothome", "/var/roothome", "./var//roothome/"])
def test_the_home_of_root_is_below_var(target: str) -> None:
    assert home_of_root(image(target)) == "var/roothome"


@pytest.mark.parametrize("target", [None, "usr/root", "/var/../root", "var", "var/a b", "var/%h"])
def test_a_home_in_the_image_is_refused(target: str | None) -> None:
    with pytest.raises(InstallRefused, match="root's home is in the image") as caught:
        home_of_root(image(target))
    assert "var/roothome" in one_line(caught.value)


def test_an_image_without_a_home() -> None:
    with pytest.raises(InstallRefused):
        home_of_root(Directory())


@pytest.mark.parametrize("brought", [b"", b"other.conf"])
def test_systemd_tmpfiles_writes_the_keys(brought: bytes) -> None:
    etc = Directory(Stat(0o755, xattrs=LABEL))
    if brought:
        leaf = Leaf(Stat(0o644), Inline(b"x"))
        etc.entries[b"tmpfiles.d"] = Directory(Stat(0o755, xattrs=LABEL), {brought: leaf})
    changed = with_keys(etc, "var/roothome", KEY)

    directory = changed.entries[b"tmpfiles.d"]
    assert isinstance(directory, Directory)
    assert (directory.stat.mode, directory.stat.xattrs) == (0o755, LABEL)
    assert set(directory.entries) == {b"bootc-root-ssh.conf"} | ({brought} if brought else set())
    file = directory.entries[b"bootc-root-ssh.conf"]
    assert isinstance(file, Leaf)
    assert isinstance(file.content, Inline)
    assert (file.stat.mode, file.stat.uid, file.stat.xattrs) == (0o644, 0, LABEL)
    assert file.content.data.decode().splitlines() == [
        "d /var/roothome/.ssh 0700 root root -",
        "f~ /var/roothome/.ssh/authorized_keys 0600 root root - " + base64.b64encode(KEY).decode(),
    ]
    # The tree of the image is compared with this one at each update.
    assert b"bootc-root-ssh.conf" not in getattr(etc.entries.get(b"tmpfiles.d"), "entries", {})


def test_a_file_in_place_of_the_directory() -> None:
    etc = Directory(entries={b"tmpfiles.d": Leaf(Stat(), Inline(b""))})
    with pytest.raises(InstallRefused, match=r"^/etc/tmpfiles.d of the image is not a directory$"):
        with_keys(etc, "var/roothome", KEY)


def test_keys_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"# mine\n" + KEY)
    assert read_keys(str(tmp_path / "keys")) == b"# mine\n" + KEY


@pytest.mark.parametrize("content", [b"", b"# none\n\n", KEY + b"\0"])
def test_a_file_without_keys_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(InstallRefused, match="has no SSH key"):
        read_keys(str(tmp_path / "keys"))


def test_a_file_that_is_no_list_of_keys(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(KEY * 10000)
    with pytest.raises(OSError, match="larger than"):
        read_keys(str(tmp_path / "keys"))
    with pytest.raises(FileNotFoundError):
        read_keys(str(tmp_path / "none"))
