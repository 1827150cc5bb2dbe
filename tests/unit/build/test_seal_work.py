"""The directory with the files to sign."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bootc.build.seal_work import Work, WorkManifest, WrongWork
from bootc.errors import one_line

IMAGE = "sha256:" + "ab" * 32


def filled(path: Path) -> WorkManifest:
    path.mkdir()
    with Work.open(os.fspath(path)) as work:
        assert work.read() is None
        file = work.add("a.efi", "boot/EFI/Linux/a.efi", (b"one", b"two"))
        manifest = WorkManifest(IMAGE, (file,), "quiet")
        work.write(manifest)
    return manifest


def test_a_directory_is_read_again(tmp_path: Path) -> None:
    manifest = filled(tmp_path / "work")
    with Work.open(os.fspath(tmp_path / "work")) as work:
        assert work.read() == manifest
        (file,) = manifest.files
        assert file.size_bytes == 6
        assert work.waiting(manifest.files) == (file,)
        assert Path(work.unsigned("a.efi")).read_bytes() == b"onetwo"
        Path(work.signed("a.efi")).write_bytes(b"signed")
        assert work.waiting(manifest.files) == ()
        work.check(file)
        Path(work.unsigned("a.efi")).write_bytes(b"three!")
        with pytest.raises(WrongWork, match=r"a\.efi was changed"):
            work.check(file)


def test_a_directory_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(WrongWork, match="has other files"), Work.open(os.fspath(tmp_path)):
        pass


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(version=2),
        lambda value: value.pop("files"),
        lambda value: value.update(image=7),
        lambda value: value.update(image="\x1b[2J"),
        lambda value: value.update(cmdline=["quiet"]),
        lambda value: value["files"][0].update(name="../x"),
        lambda value: value["files"][0].update(name=".."),
        lambda value: value["files"][0].update(size="6"),
        lambda value: value["files"][0].update(sha256="AB" * 32),
        lambda value: value["files"][0].pop("path"),
        lambda value: value.update(files=value["files"] * 17),
        lambda value: value.update(files=[[]]),
    ],
)
def test_manifests_that_are_wrong(tmp_path: Path, change: Callable[[Any], object]) -> None:
    filled(tmp_path / "work")
    path = tmp_path / "work/seal.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    check_refused(tmp_path / "work")


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000, b"1" * 10_000])
def test_manifests_that_are_no_manifests(tmp_path: Path, data: bytes) -> None:
    filled(tmp_path / "work")
    (tmp_path / "work/seal.json").write_bytes(data)
    check_refused(tmp_path / "work")


def check_refused(path: Path) -> None:
    with Work.open(os.fspath(path)) as work, pytest.raises(WrongWork) as caught:
        work.read()
    assert one_line(caught.value).startswith(f"{path}/seal.json is not a manifest")
