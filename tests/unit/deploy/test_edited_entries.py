"""Machines whose boot entries or kernel images somebody wrote by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.boot.menu_compose import CannotCompose
from bootc.boot.scheme import Scheme
from bootc.formats.origin import BootType
from support import osimages, pe
from support.bench import Bench
from support.bootdirs import GRUB, GRUB_UKI, SYSTEMD, SYSTEMD_UKI, scheme_name
from support.osimages import Images

SPLIT = """\
# by hand
title mine
initrd {initrd}
options root=UUID=1 console=ttyS0
x-key 1
linux {linux}
options {composefs}
devicetree-overlay /a /b
options rd.luks.uuid=2 "dyndbg=file x.c +p"
x-key 2
devicetree-overlay /c
"""


@pytest.fixture(params=[SYSTEMD, GRUB], ids=scheme_name)
def edited(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Bench, str]:
    """Return a machine, and the file name of the entry of what runs, which is now SPLIT."""
    scheme: Scheme = request.param
    images = Images(tmp_path / "images", BootType.BLS)
    bench = Bench(scheme, tmp_path, images, osimages.OLD, osimages.NEW)
    shown = bench.machine.menu()[0]
    keys = dict(line.split(" ", 1) for line in entry(bench, shown.name))
    composefs = next(word for word in keys["options"].split() if word.startswith("composefs="))
    text = SPLIT.format(composefs=composefs, **{key: keys[key] for key in ("linux", "initrd")})
    (bench.machine.entries / shown.name).write_text(text)
    return bench, shown.name


def entry(bench: Bench, name: str) -> list[str]:
    return (bench.machine.entries / name).read_text().splitlines()


def of(lines: list[str], key: str) -> list[str]:
    return [line for line in lines if line.split()[0] == key]


def test_arguments_on_several_lines_and_keys_that_are_repeated_stay(
    edited: tuple[Bench, str],
) -> None:
    bench, _ = edited
    kept = 'root=UUID=1 console=ttyS0 composefs=?{} rd.luks.uuid=2 "dyndbg=file x.c +p"'
    assert bench.machine.status()["status"]["booted"] is not None
    bench.upgrade(osimages.TURNED)
    bench.machine.reboot()
    new, old = (entry(bench, shown.name) for shown in bench.machine.menu()[:2])
    turned, running = bench.id(osimages.TURNED), bench.id(osimages.NEW)
    # The new image asks for other arguments; those of the old one were not in the entry.
    assert of(new, "options") == [f"options {kept.format(turned)} a b"]
    assert of(old, "options") == [f"options {kept.format(running)}"]
    assert of(old, "x-key") == ["x-key 1", "x-key 2"]
    overlays = ["devicetree-overlay /a /b", "devicetree-overlay /c"]
    assert of(old, "devicetree-overlay") == overlays
    assert of(old, "title") == ["title mine"]
    assert of(old, "version") == []


def test_an_open_quote_is_refused_before_anything_is_touched(edited: tuple[Bench, str]) -> None:
    bench, name = edited
    path = bench.machine.entries / name
    path.write_text(path.read_text() + 'options dyndbg="file\n')
    before = bench.machine.contents(repository=False)
    with pytest.raises(CannotCompose, match=r"bad kernel argument 'dyndbg=\"file'"):
        bench.upgrade(osimages.TURNED)
    assert bench.machine.contents(repository=False) == before


@pytest.fixture(params=[SYSTEMD_UKI, GRUB_UKI], ids=scheme_name)
def unified(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Bench, Path]:
    """Return a machine, and the unified kernel image of what runs."""
    scheme: Scheme = request.param
    images = Images(tmp_path / "images", BootType.UKI)
    bench = Bench(scheme, tmp_path, images, osimages.OLD, osimages.NEW)
    return bench, bench.machine.menu()[0].files[0]


def test_status_looks_at_the_profiles_of_installed_kernel_images(
    unified: tuple[Bench, Path],
) -> None:
    bench, path = unified
    assert bench.findings() == []
    image = f"composefs=?{bench.id(osimages.NEW)}"

    def with_profile(cmdline: str) -> list[str]:
        sections = [
            *(section for section in pe.UKI_SECTIONS if section[0] != b".cmdline"),
            (b".cmdline", image.encode()),
            (b".profile", b"ID=rescue"),
            (b".cmdline", cmdline.encode()),
        ]
        path.write_bytes(pe.program(*sections))
        return bench.findings()

    assert with_profile(f"rescue {image}") == []
    (found,) = with_profile("rescue")
    assert found.startswith("profile 0 (rescue): No composefs image in UKI cmdline")
    (found,) = with_profile(f"composefs=?{bench.id(osimages.OLD)}")
    assert "and another one composefs=" in found
    with_profile(image)
    addons = path.with_name(f"{path.name}.extra.d")
    addons.mkdir()
    (addons / "x.addon.efi").write_bytes(pe.program((b".cmdline", b"composefs=x")))
    assert bench.findings() == [
        "UKI add-on 'x.addon.efi': the kernel argument 'composefs=x' is not yours to set "
        "(hint: only the UKI may name the image)"
    ]


@pytest.mark.timeout(20)
def test_what_is_not_a_kernel_image(unified: tuple[Bench, Path]) -> None:
    bench, path = unified
    path.write_bytes(b"MZ")
    (found,) = bench.findings()
    assert found.startswith("UKI is not valid EFI executable")
    path.unlink()
    assert bench.findings() == []
    path.mkdir()
    (found,) = bench.findings()
    assert "Is a directory" in found
    path.rmdir()
    os.mkfifo(path)
    assert len(bench.findings()) == 1
