"""What every parser must survive: one function a parser, for fuzzers and for tests.

A target takes any bytes. It passes if they are parsed and what the parser promises about
the value holds, or if they are refused by an error of the parser's own, in one printable
line and, where the format has positions, with one. Everything else is a find: another
exception, too much time, too much memory.

``corpus/<name>/`` holds the seeds of a target and every find there was;
``tests/unit/test_fuzz_corpus.py`` replays them. ``run.py`` looks for more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import zstandard

from bootc.errors import Error, one_line
from bootc.formats import (
    bls,
    cmdline,
    dumpfile,
    filecontexts,
    grubcfg,
    imgref,
    initramfs,
    ocispec,
    origin,
    osrelease,
    pe,
    security_version,
    sigpolicy,
    splitstream,
    tar,
    tpm2nv,
)
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.erofs import reader as erofs_reader
from bootc.formats.erofs.debug import describe_image
from bootc.formats.erofs.inodes import Unrepresentable
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.libcomposefs import dumpfile as c_dumpfile
from bootc.formats.libcomposefs import erofs as c_erofs
from bootc.formats.security_counter import INDEX
from bootc.formats.security_version import MINIMUM, VERSION
from bootc.formats.tpm2nv import TpmRefused, TpmReplyError
from bootc.formats.tree import Directory
from bootc.repository import metadata

CORPUS = Path(__file__).parent / "corpus"

_POSITION = re.compile(r"offset (0x)?[0-9a-f]|line \d|:\d+:|no lines")
#: A bomb of compressed data is not unpacked beyond this.
_MAX_BODY_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class Target:
    """A parser under test.

    Attributes:
        check: Parses bytes, and asserts what is promised about the value.
        errors: What it may raise.
        positions: Whether each error says where.
        tokens: Words of the format, which a fuzzer would not guess.
    """

    name: str
    check: Callable[[bytes], object]
    errors: tuple[type[Error], ...]
    positions: bool = False
    tokens: tuple[bytes, ...] = ()

    def run(self, data: bytes) -> None:
        """Put bytes through the parser; any exception is a find."""
        try:
            self.check(data)
        except self.errors as exc:
            _check_message(exc, position=self.positions)

    @property
    def corpus(self) -> Path:
        """The directory of its seeds; parsers of two dialects share theirs."""
        return CORPUS / self.name.removesuffix("-c")

    def seeds(self) -> Iterator[Path]:
        """Yield the files of the corpus, in order."""
        yield from sorted(path for path in self.corpus.iterdir() if path.is_file())


def _check_message(exc: Error, *, position: bool = False) -> None:
    line = one_line(exc)
    assert not position or _POSITION.search(line), line
    # The parser's own text: one_line would escape what it left.
    assert str(exc).isprintable(), line
    assert len(str(exc)) < 10_000, line


def _tpm2nv(data: bytes) -> None:
    with contextlib.suppress(TpmReplyError, TpmRefused):
        assert 0 <= tpm2nv.read_number(lambda _: data, INDEX) < 1 << 64
    public = tpm2nv.read_public(lambda _: data, INDEX)
    assert len(public.policy) <= len(data)


def _bls(data: bytes) -> None:
    entry = bls.parse_entry(data)
    assert bls.parse_entry(bls.serialise_entry(entry)) == entry
    assert bls.menu_order([("a.conf", entry), ("b.conf", entry)])[0][0] == "b.conf"


def _cmdline(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    params = cmdline.parse(text)
    own = security_version.stated(cmdline.parse(f"{VERSION}=3 {MINIMUM}=2 {text}"))
    assert own.version <= 3
    assert own.minimum >= 2
    assert cmdline.parse(cmdline.join(params)) == params
    for param in params[:10]:
        assert cmdline.add(params, param) == params
        assert param not in cmdline.remove_exact(params, param)
        assert cmdline.find(params, cmdline.key_of(param)) is not None
    try:
        cmdline.check(text)
    except cmdline.CmdlineError as exc:
        _check_message(exc)
    else:
        assert cmdline.parse(f"{text} quiet")[-1] == "quiet"
        assert not {"composefs", "composefs.digest"} & {cmdline.key_of(p) for p in params}
    images = cmdline.composefs_images(text)
    assert cmdline.composefs_images(images.line) == images
    assert images.deployment in images.hexes
    assert cmdline.composefs_images(cmdline.join(reversed(params))).optional is images.optional
    try:
        appended = cmdline.composefs_images(f"{text} composefs={'0' * 128}")
    except cmdline.CmdlineError as exc:
        _check_message(exc)
    else:
        assert appended.optional is images.optional
        assert appended.hexes[: len(images.hexes)] == images.hexes


def _osrelease(data: bytes) -> None:
    release = osrelease.parse_os_release(data)
    for value in (release.id, release.title, release.version, release.boot_label):
        assert value is None or (value == value.strip() and value.isprintable())


def _origin(data: bytes) -> None:
    parsed = origin.parse_origin(data)
    again = origin.parse_origin(origin.serialise_origin(parsed))
    assert again == dataclasses.replace(parsed, extra=again.extra)
    # Sections keep the order of their keys, but not their own.
    assert sorted(again.extra) == sorted(parsed.extra)


def _grubcfg(data: bytes) -> None:
    entries = grubcfg.parse_menu(data)
    assert grubcfg.parse_menu(grubcfg.serialise_menu(entries)) == entries


def _imgref(data: bytes) -> None:
    reference = imgref.ImageReference.parse(data.decode("utf-8", "surrogateescape"))
    assert imgref.ImageReference.parse(str(reference)) == reference
    assert reference.layout[0]


def _ocispec(data: bytes) -> None:
    """Parse the same bytes as each kind of document."""
    for parse in (ocispec.Index.parse, ocispec.Manifest.parse, ocispec.ImageConfig.parse):
        try:
            value = parse(data)
        except ocispec.ImageSpecError as exc:
            _check_message(exc)
            continue
        for text in _texts(value):
            text.encode()  # fit for files and terminals
        if isinstance(value, ocispec.Index):
            for architecture in value.architectures():
                value.for_platform(architecture)


def _texts(value: object) -> Iterator[str]:
    """Yield every string inside of a parsed document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(tuple(value.items()))
    elif isinstance(value, tuple):
        for item in value:
            yield from _texts(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _texts(getattr(value, field.name))


def _initramfs(data: bytes) -> None:
    read = io.BytesIO(data).read
    for name in initramfs.initramfs_names(read, max_bytes=_MAX_BODY_BYTES):
        assert len(name) <= initramfs.MAX_NAME_BYTES


def _metadata(data: bytes) -> None:
    parsed = metadata.Metadata.parse(data, "meta.json")
    assert metadata.Metadata.parse(parsed.to_bytes(), "meta.json") == parsed
    parsed.require_supported("meta.json", writable=True)


def _pe(data: bytes) -> None:
    image = pe.Uki.read(io.BytesIO(data))
    for section in image.sections.values():
        assert section.offset >= 0
    content = b"".join(image.chunks(pe.LINUX))
    assert len(content) == image.sections[pe.LINUX].size_bytes
    image.boot_digest()
    image.boot_label()
    images = image.composefs_images()
    for text in image.texts(pe.CMDLINE):
        assert cmdline.composefs_images(text).agrees_with(images)


def _tar(data: bytes) -> None:
    file = io.BytesIO(data)
    headers = tar.HeaderReader(file.read)
    again = []
    for entry in headers:
        body = file.read(min(entry.size_bytes + entry.padding_bytes, len(data)))
        assert entry.path
        assert b"\0" not in entry.path + entry.link_target
        assert 0 <= entry.mtime_ns < 10**9
        again += [entry.raw, body]
    assert b"".join((*again, headers.trailer)) == data[: file.tell()]


def _tar_with_checksums(data: bytes) -> None:
    """As ``tar``, but damaged headers get the checksum right, and so are looked at."""
    blocks = bytearray(data)
    for at in range(0, len(blocks) - tar.BLOCK_BYTES + 1, tar.BLOCK_BYTES):
        if blocks[at + 257 : at + 262] == b"ustar":
            blocks[at + 148 : at + 156] = b" " * 8
            total = sum(blocks[at : at + tar.BLOCK_BYTES])
            blocks[at + 148 : at + 156] = b"%06o\0 " % total
    _tar(bytes(blocks))


def _splitstream(data: bytes) -> None:
    stream = splitstream.StreamReader(data)
    taken = 0
    for chunk in stream.chunks():
        if isinstance(chunk, Digest):
            assert chunk in stream.object_refs
            continue
        assert 0 < len(chunk) <= 1 << 16
        taken += len(chunk)
        if taken > _MAX_BODY_BYTES:
            return
    for digest in stream.named_refs.values():
        assert digest in stream.stream_refs


def _splitstream_unpacked(data: bytes) -> None:
    """As ``splitstream``, given what is compressed in one: references, a zero line, the body."""
    refs, _, body = data.partition(b"\0\0")
    compressor = zstandard.ZstdCompressor(level=1)
    refs_frame, body_frame = compressor.compress(refs), compressor.compress(body)
    digests = bytes(64)
    starts = [112, 144, 176, 176 + len(refs_frame), 176 + len(refs_frame) + len(body_frame)]
    ranges = (*starts[0:2], *starts[1:3], *starts[3:5], *starts[2:4])
    header = struct.pack("<11sBHBBQQ", splitstream.MAGIC, 0, 0, Algorithm.SHA256.value, 12, 32, 112)
    info = struct.pack("<8Q8sQ", *ranges, splitstream.OCI_LAYER, 1 << 32)
    _splitstream(header + info + digests + refs_frame + body_frame)


def _dumpfile(data: bytes) -> None:
    text = _dump(dumpfile.parse_dumpfile(data.splitlines(keepends=True)))
    assert _dump(dumpfile.parse_dumpfile(text.splitlines())) == text


def _dumpfile_c(data: bytes) -> None:
    """As ``dumpfile``, by the rules of the C tools."""
    tree = c_dumpfile.parse_dumpfile(data.splitlines(keepends=True))
    b"".join(c_dumpfile.write_dumpfile(tree))


def _erofs(data: bytes) -> None:
    for line in describe_image(data):
        assert line.isprintable()
    root = erofs_reader.read_erofs(data)
    text = _dump(root)
    try:
        again = mkfs_erofs(root)
    except Unrepresentable:
        return
    assert _dump(erofs_reader.read_erofs(again)) == text


def _erofs_c(data: bytes) -> None:
    """As ``erofs``, by the rules of the C tools."""
    b"".join(c_dumpfile.write_dumpfile(c_erofs.read_erofs(data)))


def _dump(root: Directory) -> bytes:
    return b"".join(dumpfile.write_dumpfile(root))


def _filecontexts(data: bytes) -> None:
    """Parse lines of both kinds, and look up what they name."""
    try:
        aliases = filecontexts.parse_subs(data, "subs")
    except filecontexts.FileContextsError as exc:
        _check_message(exc, position=True)
        aliases = {}
    rules = filecontexts.parse_file_contexts(data, "file_contexts")
    contexts = filecontexts.FileContexts(rules, aliases)
    labels = {rule.context for rule in rules} - {b"<<none>>"}
    for path in (b"/", b"/usr/bin/a", b"/etc/\xff\n", *(rule.pattern for rule in rules[:5])):
        for file_type in filecontexts.FileType:
            assert contexts.lookup(path, file_type) in {None, *labels}


def _sigpolicy(data: bytes) -> None:
    policy = sigpolicy.parse_policy(data)
    assert policy.default
    for transport, scopes in (("docker", {}), *policy.transports.items()):
        rules = [policy.rule(transport, scopes), *policy.rules(transport)]
        assert all(rule.types and str(rule).isprintable() for rule in rules)


_JSON_TOKENS = (b'"', b"{", b"[", b":", b",", b"null", b"1e999", b"-0", b'"\\ud800"', b"NaN")
_COMPOSEFS_TOKENS = (
    b"composefs=",
    b"composefs.digest=",
    b"v1-sha512-12:",
    b"v2-sha256-12:",
    b"ab" * 32,
    b"ab" * 64,
)

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            "bls",
            _bls,
            (bls.BlsError,),
            tokens=(b"version ", b"linux ", b"initrd ", b"options ", b"efi ", b"uki ", b"\n"),
        ),
        Target("cmdline", _cmdline, (cmdline.CmdlineError,), tokens=_COMPOSEFS_TOKENS),
        Target("dumpfile", _dumpfile, (dumpfile.DumpfileError,), positions=True),
        Target("dumpfile-c", _dumpfile_c, (dumpfile.DumpfileError,), positions=True),
        Target("erofs", _erofs, (erofs_reader.InvalidImage,), positions=True),
        Target("erofs-c", _erofs_c, (erofs_reader.InvalidImage,), positions=True),
        Target(
            "filecontexts",
            _filecontexts,
            (filecontexts.FileContextsError,),
            positions=True,
            tokens=(b"(/.*)?", b"[^/]*", b"{0,1000}", b"(?!", b"(?<=", b" -- ", b"<<none>>", b"\\"),
        ),
        Target(
            "grubcfg",
            _grubcfg,
            (grubcfg.GrubCfgError,),
            positions=True,
            tokens=(b"menuentry ", b'"', b"{\n", b"}\n", b"\\", b"chainloader "),
        ),
        Target(
            "imgref",
            _imgref,
            (imgref.ImageReferenceError,),
            tokens=(b"docker://", b"ostree-remote-image:", b"ostree-unverified-registry:", b"oci:"),
        ),
        Target(
            "initramfs",
            _initramfs,
            (initramfs.InitramfsError,),
            positions=True,
            tokens=(b"070701", b"TRAILER!!!", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0"),
        ),
        Target("metadata", _metadata, (metadata.MetadataError, metadata.UnsupportedRepository)),
        Target("ocispec", _ocispec, (ocispec.ImageSpecError,), tokens=_JSON_TOKENS),
        Target(
            "origin",
            _origin,
            (origin.OriginError,),
            tokens=(b"[boot]\n", b"[origin]\n", b"boot_type=bls\n", b"digest=", b"sha256:"),
        ),
        Target("osrelease", _osrelease, (), tokens=(b"ID=", b"VERSION=", b"\\", b'"', b"'")),
        Target(
            "pe",
            _pe,
            (pe.PeError, cmdline.CmdlineError),
            tokens=(
                b"PE\0\0",
                b".linux\0\0",
                b".initrd\0",
                b".cmdline",
                b".osrel\0\0",
                b"NAME=x",
                b".profile",
            ),
        ),
        Target("sigpolicy", _sigpolicy, (sigpolicy.PolicyError,), tokens=_JSON_TOKENS),
        Target("splitstream", _splitstream, (splitstream.SplitstreamError,), positions=True),
        Target(
            "splitstream-unpacked",
            _splitstream_unpacked,
            (splitstream.SplitstreamError,),
            positions=True,
            tokens=(b"0:a\0", b"\0\0", b"\xff" * 8, b"\0" * 8),
        ),
        Target("tar", _tar, (tar.TarError,), positions=True),
        Target(
            "tar-with-checksums",
            _tar_with_checksums,
            (tar.TarError,),
            positions=True,
            tokens=(b"ustar\x0000", b"9 path=a\n", b"SCHILY.xattr.", b"linkpath=", b"\x80"),
        ),
        Target("tpm2nv", _tpm2nv, (TpmReplyError, TpmRefused)),
    )
}
