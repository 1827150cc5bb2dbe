from __future__ import annotations

from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.formats.keyfile import KeyfileError
from bootc.lint.prepareroot import baseimage_composefs
from support.roots import Root, base

CONF = "ostree/prepare-root.conf"
ABSENT = "ostree/prepare-root.conf is not present to enable composefs"
DISABLED = "ostree/prepare-root.conf does not have composefs enabled"
ON, OFF = "[composefs]\nenabled=true\n", "[composefs]\nenabled=no\n"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return base(tmp_path / "root")


def test_enabled(root: Root) -> None:
    assert root.found(baseimage_composefs) is None


def test_absent(root: Root) -> None:
    root.remove(f"usr/lib/{CONF}")
    assert root.found(baseimage_composefs) == ABSENT


@pytest.mark.parametrize("text", ["", OFF, "[sysroot]\nreadonly=true\n"])
def test_not_enabled(root: Root, text: str) -> None:
    root.file(f"usr/lib/{CONF}", text)
    assert root.found(baseimage_composefs) == DISABLED


@pytest.mark.parametrize("home", ["etc", "run"])
def test_elsewhere_counts_first(root: Root, home: str) -> None:
    root.file(f"{home}/{CONF}", OFF)
    assert root.found(baseimage_composefs) == DISABLED
    root.file(f"{home}/{CONF}", ON).remove(f"usr/lib/{CONF}")
    assert root.found(baseimage_composefs) is None


def test_the_reference_of_a_base_image(root: Root) -> None:
    reference = base(root.path / "usr/share/doc/bootc/baseimage/base")
    assert root.found(baseimage_composefs) is None
    reference.file(f"usr/lib/{CONF}", OFF)
    assert root.found(baseimage_composefs) == DISABLED
    reference.remove(f"usr/lib/{CONF}")
    assert root.found(baseimage_composefs) == ABSENT


def test_malformed(root: Root) -> None:
    root.file(f"usr/lib/{CONF}", "enabled=yes\n")
    with pytest.raises(KeyfileError) as caught:
        root.found(baseimage_composefs)
    assert one_line(caught.value) == (
        "Parsing usr/lib/ostree/prepare-root.conf: line 1 is no key of a section: 'enabled=yes'"
    )
