"""The C implementation's own test inputs give its own test results.

The data lies outside the project: in ``../shared/vectors`` or where
``BOOTC_TEST_VECTORS`` points.
"""

from __future__ import annotations

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
from bootc.formats.tree import Directory
from bootc.formats.verity import verity_digest

BESIDE = Path(__file__).parents[3] / "shared" / "vectors"
VECTORS = Path(os.environ.get("BOOTC_TEST_VECTORS", BESIDE)) / "composefs-c"

#: Lines that only the C tools' lenient mode takes, which this project does not have.
LENIENT = {
    "no-newline.dump": "a directory has no device number",
    "longlink.dump": "columns",
    "honggfuzz-longlink-unterminated.dump": "9 columns, needs 11",
}
#: fs-verity digests of the images in version 1.
VERSION_1 = {
    "bigfile.dump": "fa70c287ec4bdb389f29c24bb49569d503ff0de4436be0551deea861e95ecc5c",
    "bigfile-xattr.dump": "b4e638ab18419c4a6a5bae91f0e2055873cf21331f7b745a061bd37abb84c61c",
    "config.dump.gz": "c7dc4cff47b44d92c61ecdddf06cc62e6332fbc1a4528d38ed6df23baeb5f857",
    "config-with-hard-link.dump.gz": (
        "c52eede667bffac2f3a3fbabc29abcee42aa1ea5d6a35d00d70a921b1a75532c"
    ),
    "cs9-x86_64-developer.dump.gz": (
        "3c10c3d2cfa3603317a37a018f6f74a561a34f442afb49668ff9a8253f7525c4"
    ),
    "honggfuzz-bigfile-with-acl.dump": (
        "102bd6a8debd3d3973edec57b83ab5019867921c4de798ae6d31b693f8f6eac2"
    ),
    "special.dump": "1d268f8bc7609b4f8f8467e98565f45300f9e192c0e6ef2d05820d3ea41d4515",
}
#: What must be refused, and the reason that must be named.
REFUSED = {
    "should-fail-big-inline.dump": "columns",
    "should-fail-dir-hardlink.dump": "'/': no file",
    "should-fail-dot-name.dump": "impossible path '/.'",
    "should-fail-empty-name.dump": "impossible path '//'",
    "should-fail-empty-xattr-key.dump": "xattr '=somevalue' is not key=value",
    "should-fail-long-xattr-value.dump": "no file type",
    "should-fail-no-ftype.dump": "mode '0' has no file type",
    "should-fail-too-big.dump": "file size 9500000000000000 is out of range",
}


def names(pattern: str) -> list[str]:
    return sorted(path.name for path in VECTORS.glob(pattern))


def require(name: str) -> Path:
    path = VECTORS / name
    if not path.exists():
        pytest.skip(f"conformance data {path} is absent (BOOTC_TEST_VECTORS names its folder)")
    return path


def tree_of(name: str) -> Directory:
    path = require(name)
    raw = path.read_bytes()
    if name.endswith(".gz"):
        raw = gzip.decompress(raw)
    # A vector may be a symbolic link that was stored as a file holding its target.
    if raw.count(b"\n") == 0 and (VECTORS / raw.decode()).exists():
        raw = (VECTORS / raw.decode()).read_bytes()
    return parse_dumpfile(raw.splitlines(keepends=True))


def version_of(name: str) -> int:
    """The version asked for; without one, the C tools begin at 0."""
    path = VECTORS / f"{name}.version"
    return int(path.read_text()) if path.exists() else 0


def test_the_data_is_here() -> None:
    require("special.dump")


@pytest.mark.parametrize("name", names("*.dump*.sha256"))
def test_images_are_the_c_tools(name: str) -> None:
    name = name.removesuffix(".sha256")
    if name in LENIENT:
        with pytest.raises(DumpfileError, match=LENIENT[name]):
            tree_of(name)
        return
    image = mkfs_erofs(tree_of(name), version=version_of(name))
    expected = (VECTORS / f"{name}.sha256").read_text().strip()
    assert hashlib.sha256(image).hexdigest() == expected


@pytest.mark.parametrize(("name", "verity"), VERSION_1.items())
def test_version_1_and_back(name: str, verity: str) -> None:
    tree = tree_of(name)
    image = mkfs_erofs(tree)
    assert verity_digest(image, Algorithm.SHA256).hex == verity
    again = read_erofs(image)
    assert list(write_dumpfile(again)) == list(write_dumpfile(tree))


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_refused_with_the_reason(name: str, reason: str) -> None:
    require(name)
    with pytest.raises(Error, match=reason):
        mkfs_erofs(tree_of(name))
