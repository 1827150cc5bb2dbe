"""The C implementation's own test inputs give its own test results.

The data lies outside the project: in ``../shared/vectors`` or where
``BOOTC_TEST_VECTORS`` points.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
from pathlib import Path

import pytest

from bootc.errors import Error
from bootc.formats.digest import Algorithm
from bootc.formats.dumpfile import DumpfileError, parse_dumpfile, write_dumpfile
from bootc.formats.erofs.reader import read_erofs
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.libcomposefs import dumpfile as c_dumpfile
from bootc.formats.libcomposefs import erofs as c_erofs
from bootc.formats.libcomposefs.tree import CTree
from bootc.formats.tree import Directory
from bootc.formats.verity import verity_digest

BESIDE = Path(__file__).parents[3] / "shared" / "vectors"
VECTORS = Path(os.environ.get("BOOTC_TEST_VECTORS", BESIDE)) / "composefs-c"

#: Lines that only the C tools' lenient mode takes, and why the strict one does not.
LENIENT = {
    "no-newline.dump": r"line 1, column 22 \(rdev\): a directory has no device number",
    "honggfuzz-longlink-unterminated.dump": r"line 2, column \d+ \(payload\): 9 columns, needs 11",
}
#: fs-verity digests of the images: with the range 0 to 1, from 1 on, and of version 0 only.
DIGESTS = {
    "bigfile.dump": (
        "160c71227628d810604ad305e5d4a912e01a5964866b9bec9f8fddc55e352bfb",
        "fa70c287ec4bdb389f29c24bb49569d503ff0de4436be0551deea861e95ecc5c",
    ),
    "bigfile-xattr.dump": (
        "96477776a78abab3bf28c57b16dd0c47ed41a05774a2352ecf15c3ac15108b3f",
        "b4e638ab18419c4a6a5bae91f0e2055873cf21331f7b745a061bd37abb84c61c",
    ),
    "config.dump.gz": (
        "26cbaf47c39d0b5ed47bd959595e4d84f01c8eb8196d861d9f00bf527c244ad2",
        "c7dc4cff47b44d92c61ecdddf06cc62e6332fbc1a4528d38ed6df23baeb5f857",
    ),
    "config-with-hard-link.dump.gz": (
        "a7afa3886a072e11ac8dae09d46da54ea43ca0cfe34d170b1cdc9287cceca6a1",
        "c52eede667bffac2f3a3fbabc29abcee42aa1ea5d6a35d00d70a921b1a75532c",
    ),
    "cs9-x86_64-developer.dump.gz": (
        "c2891b9a6ce8f676ce63aeaeb7df329695db705d5d1a6a8160f8ed3ec188c5ba",
        "3c10c3d2cfa3603317a37a018f6f74a561a34f442afb49668ff9a8253f7525c4",
    ),
    "honggfuzz-bigfile-with-acl.dump": (
        "062b7c9e88806d8fe267287a35ba7abfa8faf70460b2dd8294781d6f26d64912",
        "102bd6a8debd3d3973edec57b83ab5019867921c4de798ae6d31b693f8f6eac2",
    ),
    "honggfuzz-longlink-unterminated.dump": (
        "fe675c995eb476c165ec5af1001bd9289f57bacf58d55373a5695b67f421bebe",
        "e66a10337da7f5329137d1074e73c752404990a14b03e3732e62cb12ec308dc5",
    ),
    "no-newline.dump": (
        "4aa51e1805ee1c2d3bd8d9ba2f2740948c2ee4de7c3cbfcef863982e456f46fe",
        "3285623de4ad5d7405606073eb239bc741717256c35f8f8d4c4dbc48135cf0be",
    ),
    "special.dump": (
        "1d268f8bc7609b4f8f8467e98565f45300f9e192c0e6ef2d05820d3ea41d4515",
        "1d268f8bc7609b4f8f8467e98565f45300f9e192c0e6ef2d05820d3ea41d4515",
        "6fae72a66167ef8d5830fa15647263ef1b535681aa91fdf195fa3d6f5e3ae15e",
    ),
}
#: What must be refused, and the reason that must be named: strictly, and as C reads it.
REFUSED = {
    "should-fail-big-inline.dump": ("10 columns, needs 11", "content of 5004 bytes, more than"),
    "should-fail-dir-hardlink.dump": ("'/': no file", "a directory cannot be a hard link"),
    "should-fail-dot-name.dump": ("impossible path '/.'",) * 2,
    "should-fail-empty-name.dump": ("impossible path '//'",) * 2,
    "should-fail-empty-xattr-key.dump": ("xattr '=somevalue' is not key=value",) * 2,
    "should-fail-long-xattr-value.dump": ("mode '644' has no file type",) * 2,
    "should-fail-no-ftype.dump": ("mode '0' has no file type",) * 2,
    "should-fail-too-big.dump": ("/bigfile: file size 9500000000000000 is out of range",) * 2,
}


def names(pattern: str) -> list[str]:
    return sorted(path.name for path in VECTORS.glob(pattern))


def require(name: str) -> Path:
    path = VECTORS / name
    if not path.exists():
        pytest.skip(f"conformance data {path} is absent (BOOTC_TEST_VECTORS names its folder)")
    return path


def text_of(name: str) -> bytes:
    path = require(name)
    raw = path.read_bytes()
    if name.endswith(".gz"):
        raw = gzip.decompress(raw)
    # A vector may be a symbolic link that was stored as a file holding its target.
    if raw.count(b"\n") == 0 and (VECTORS / raw.decode()).exists():
        raw = (VECTORS / raw.decode()).read_bytes()
    return raw


@functools.cache  # The large ones take a second; nothing here changes a tree.
def tree_of(name: str) -> CTree:
    return c_dumpfile.parse_dumpfile(text_of(name).splitlines(keepends=True))


@functools.cache
def strict_tree_of(name: str) -> Directory:
    return parse_dumpfile(text_of(name).splitlines(keepends=True))


def version_range(name: str) -> tuple[int, int]:
    """The versions asked for; without any, the C tools take 0 or 1."""
    path = VECTORS / f"{name}.version"
    return (int(path.read_text()),) * 2 if path.exists() else (0, 1)


def test_the_data_is_here() -> None:
    require("special.dump")
    assert set(names("should-fail-*.dump")) == set(REFUSED)


@pytest.mark.parametrize("name", names("*.dump*.sha256"))
def test_images_are_the_c_tools(name: str) -> None:
    name = name.removesuffix(".sha256")
    expected = (VECTORS / f"{name}.sha256").read_text().strip()
    tree = tree_of(name)
    version = c_erofs.format_version(tree.root, *version_range(name))
    image = c_erofs.mkfs_erofs(tree, version=version)
    assert hashlib.sha256(image).hexdigest() == expected
    if name in LENIENT:
        with pytest.raises(DumpfileError, match=LENIENT[name]):
            strict_tree_of(name)
    else:
        assert mkfs_erofs(strict_tree_of(name), version=version) == image


@pytest.mark.parametrize(("name", "digests"), DIGESTS.items())
def test_versions(name: str, digests: tuple[str, ...]) -> None:
    tree = tree_of(name)
    for (low, high), expected in zip([(0, 1), (1, 1), (0, 0)], digests, strict=False):
        version = c_erofs.format_version(tree.root, low, high)
        image = c_erofs.mkfs_erofs(tree, version=version)
        assert verity_digest(image, Algorithm.SHA256).hex == expected


@pytest.mark.parametrize(
    ("name", "version"),
    # The large ones have nothing that depends on the version.
    [(name, version) for name in DIGESTS for version in (0, 1) if version or "gz" not in name],
)
def test_there_and_back(name: str, version: int) -> None:
    image = c_erofs.mkfs_erofs(tree_of(name), version=version)
    again = c_erofs.read_erofs(image)
    assert c_erofs.mkfs_erofs(again, version=version) == image
    if name not in LENIENT:
        tree = strict_tree_of(name)
        assert list(write_dumpfile(read_erofs(image))) == list(write_dumpfile(tree))


@pytest.mark.parametrize(("name", "reasons"), REFUSED.items())
def test_refused_with_the_reason(name: str, reasons: tuple[str, str]) -> None:
    require(name)
    strict, as_c = reasons
    with pytest.raises(Error, match=strict):
        mkfs_erofs(strict_tree_of(name))
    with pytest.raises(Error, match=as_c):
        c_erofs.mkfs_erofs(tree_of(name))
