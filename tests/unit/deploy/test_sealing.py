"""Which image is sealed, and what that demands of the machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bootc.boot.image_kernel import UkiFile, find_boot_resource
from bootc.boot.uki import WrongUki, inspect_uki
from bootc.boot.uki_parts import CannotTakeApart, UkiParts
from bootc.deploy import sealing
from bootc.deploy.sealing import CheckedUki, check_uki, require_verity, take_uki_apart
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import TakesApart
from bootc.fs.dir import Dir
from bootc.oci.pull import pull
from bootc.oci.source import open_source
from bootc.repository.repository import Repository
from support import images
from support.unified import unified

MEMBERS = [images.file("usr/program", b"a program of a sealed image " * 20)]
OTHER = "cd" * 64
V1, V2 = "composefs.digest={0}v1-sha512-12:{{1}}", "composefs={0}{{2}}"


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    (tmp_path / "sysroot").mkdir()
    with (
        Dir.open(tmp_path / "sysroot") as root,
        Repository.create(root, secure=False) as opened,
    ):
        yield opened


def checked(
    repository: Repository, path: Path, arguments: str, *, later: Sequence[bytes] = ()
) -> CheckedUki:
    """Pull an image whose UKI has these arguments, and check it.

    Args:
        repository: Where to pull it.
        path: Where to make it.
        arguments: As for :func:`support.unified.unified`.
        later: Layers behind the one of the UKI.
    """
    kernel = b"kernel" * 100, b"initramfs" * 100
    layout = unified(path, MEMBERS, *kernel, arguments=arguments, later=later)
    with open_source(ImageReference.parse(layout.reference())) as source:
        pulled = pull(repository, source)
    uki = find_boot_resource(pulled.root)
    assert isinstance(uki, UkiFile)
    uki = uki.with_addons(())
    return check_uki(repository, pulled, uki, inspect_uki(uki, repository.objects))


@pytest.mark.parametrize(
    ("arguments", "mark", "sealed"),
    [
        ("composefs={0}{{1}}", "", True),
        (V1, "", True),
        (f"{V1} {V2}", "", True),
        ("composefs={0}{{1}}", "?", False),
        (f"{V1} {V2}", "?", False),
    ],
)
def test_an_image_is_sealed_by_the_digests_of_its_uki(
    repository: Repository, tmp_path: Path, arguments: str, mark: str, sealed: bool
) -> None:
    found = checked(repository, tmp_path, arguments.format(mark))
    assert found.sealed is sealed
    assert found.pulled.image_id.hex in found.facts.images.hexes


def test_digests_that_disagree_are_no_unsealed_image(
    repository: Repository, tmp_path: Path
) -> None:
    with pytest.raises(WrongUki, match="disagree: only one of them tolerates"):
        checked(repository, tmp_path, f"{V1.format('')} {V2.format('?')}")


def test_a_digest_of_nothing(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(WrongUki, match=r"wrong composefs= parameter \(is 'cdcd") as caught:
        checked(repository, tmp_path, f"composefs={OTHER}")
    assert str(caught.value.hint).startswith("no known change of the tree explains the digest")


def test_a_layer_after_the_measurement_is_found(repository: Repository, tmp_path: Path) -> None:
    late = images.layer(images.file("usr/late", b"too late"))
    with pytest.raises(WrongUki, match="wrong composefs= parameter") as caught:
        checked(repository, tmp_path, "composefs={1}", later=[late])
    hint = str(caught.value.hint)
    assert hint.startswith("the digest is that of the image without its last layer; ")
    assert "entry missing: /usr/late" in hint


@pytest.mark.parametrize(
    ("mark", "lacks", "refused"), [("", True, True), ("", False, False), ("?", True, False)]
)
def test_a_sealed_image_needs_fs_verity_everywhere(
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mark: str,
    lacks: bool,
    refused: bool,
) -> None:
    found = checked(repository, tmp_path, f"composefs={mark}{{1}}")
    asked = []

    def find(repository: Repository, digests: Iterator[object]) -> object:
        asked.extend(digests)
        return asked[-1] if lacks else None

    monkeypatch.setattr(sealing, "find_without_verity", find)
    if refused:
        with pytest.raises(WrongUki, match="demands fs-verity, and this system stores objects"):
            require_verity(repository, found)
    else:
        require_verity(repository, found)
    if not mark:
        # The image itself, the program and the UKI among others.
        assert asked[0] == found.pulled.image_id
        assert len(asked) > 2


@pytest.mark.parametrize("mark", ["", "?"])
@pytest.mark.parametrize("which", TakesApart)
def test_a_seal_is_given_up_by_name_only(
    repository: Repository, tmp_path: Path, mark: str, which: TakesApart
) -> None:
    found = checked(repository, tmp_path, f"composefs={mark}{{1}}")
    if found.sealed and which is TakesApart.UNSEALED:
        with pytest.raises(CannotTakeApart, match="is sealed"):
            take_uki_apart(repository, found, which)
    else:
        assert isinstance(take_uki_apart(repository, found, which), UkiParts)
