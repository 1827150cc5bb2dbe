"""What is known of an image before it is pulled."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from bootc.boot.kargs import KARGS_D, KargsError
from bootc.deploy.bootable import (
    InsufficientSpace,
    check_space,
    kargs_d_of,
    kargs_d_of_deployed,
    note_label,
)
from bootc.events import Event, Message
from bootc.formats.imgref import ImageReference
from bootc.formats.tree import Directory, Inline, Leaf, Stat
from bootc.fs.dir import Dir
from bootc.oci.layoutdir import LayoutSource, open_layout
from bootc.oci.pull import pull
from bootc.repository.repository import Repository
from support import images


def opened(layout: images.Layout) -> LayoutSource:
    return open_layout(ImageReference.parse(layout.reference()), images.ARCHITECTURE)


@pytest.mark.parametrize(
    ("labels", "noted"),
    [({"containers.bootc": "1"}, False), ({"containers.bootc": "0"}, True), ({}, True)],
)
def test_an_image_that_does_not_call_itself_bootable(
    tmp_path: Path, labels: dict[str, str], noted: bool
) -> None:
    layout = images.Layout(tmp_path / "layout")
    layout.image([images.bootable()], config={"config": {"Labels": labels}})
    events: list[Event] = []
    with opened(layout) as source:
        note_label(source, events.append)
        text = f"notice: {source.imgref} may be no operating system: no label containers.bootc=1"
    assert events == ([Message(text)] if noted else [])


def test_room_for_the_layers_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = images.bootable(kernel=b"kernel", initramfs=b"initramfs")
    old = images.single(tmp_path / "old", base)
    new = images.single(tmp_path / "new", base, images.layer(images.file("usr/new", b"x")))
    with (
        Dir.open(tmp_path) as root,
        Repository.create(root, secure=False) as repository,
        opened(old) as installed,
        opened(new) as update,
    ):
        size = update.layers[1].size_bytes
        room = SimpleNamespace(f_frsize=1, f_bavail=size)
        monkeypatch.setattr(os, "statvfs", lambda fd: room)
        with pytest.raises(InsufficientSpace, match=rf"available: {size} required: "):
            check_space(repository, update)
        pull(repository, installed)
        check_space(repository, update)
        room.f_bavail = size - 1
        with pytest.raises(InsufficientSpace, match=rf"available: {size - 1} required: {size}\)"):
            check_space(repository, update)


def tree_with(path: str, data: bytes) -> Directory:
    node: Directory | Leaf = Leaf(Stat(), Inline(data))
    for name in reversed(path.split("/")):
        node = Directory(entries={name.encode(): node})
    assert isinstance(node, Directory)
    return node


@pytest.mark.parametrize(
    ("path", "data", "deployed"),
    [
        (f"{KARGS_D}/10.toml", b'kargs = ["composefs=x", "quiet"]', ("composefs=x", "quiet")),
        (f"{KARGS_D}/10.toml", b"kargs", ()),
        (KARGS_D, b'kargs = ["quiet"]', ()),
    ],
)
def test_wrong_kernel_arguments_keep_an_image_from_a_machine_and_no_machine_from_an_image(
    tmp_path: Path, path: str, data: bytes, deployed: tuple[str, ...]
) -> None:
    root = tree_with(path, data)
    with (
        Dir.open(tmp_path) as directory,
        Repository.create(directory, secure=False) as repository,
    ):
        with pytest.raises(KargsError, match=r"kargs\.d"):
            kargs_d_of(repository, root)
        assert kargs_d_of_deployed(repository, root) == deployed
