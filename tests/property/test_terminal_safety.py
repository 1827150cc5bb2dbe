"""Whatever an image, a registry, a disk or a caller calls things: no terminal obeys it.

Each place that can hold a name gets random bytes, and the command that meets it is run. All
that it prints has to be printable lines, and the error is one of them.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bootc.boot.findings import Finding, FindingKind
from bootc.boot.image_kernel import ImageNotBootable, find_boot_resource
from bootc.boot.loader import Bootloader
from bootc.cli import main as cli
from bootc.cli.progress import renderer
from bootc.cli.render.status import status_text
from bootc.cli.streams import Output, SideStream
from bootc.deploy.host.model import (
    BootEntry,
    ComposefsStatus,
    Host,
    HostSpec,
    HostStatus,
    ImageSpec,
    ImageStatus,
)
from bootc.errors import one_line
from bootc.events import Done, Message, Start
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType
from bootc.formats.tree import Directory, Inline, Leaf, Stat
from support import images

#: What terminals, logs and readers of lines take for more than a character.
ODD = (
    *(b"\x1b[2J\x1b]0;x\x07", b"\r", b"a\nb", b"\n", b"\x07", b"\x7f", b"\x08", b"\x0b", b"\x0c"),
    *("\x9b1m".encode(), "\x85".encode(), "\u2028".encode(), "\u202eabc".encode(), b"\x9b"),
    *(b"\xff", b"[red]x[/red]", b"[/]", "\U000e0001".encode(), b"error: x\nerror: y"),
)
names = st.sampled_from(ODD) | st.binary(min_size=1, max_size=30)
STAT = Stat(0o755)
KERNEL = Leaf(STAT, Inline(b"x"))
UKIS = (b"1.efi", b"2.efi")
few = settings(max_examples=5, deadline=None)


def file_name(raw: bytes) -> bytes:
    return raw.replace(b"/", b"_").replace(b"\0", b"\x01").replace(b".", b"x")


def text_of(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\0", "\x01")


class Ran:
    """A command that was run in this process."""

    def __init__(self, *argv: str | bytes, log: bool = True) -> None:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        handler = cli._LogHandler(SideStream(err))
        root = logging.getLogger()
        root.addHandler(handler)
        try:
            with mock.patch.multiple(sys, stdout=out, stderr=err):
                self.code = cli.main([os.fsdecode(word) for word in argv])
        finally:
            root.removeHandler(handler)
        self.out, self.err = (stream.buffer.getvalue() for stream in (out, err))

    def is_safe(self) -> Ran:
        for shown in (self.out, self.err):
            lines = shown.decode().split("\n")
            assert all(line.isprintable() for line in lines), shown
        errors = [line for line in self.err.decode().split("\n") if line.startswith("error: ")]
        # A report that finds something is a failure without an error.
        assert len(errors) == (self.code != 0) or (self.out and not errors), self.err
        assert "Traceback" not in self.err.decode()
        return self


@contextmanager
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


# -- places in an image


Place = Callable[[images.Layout, bytes], None]


def in_tag(layout: images.Layout, raw: bytes) -> None:
    layout.image([images.bootable()], tag=text_of(raw))


def in_architecture(layout: images.Layout, raw: bytes) -> None:
    layout.image([images.bootable()], tag="v", config={"architecture": text_of(raw)})


def in_operating_system(layout: images.Layout, raw: bytes) -> None:
    layout.image([images.bootable()], tag="v", config={"os": text_of(raw)})


def in_platform(layout: images.Layout, raw: bytes) -> None:
    platform = {"platform": {"architecture": text_of(raw), "os": "linux"}}
    layout.image([images.bootable()], tag="v", descriptor=platform)


def in_media_type(layout: images.Layout, raw: bytes) -> None:
    layout.image([images.bootable()], tag="v", manifest={"mediaType": text_of(raw)})


def in_annotation(layout: images.Layout, raw: bytes) -> None:
    layout.image([images.bootable()], tag="v", manifest={"annotations": {text_of(raw): 1}})


def in_label(layout: images.Layout, raw: bytes) -> None:
    layout.image([images.bootable()], tag="v", config={"config": {"Labels": {text_of(raw): 7}}})


def in_file_name(layout: images.Layout, raw: bytes) -> None:
    name = f"usr/{os.fsdecode(file_name(raw))}"
    # The second is not where a file can be.
    members = images.file(name, b"x"), images.file(f"{name}/below", b"x")
    layout.image([images.bootable(*members)], tag="v")


def in_link(layout: images.Layout, raw: bytes) -> None:
    name = os.fsdecode(file_name(raw))
    link = images.hardlink(f"usr/{name}", f"usr/no-{name}")
    layout.image([images.bootable(link)], tag="v")


def in_attribute(layout: images.Layout, raw: bytes) -> None:
    name = text_of(raw).replace("=", "_") * 20
    attribute = images.file("usr/x", b"", pax_headers=images.xattr(f"user.{name}", "x" * 70_000))
    layout.image([images.bootable(attribute)], tag="v")


def in_selinux_policy(layout: images.Layout, raw: bytes) -> None:
    policy = "etc/selinux/p/contexts/files"
    above = [images.directory("/".join(policy.split("/")[:depth])) for depth in range(1, 1 + 5)]
    config = images.file("etc/selinux/config", b"SELINUX=enforcing\nSELINUXTYPE=p\n")
    rules = images.file(f"{policy}/file_contexts", b"/a( -" + raw + b" x\n" + raw + b"\n")
    layout.image([images.bootable(*above, config, rules)], tag="v")


PLACES: tuple[Place, ...] = (
    *(in_tag, in_architecture, in_operating_system, in_platform, in_media_type, in_annotation),
    *(in_label, in_file_name, in_link, in_attribute),
    in_selinux_policy,
)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@few
@given(raw=names)
@example(raw=b"\x1b[2J\r\n\xff")
def test_an_image(place: Place, raw: bytes) -> None:
    with directory() as top:
        layout = images.Layout(top / "layout")
        place(layout, raw)
        cfs = ("internals", "cfs", "--repo", str(top / "repo"))
        Ran(*cfs, "init", "--insecure").is_safe()
        Ran(*cfs, "oci", "pull", layout.reference("v"), "tag", "--bootable").is_safe()
        Ran(*cfs, "oci", "pull", layout.reference("v"), text_of(raw)).is_safe()
        for words in (["oci", "images"], ["oci", "inspect", "tag"], ["oci", "fsck"]):
            Ran(*cfs, *words).is_safe()
        compute = ("container", "compute-composefs-digest", "--xattrs=keep-user-xattrs")
        Ran(*compute, layout.reference("v")).is_safe()
        Ran("container", "compute-composefs-digest", layout.reference("other")).is_safe()


@given(names, names)
@example(b"\x1b[2J\r\n\xff", b"\r")
def test_what_an_image_boots_with(first: bytes, second: bytes) -> None:
    """Two of them are one too many, and one without its initramfs lacks something."""
    kernels = {name: Directory(STAT, {b"vmlinuz": KERNEL}) for name in (first, second)}
    modules = Directory(STAT, {b"modules": Directory(STAT, dict(kernels))})
    ukis = Directory(STAT, {name + suffix: KERNEL for name in (first, second) for suffix in UKIS})
    efi = Directory(STAT, {b"EFI": Directory(STAT, {b"Linux": ukis})})
    for top, below in ((b"usr", Directory(STAT, {b"lib": modules})), (b"boot", efi)):
        with pytest.raises(ImageNotBootable) as caught:
            find_boot_resource(Directory(STAT, {top: below}))
        assert str(caught.value).isprintable()
        assert one_line(caught.value) == str(caught.value) + f" (hint: {caught.value.hint})"


# -- places on a disk


@few
@given(raw=names, content=names)
@example(raw=b"\x1b[2J\r\n\xff", content=b"\x1b")
def test_a_repository(raw: bytes, content: bytes) -> None:
    name = file_name(raw)
    with directory() as top:
        repo = os.fsencode(top / "repo")
        cfs = ("internals", "cfs", "--repo", repo)
        Ran(*cfs, "init", "--insecure").is_safe()
        for place in ("", "objects", "objects/00", "streams", "images", "streams/refs",
                      "streams/refs/oci", "images/refs"):  # fmt: skip
            os.makedirs(os.path.join(repo, place.encode()), exist_ok=True)
            os.symlink(file_name(content), os.path.join(repo, place.encode(), b"l" + name))
            with open(os.path.join(repo, place.encode(), b"f" + name), "wb") as file:
                file.write(content)
        for words in (["gc", "-n"], ["gc"], ["fsck"], ["fsck", "--json"], ["oci", "fsck"],
                      ["fsck", "--repair"], ["images"], ["images", "--json"], ["oci", "images"],
                      ["oci", "images", "--json"]):  # fmt: skip
            Ran(*cfs, *words).is_safe()
        with open(os.path.join(repo, b"meta.json"), "wb") as file:
            file.write(b'{"version": 1, "algorithm": "' + content + b'"}')
        Ran(*cfs, "images").is_safe()


@few
@given(raw=names, target=names)
@example(raw=b"\x1b[2J\r\n\xff", target=b"\r")
def test_reports_of_directories(raw: bytes, target: bytes) -> None:
    name = file_name(raw)
    with directory() as top:
        trees = [os.fsencode(top / tree) for tree in "abc"]
        for tree in trees:
            os.mkdir(tree)
        os.symlink(file_name(target), os.path.join(trees[1], name))
        os.mkdir(os.path.join(trees[2], name))
        ran = Ran("internals", "dir-diff", *trees).is_safe()
        assert ran.code == 0
        assert ran.out.count(b"\n") == 2
        for words in ([], ["--json"]):
            argv = ("container", "compute-composefs-digest", "--plain", *words, "--explain")
            Ran(*argv, *trees[:2]).is_safe()
            Ran(*argv, trees[0], os.path.join(trees[1], name)).is_safe()


@few
@given(raw=names)
@example(raw=b"\x1b[2J\r\n\xff")
def test_dumpfiles(raw: bytes) -> None:
    with directory() as top:
        (top / "dump").write_bytes(b"/ 0 40755 2 0 0 0 0.0 - - -\n" + raw + b" " + raw + b"\n")
        argv = ("internals", "mkcomposefs", "--print-digest-only", "--from-file")
        Ran(*argv, str(top / "dump")).is_safe()
        Ran("internals", "composefs-info", "ls", str(top / "dump")).is_safe()


# -- what programs and registries say


@few
@given(said=names)
@example(said=b"denied\r\n\x1b[2J\xff")
def test_a_registry(said: bytes) -> None:
    """skopeo repeats what a registry says, in its reply or on standard error."""
    reply = {"success": False, "error": text_of(said), "value": None, "pipeid": 0}
    packet = json.dumps(reply).encode()
    with directory() as top:
        (top / "said").write_bytes(said)
        for body in (
            f"cat {top / 'said'} >&2; exit 1",
            f"exec {sys.executable} -c 'import os, socket; s = socket.socket(fileno=0); "
            f's.recv(9999); s.send(bytes.fromhex("{packet.hex()}"))\'',
        ):
            (top / "skopeo").write_text(f"#!/bin/sh\n{body}\n")
            (top / "skopeo").chmod(0o755)
            with mock.patch.dict(os.environ, PATH=f"{top}:{os.environ['PATH']}"):
                ran = Ran("container", "compute-composefs-digest", "docker://a/b:c").is_safe()
            assert ran.code == 1


# -- what a caller says


VERBS = (
    *(["{}"], ["status", "{}"], ["status", "--format={}"], ["upgrade", "--tag", "{}", "--{}"]),
    *(["switch", "{}"], ["switch", "--transport={}", "x"], ["etc", "{}"], ["pin", "{}", "{}"]),
    *(["etc", "keep", "{}"], ["delete-deployment", "{}"], ["container", "{}"]),
    *(["install", "to-disk", "--composefs-backend", "--source-imgref={}", "{}"],),
    *(["install", "to-disk", "--root-size={}", "--source-imgref=oci:/x", "{}"],),
    *(["internals", "{}"], ["internals", "cfs", "--repo={}", "images"]),
    *(["internals", "cfs", "--repo=/nowhere", "--hash={}", "gc"],),
    *(["internals", "cfs", "--repo=/nowhere", "oci", "tag", "{}", "{}"],),
    *(["internals", "mkcomposefs", "--{}"], ["internals", "mkcomposefs", "--min-version={}", "x"]),
    *(["internals", "composefs-info", "ls", "{}"], ["internals", "dir-diff", "{}", "{}", "{}"]),
    *(["container", "compute-composefs-digest", "{}"],),
    *(["container", "compute-composefs-digest", "oci:{}"],),
)


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
@few
@given(raw=names)
@example(raw=b"\x1b[2J\r\n\xff")
def test_arguments(words: list[str], raw: bytes) -> None:
    argument = os.fsdecode(b"x" + raw.replace(b"\0", b"\x01"))
    with mock.patch.dict(os.environ, container="podman"):
        Ran(*(word.format(argument) for word in words)).is_safe()


# -- what is shown of a host, and while something is done


@given(names, names, names)
@example(b"\x1b[2J\n  Staged image: x", b"\x1b", b"\xff\n")
def test_a_host(version: bytes, architecture: bytes, subject: bytes) -> None:
    def host(version: str, architecture: str, subject: str) -> Host:
        spec = ImageSpec(ImageReference("registry", "quay.io/x"))
        manifest = OciDigest("sha256", "11" * 32)
        image = ImageStatus(spec, manifest, architecture, version)
        status = ComposefsStatus(
            Digest.from_hex("aa" * 64), BootType.BLS, Bootloader.SYSTEMD, None, False
        )
        entry = BootEntry(status, image, cached_update=dataclasses.replace(image))
        finding = Finding(FindingKind.MALFORMED, subject, subject)
        return Host(HostSpec(), HostStatus(booted=entry, findings=(finding,)))

    shown = status_text(host(*map(text_of, (version, architecture, subject))), verbose=True)
    assert all(line.isprintable() for line in shown.split("\n"))
    # Nothing adds a row.
    assert shown.count("\n") == status_text(host("1", "amd64", "x"), verbose=True).count("\n")


@given(names)
@example(b"\x1b[2J\r\n\xff")
def test_progress_and_messages(raw: bytes) -> None:
    text = os.fsdecode(raw)
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with renderer(SideStream(err), Output(out)) as sink:
        for event in (Message(text), Start("t", text, 10), Done("t")):
            sink(event)
    assert out.buffer.getvalue().decode().rstrip("\n").isprintable()
    lines = err.buffer.getvalue().decode().split("\n")
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
