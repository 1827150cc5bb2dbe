"""Sealing from the image to the image, with a program in the place of ukify and a fake signer."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bootc.boot.sealed_checks import NO_LOCKDOWN
from bootc.build.seal import SealOptions, check_ready, finish, prepare, seal
from bootc.build.seal_base import BaseImage, SealRefused, read_base
from bootc.build.seal_work import Work, WrongWork
from bootc.build.signing import NotSigned
from bootc.build.uki import DigestChoice
from bootc.errors import Error, one_line
from bootc.events import Event, Notice, null_sink
from bootc.formats import security_version
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import ImageConfig, Manifest
from bootc.formats.pe import PeError, Uki
from bootc.formats.security_version import SecurityVersion
from bootc.oci.append_layer import TAR_LAYER
from bootc.oci.source import open_source
from bootc.oci.trees import image_id_of, image_tree
from support import images, pe, sealing
from support.commands import Commands
from support.images import MTIME
from support.sealing import KVER, LOADER, UKI

LOADER_FILE, UKI_FILE = "systemd-bootx64.efi", f"{KVER}.efi"
PROGRAM = pe.signable((b".text", b"program" * 100))
#: It makes a UKI of what it is given, as ukify does.
UKIFY = """
import sys
sys.path.insert(0, {tests!r})
from support import pe
words = iter(sys.argv[2:])
given = dict(w.split("=", 1) if "=" in w else (w, next(words)) for w in words)
read = lambda path: open(path, "rb").read()
open(given["--output"], "wb").write(pe.signable(
    (b".osrel", read(given["--os-release"][1:])),
    (b".cmdline", given["--cmdline"].encode()),
    (b".stub", read(given["--stub"])),
    (b".linux", read(given["--linux"])),
    (b".initrd", read(given["--initrd"])),
))
"""


class FakeSigner:
    """Adds a signature that nothing verifies."""

    certificate = None

    def require(self) -> None:
        """Nothing is needed."""

    def sign(self, unsigned: str, signed: str, epoch: int) -> None:
        Path(signed).write_bytes(pe.signed(Path(unsigned).read_bytes(), b"%d" % epoch))


@pytest.fixture(autouse=True, scope="module")
def ukify(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = tmp_path_factory.mktemp("programs")
    script = home / "ukify.py"
    script.write_text(UKIFY.format(tests=str(Path(__file__).parents[2])))
    with pytest.MonkeyPatch.context() as patch:
        command = f'exec {sys.executable} -S {script} "$@"'
        Commands(home / "bin", patch).mock("ukify", command)
        yield


def layers(*more: images.Member, loader: bytes | None = PROGRAM) -> tuple[bytes, bytes]:
    return sealing.layers(*more, stub=PROGRAM, loader=loader)


@pytest.fixture
def layout(tmp_path: Path) -> images.Layout:
    return images.single(tmp_path / "layout", *layers(), tag="os")


@contextmanager
def base_of(layout: images.Layout, tag: str = "os") -> Iterator[BaseImage]:
    with images.opened(layout, tag) as source:
        yield read_base(source, null_sink)


def output(tmp_path: Path) -> ImageReference:
    return ImageReference.parse(f"oci:{tmp_path}/out:sealed")


@pytest.mark.parametrize(
    ("kargs", "expected"), [((), ["rw"]), (("ro", "a"), ["ro", "a"]), (("x=rw",), ["x=rw", "rw"])]
)
def test_the_root_is_writable_unless_somebody_decides(
    tmp_path: Path, layout: images.Layout, kargs: tuple[str, ...], expected: list[str]
) -> None:
    with base_of(layout) as base:
        seal(base, output(tmp_path), SealOptions(kargs=kargs), FakeSigner(), null_sink)
    with open_source(output(tmp_path)) as source:
        tree = image_tree(source)
        uki = tree.read_content(tree.whole.lookup(UKI).content)  # type: ignore[union-attr,arg-type]
    words = Uki.read(io.BytesIO(uki)).text(".cmdline").split()
    assert words[:2] == ["quiet", "lockdown=integrity"]
    assert [word for word in words[2:] if not word.startswith("composefs")] == expected


def test_the_security_version_is_signed(tmp_path: Path, layout: images.Layout) -> None:
    version = SecurityVersion(3, 2)
    with base_of(layout) as base:
        seal(base, output(tmp_path), SealOptions(version=version), FakeSigner(), null_sink)
    with open_source(output(tmp_path)) as source:
        tree = image_tree(source)
        uki = tree.read_content(tree.whole.lookup(UKI).content)  # type: ignore[union-attr,arg-type]
    words = Uki.read(io.BytesIO(uki)).text(".cmdline").split()
    assert security_version.check(words) == version


@pytest.mark.parametrize("choice", list(DigestChoice))
def test_a_sealed_image(tmp_path: Path, layout: images.Layout, choice: DigestChoice) -> None:
    with base_of(layout) as base:
        sealed = seal(base, output(tmp_path), SealOptions(choice), FakeSigner(), null_sink)
    with open_source(output(tmp_path)) as source:
        assert source.manifest_digest == sealed.manifest_digest
        manifest = Manifest.parse(source.manifest_raw)
        assert [one.media_type for one in manifest.layers][-1] == TAR_LAYER
        assert len(ImageConfig.parse(source.config_raw).diff_ids) == 3
        tree = image_tree(source)
        version = 2 if choice is DigestChoice.V2 else 1
        assert image_id_of(tree.root, version=version).hex == sealed.image_id
        for path in (UKI, f"{LOADER}.signed"):
            signed = tree.whole.lookup(path)
            assert tree.read_content(signed.content).endswith(b"%d" % MTIME + bytes(6))  # type: ignore[union-attr,arg-type]


def test_an_image_is_sealed_in_its_own_directory(tmp_path: Path, layout: images.Layout) -> None:
    """The loader is signed already, so that one round is enough."""
    layout.image(layers(loader=pe.signed(PROGRAM)), tag="signed")
    place = ImageReference.parse(layout.reference("sealed"))
    with base_of(layout, "signed") as base:
        sealed = seal(base, place, SealOptions(kargs=("ro",)), FakeSigner(), null_sink)
    with open_source(place) as source:
        assert source.manifest_digest == sealed.manifest_digest
        assert image_tree(source).whole.lookup(f"{LOADER}.signed") is None


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image, and a directory with all its files to sign and the signed ones."""
    home = tmp_path_factory.mktemp("master")
    path = home / "work"
    path.mkdir()
    layout = images.single(home / "layout", *layers(), tag="os")
    with base_of(layout) as base, Work.open(os.fspath(path)) as work:
        for name in (LOADER_FILE, UKI_FILE):
            waiting = prepare(base, work, SealOptions(), null_sink)
            assert [file.name for file in waiting] == [name]
            FakeSigner().sign(work.unsigned(name), work.signed(name), 0)
    return path


@pytest.fixture
def prepared(tmp_path: Path, master: Path) -> Path:
    """The same, to change."""
    shutil.copytree(master, tmp_path / "work")
    return tmp_path / "work"


def finished(base: BaseImage, path: Path, place: ImageReference) -> None:
    with Work.open(os.fspath(path)) as work:
        finish(base, work, place, null_sink)


def replace_uki(path: Path, old: bytes, new: bytes) -> None:
    """Change the UKI as someone could who can write to the directory before the signature."""
    unsigned = path / "unsigned" / UKI_FILE
    assert old in unsigned.read_bytes()
    unsigned.write_bytes(unsigned.read_bytes().replace(old, new))
    FakeSigner().sign(os.fspath(unsigned), os.fspath(path / "signed" / UKI_FILE), 0)
    value = json.loads((path / "seal.json").read_text())
    value["files"][-1]["sha256"] = hashlib.sha256(unsigned.read_bytes()).hexdigest()
    value["cmdline"] = value["cmdline"].replace(old.decode(), new.decode())
    (path / "seal.json").write_text(json.dumps(value))


def edit(path: Path, **values: Any) -> None:
    value = json.loads((path / "seal.json").read_text())
    (path / "seal.json").write_text(json.dumps({**value, **values}))


#: What is done to a prepared directory, and how it is refused.
FAULTS: list[tuple[Callable[[Path], object], type[Error], str]] = [
    (lambda path: (path / "seal.json").unlink(), SealRefused, "are not complete"),
    (lambda path: edit(path, cmdline=None), SealRefused, "are not complete"),
    (lambda path: edit(path, files=[]), SealRefused, "are not complete"),
    (lambda path: edit(path, image="sha256:x"), SealRefused, "belongs to another image"),
    (lambda path: edit(path, cmdline="quiet"), SealRefused, "has another kernel command line"),
    (lambda path: (path / "signed" / UKI_FILE).unlink(), SealRefused, f"{UKI_FILE} is not signed"),
    (
        lambda path: (path / "unsigned" / UKI_FILE).write_bytes(PROGRAM),
        WrongWork,
        "was changed",
    ),
    (
        lambda path: (path / "signed" / LOADER_FILE).write_bytes(pe.signed(PROGRAM[:-1] + b"x")),
        NotSigned,
        "differs at offset",
    ),
    # The loader has another signature than the one that the UKI was built for.
    (
        lambda path: (path / "signed" / LOADER_FILE).write_bytes(pe.signed(PROGRAM, b"other")),
        SealRefused,
        "is not the one that its UKI names",
    ),
    (
        lambda path: replace_uki(
            path, b"integrity composefs.digest=v", b"integrit composefs.digest=?v"
        ),
        Error,
        "verity",
    ),
]


@pytest.mark.parametrize(("fault", "kind", "message"), FAULTS)
def test_files_that_make_no_sealed_image(
    tmp_path: Path,
    layout: images.Layout,
    prepared: Path,
    fault: Callable[[Path], object],
    kind: type[Error],
    message: str,
) -> None:
    with base_of(layout) as base:
        fault(prepared)
        with pytest.raises(kind, match=message):
            finished(base, prepared, output(tmp_path))
        assert not (tmp_path / "out").exists()


def test_a_directory_of_another_image(
    tmp_path: Path, layout: images.Layout, prepared: Path
) -> None:
    layout.image(layers(images.file("usr/other", b"other")), tag="other")
    with base_of(layout, "other") as base:
        with pytest.raises(SealRefused, match="belongs to another image"):
            finished(base, prepared, output(tmp_path))
        with Work.open(os.fspath(prepared)) as work, pytest.raises(SealRefused):
            prepare(base, work, SealOptions(), null_sink)


def test_preparing_again_changes_nothing(
    tmp_path: Path, layout: images.Layout, prepared: Path
) -> None:
    before = {one: one.read_bytes() for one in prepared.rglob("*") if one.is_file()}
    with base_of(layout) as base:
        with Work.open(os.fspath(prepared)) as work:
            assert prepare(base, work, SealOptions(), null_sink) == ()
        assert {one: one.read_bytes() for one in prepared.rglob("*") if one.is_file()} == before
        finished(base, prepared, output(tmp_path))


def other_options(path: Path) -> SealOptions:
    return SealOptions(kargs=("another",))


def another_loader(path: Path) -> SealOptions:
    (path / "signed" / LOADER_FILE).write_bytes(pe.signed(PROGRAM, b"other"))
    return SealOptions()


@pytest.mark.parametrize("change", [other_options, another_loader])
def test_a_uki_that_was_signed_before_a_change_waits_again(
    tmp_path: Path,
    layout: images.Layout,
    prepared: Path,
    change: Callable[[Path], SealOptions],
) -> None:
    options = change(prepared)
    with base_of(layout) as base:
        with Work.open(os.fspath(prepared)) as work:
            waiting = prepare(base, work, options, null_sink)
            assert [file.name for file in waiting] == [UKI_FILE]
            FakeSigner().sign(work.unsigned(UKI_FILE), work.signed(UKI_FILE), 0)
            assert prepare(base, work, options, null_sink) == ()
        finished(base, prepared, output(tmp_path))


@pytest.mark.parametrize(("free", "message"), [(0, "no space is left in "), (1 << 30, "No space")])
def test_a_full_place_for_temporary_files_is_named(
    tmp_path: Path,
    layout: images.Layout,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    message: str,
) -> None:
    def fails(self: object, leaf: object) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    volume = os.statvfs_result((4096, 4096, 1, free // 4096, free // 4096, 0, 0, 0, 0, 255))
    home = tmp_path / "temporary"
    home.mkdir()
    monkeypatch.setenv("TMPDIR", str(home))
    with base_of(layout) as base:
        monkeypatch.setattr(BaseImage, "read", fails)
        monkeypatch.setattr(os, "statvfs", lambda path: volume)
        with pytest.raises((SealRefused, OSError), match=message):
            seal(base, output(tmp_path), SealOptions(), FakeSigner(), null_sink)
    assert list(home.iterdir()) == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("content", "kind"), [(None, OSError), (b"no program", PeError)])
def test_a_stub_that_is_none_is_named(
    tmp_path: Path, layout: images.Layout, content: bytes | None, kind: type[Exception]
) -> None:
    stub, path = tmp_path / "stub", tmp_path / "work"
    path.mkdir()
    if content is not None:
        stub.write_bytes(content)
    with (
        base_of(layout) as base,
        Work.open(os.fspath(path)) as work,
        pytest.raises(kind) as caught,
    ):
        prepare(base, work, SealOptions(stub=str(stub)), null_sink)
    assert f"Reading the stub {stub}" in one_line(caught.value)
    assert list(path.iterdir()) == []


def test_an_output_that_cannot_be_written(
    layout: images.Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write everywhere but on a file system that is read-only.
    monkeypatch.setattr(os, "access", lambda path, mode, **options: False)
    with pytest.raises(Error, match="cannot be written"):
        check_ready(ImageReference.parse(layout.reference("new")))


def test_an_image_without_a_stub(tmp_path: Path, layout: images.Layout) -> None:
    layout.image(layers(images.file(f"{sealing.EFI}/.wh.linuxx64.efi.stub")), tag="bare")
    stub = tmp_path / "stub"
    stub.write_bytes(PROGRAM)
    with base_of(layout, "bare") as base:
        with pytest.raises(SealRefused, match="has no stub"):
            seal(base, output(tmp_path), SealOptions(), FakeSigner(), null_sink)
        assert not (tmp_path / "out").exists()
        seal(base, output(tmp_path), SealOptions(stub=str(stub)), FakeSigner(), null_sink)


def notices(base: BaseImage, place: ImageReference, kargs: tuple[str, ...] = ()) -> list[str]:
    """Seal an image, and return what the user is told."""
    told: list[str] = []

    def sink(event: Event) -> None:
        if isinstance(event, Notice):
            told.append(event.text)

    seal(base, place, SealOptions(kargs=kargs), FakeSigner(), sink)
    return told


@pytest.mark.parametrize("loader", [PROGRAM, pe.signed(PROGRAM), None])
def test_each_warning_is_told_once(
    tmp_path: Path, layout: images.Layout, loader: bytes | None
) -> None:
    """The number of rounds does not matter, and a warning does not stop the sealing."""
    kargs_d = images.file("usr/lib/bootc/kargs.d/1.toml", b"kargs = []")
    layout.image(layers(kargs_d, images.file("usr/implied/x"), loader=loader), tag="weak")
    with base_of(layout, "weak") as base:
        told = notices(base, output(tmp_path))
    assert told.count(NO_LOCKDOWN) == 1
    assert sum("/usr/implied. Other programs refuse that" in text for text in told) == 1
    assert not any("not signed" in text for text in told)
    with base_of(layout) as base:
        assert notices(base, ImageReference.parse(f"oci:{tmp_path}/out:good")) == []


def test_programs_that_nobody_signed_are_named(tmp_path: Path, layout: images.Layout) -> None:
    home = ("boot/loader", "boot/loader/addons")
    addon = images.file("boot/loader/addons/a\u00e4.addon.efi", pe.signable((b".text", b"x" * 99)))
    layout.image(layers(*map(images.directory, home), addon), tag="more")
    with base_of(layout, "more") as base:
        assert notices(base, output(tmp_path)) == [
            "not signed, so firmware does not start it: boot/loader/addons/a\u00e4.addon.efi"
        ]
