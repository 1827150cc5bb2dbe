"""``cfs oci prepare-boot``: what it writes under which names, and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.fs.dir import Dir
from support import images, pe
from support.cfs import Cfs
from support.images import directory, file, layer, symlink
from support.ociverbs import BASE, KERNEL, digests_of, image_id

INITRAMFS = b"initramfs" * 50
MODULES = "usr/lib/modules/6.12.0"
UKI = "boot/EFI/Linux/os.efi"
ENTRY = b"title Image\nlinux /boot/k\ninitrd /boot/i\noptions rw console=tty0\n"
OWN = (
    directory("boot"),
    directory("boot/loader"),
    directory("boot/loader/entries"),
    file("boot/k", b"own kernel" * 200),
    file("boot/i", b"own initramfs"),
)


def pulled(cfs: Cfs, tmp_path: Path, *members: images.Member) -> str:
    """Pull an image with these files, and return the digest of its boot image."""
    layout = images.single(tmp_path / f"layout-{len(members)}", BASE, layer(*members))
    cfs("oci", "pull", layout.reference(), "os")
    return image_id(layout)


def files_below(top: Path) -> dict[str, bytes]:
    return {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}


def directories_below(top: Path) -> set[str]:
    return {str(p.relative_to(top)) for p in top.rglob("*") if p.is_dir()}


def options_of(entry: bytes) -> str:
    (line,) = (line for line in entry.decode().splitlines() if line.startswith("options "))
    return line.removeprefix("options ")


def karg(digest: str) -> str:
    return f"composefs.digest=?v1-sha512-12:{digest}"


def test_kernel_entry_and_state(cfs: Cfs, tmp_path: Path) -> None:
    digest = pulled(cfs, tmp_path, file("usr/lib/os-release", b"PRETTY_NAME=X\nVERSION_ID=7\n"))
    boot = tmp_path / "new/boot"
    assert cfs("oci", "prepare-boot", "os", "--bootdir", boot) == ""
    kver = next(iter((boot).glob("*/vmlinuz"))).parent.name
    written = files_below(boot)
    assert written.pop(f"loader/entries/{kver}.conf").decode() == (
        f"title X\nversion 7\nlinux /{kver}/vmlinuz\ninitrd /{kver}/initramfs.img\n"
        f"options {karg(digest)}\n"
    )
    assert written == {f"{kver}/vmlinuz": KERNEL, f"{kver}/initramfs.img": INITRAMFS}
    state = tmp_path / "state/deploy" / digest
    assert directories_below(state) == {"var", "etc", "etc/upper", "etc/work"}
    assert (cfs.repo / "images" / digest).is_symlink()
    # The image is part of the container image, so a clean-up keeps it.
    cfs("gc")
    assert (cfs.repo / "images" / digest).is_symlink()
    assert cfs("oci", "prepare-boot", "os", "--bootdir", boot) == ""
    assert len(files_below(boot)) == 3


def test_entry_id_and_arguments(cfs: Cfs, tmp_path: Path) -> None:
    digest = pulled(cfs, tmp_path)
    words = ["--entry-id", "mine", "--cmdline", "quiet", "--cmdline", "console=ttyS0 ro"]
    cfs("oci", "prepare-boot", "os", "--bootdir", tmp_path / "boot", *words)
    written = files_below(tmp_path / "boot")
    assert written.keys() == {"mine/vmlinuz", "mine/initramfs.img", "loader/entries/mine.conf"}
    options = options_of(written["loader/entries/mine.conf"])
    assert options == f"{karg(digest)} quiet console=ttyS0 ro"


@pytest.mark.parametrize(("version", "spelling"), [("2", "composefs=?"), ("1", "v1-sha512-12:")])
def test_the_argument_names_the_format(
    cfs: Cfs, tmp_path: Path, version: str, spelling: str
) -> None:
    pulled(cfs, tmp_path)
    words = ["--bootdir", tmp_path / "boot", "--entry-id", "e"]
    cfs("oci", "prepare-boot", "os", *words, group=("--erofs-version", version))
    entry = (tmp_path / "boot/loader/entries/e.conf").read_bytes()
    assert spelling in options_of(entry)


def test_the_configuration_and_its_stream(cfs: Cfs, tmp_path: Path, layout: images.Layout) -> None:
    cfs("oci", "pull", layout.reference(), "os")
    config = digests_of(layout)[1]
    stream = (cfs.repo / "streams" / f"oci-config-{config}").readlink()
    verity = "".join(stream.parts[-2:])
    cfs("oci", "prepare-boot", f"@{config}", verity, "--bootdir", tmp_path / "boot")
    assert len(files_below(tmp_path / "boot")) == 3
    assert (cfs.repo / "streams" / f"oci-config-{config}").readlink() == stream


@pytest.mark.parametrize(
    ("words", "paths", "linux"),
    [
        ([], {"boot/k", "boot/i", "loader/entries/a.conf"}, "/boot/k"),
        (["--entry-id", "n"], {"n/k", "n/i", "loader/entries/n.conf"}, "/n/k"),
    ],
)
def test_the_first_entry_of_the_image(
    cfs: Cfs, tmp_path: Path, words: list[str], paths: set[str], linux: str
) -> None:
    second = file("boot/loader/entries/b.conf", b"linux /boot/none\n")
    digest = pulled(cfs, tmp_path, *OWN, second, file("boot/loader/entries/a.conf", ENTRY))
    boot = tmp_path / "boot"
    cfs("oci", "prepare-boot", "os", "--bootdir", boot, "--cmdline", "console=ttyS0", *words)
    written = files_below(boot)
    assert written.keys() == paths
    (name,) = (name for name in paths if name.endswith(".conf"))
    assert f"\nlinux {linux}\n" in written[name].decode()
    assert options_of(written[name]) == f"rw console=ttyS0 {karg(digest)}"


def uki(*digests: str) -> bytes:
    cmdline = " ".join(["rw", *digests]).encode()
    sections = dict(pe.UKI_SECTIONS) | {b".cmdline": cmdline}
    return pe.program(*sections.items())


UKI_MEMBERS = (directory("boot"), directory("boot/EFI"), directory("boot/EFI/Linux"))


@pytest.mark.parametrize("words", [[], ["--entry-id", "mine"]])
def test_unified_kernel_image(cfs: Cfs, tmp_path: Path, words: list[str]) -> None:
    # The content of /boot is not part of the tree to boot.
    digest = pulled(cfs, tmp_path, *UKI_MEMBERS)
    extra = directory(f"{UKI}.extra.d"), file(f"{UKI}.extra.d/a.addon.efi", b"addon")
    program = uki(karg(digest))
    assert pulled(cfs, tmp_path, *UKI_MEMBERS, file(UKI, program), *extra) == digest
    boot = tmp_path / "esp"
    cfs("oci", "prepare-boot", "os", "--bootdir", boot, *words)
    name = "mine.efi" if words else "os.efi"
    assert files_below(boot) == {
        f"EFI/Linux/{name}": program,
        f"EFI/Linux/{name}.extra.d/a.addon.efi": b"addon",
    }
    assert (tmp_path / "state/deploy" / digest / "etc/work").is_dir()
    error = cfs.error("oci", "prepare-boot", "os", "--bootdir", boot, "--cmdline", "quiet")
    assert "leave out --cmdline" in error


def missing(cfs: Cfs, tmp_path: Path, *words: object) -> str:
    """Run the verb that fails, and see that it leaves nothing but objects."""
    before = files_below(tmp_path / "boot"), directories_below(tmp_path / "boot")
    error = cfs.error("oci", "prepare-boot", "os", "--bootdir", tmp_path / "boot", *words)
    assert (files_below(tmp_path / "boot"), directories_below(tmp_path / "boot")) == before
    assert not (tmp_path / "state").exists()
    return error


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ((file("usr/x"),), "no kernel: the image has no boot entry"),
        ((*OWN, file("boot/loader/entries/a.conf", b"title X\n")), "boot entry needs one of"),
        ((*OWN, file("boot/loader/entries/a.conf", b"linux /gone\n")), "has no gone"),
        ((*OWN, file("boot/loader/entries/a.conf", b"linux /usr\n")), "no regular file usr"),
        ((*OWN, file("boot/loader/entries/a.conf", b"linux /../x\n")), "'..' cannot name"),
        ((*OWN, file("boot/loader/entries/a.conf", b"linux /\n")), "names no file"),
        ((*OWN, symlink("boot/loader/entries/a.conf", "b")), "not a regular file"),
        ((*OWN, file("boot/loader/entries/a.conf", b"#" * (2 << 20))), "more than"),
        ((*UKI_MEMBERS, file(UKI, b"no program")), "os.efi"),
        ((*UKI_MEMBERS, file(UKI, uki("composefs=" + "ab" * 64))), "wrong composefs digest"),
        (
            (directory("usr/lib/modules"), directory(MODULES), file(f"{MODULES}/vmlinuz")),
            "has no initramfs",
        ),
    ],
)
def test_an_image_that_cannot_boot(
    cfs: Cfs, tmp_path: Path, members: tuple[images.Member, ...], told: str
) -> None:
    top = map(directory, ("boot", "sysroot", "usr", "usr/lib"))
    layout = images.single(tmp_path / "layout", layer(*top, *members))
    cfs("oci", "pull", layout.reference(), "os")
    assert told in missing(cfs, tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--entry-id", "a/b"], "'a/b' cannot name a file"),
        (["--entry-id", ""], "the value is empty"),
        (["--entry-id", "..", "--cmdline", "a"], "'..' cannot name a file"),
        (["--entry-id", "loader"], "'loader' is the directory of boot loaders"),
        (["--entry-id", "Efi"], "'Efi' is the directory of boot loaders"),
        (["--cmdline", "composefs=" + "ab" * 64], "is not yours to set"),
        (["--cmdline", "a\nb"], "bad kernel argument"),
        (["--cmdline", 'a="b'], "bad kernel argument"),
    ],
)
def test_wrong_words(cfs: Cfs, tmp_path: Path, words: list[str], told: str) -> None:
    error = cfs.error("oci", "prepare-boot", "os", "--bootdir", tmp_path / "b", *words, code=2)
    assert told in error
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("other", ["another image", "no image", "garbage", "the same image"])
def test_the_entry_of_another_image_is_replaced_aloud(
    cfs: Cfs, tmp_path: Path, caplog: pytest.LogCaptureFixture, other: str
) -> None:
    pulled(cfs, tmp_path, *OWN)
    boot = tmp_path / "boot"
    cfs("oci", "prepare-boot", "os", "--bootdir", boot)
    (entry,) = (boot / "loader/entries").iterdir()
    ours = entry.read_bytes()
    options = {"another image": f"composefs={'ab' * 64}", "no image": "root=/dev/vda1"}.get(other)
    if other == "garbage":
        entry.write_bytes(b"\xff\x1b")
    elif options is not None:
        entry.write_text(f"title x\nlinux /vmlinuz\noptions {options}\n")
    caplog.clear()
    cfs("oci", "prepare-boot", "os", "--bootdir", boot)
    assert entry.read_bytes() == ours
    words = [record.getMessage() for record in caplog.records]
    assert words == (
        []
        if other == "the same image"
        else [
            f"the boot entry {entry.name!r} booted another image before; "
            "--entry-id keeps both entries"
        ]
    )


def test_same_names_after_the_move(cfs: Cfs, tmp_path: Path) -> None:
    entry = b"linux /boot/k\ninitrd /boot/i\ninitrd /usr/i\n"
    pulled(cfs, tmp_path, *OWN, file("usr/i"), file("boot/loader/entries/a.conf", entry))
    assert "two files of the boot entry are called 'i'" in missing(cfs, tmp_path, "--entry-id", "n")


def test_a_boot_directory_that_is_none(cfs: Cfs, tmp_path: Path) -> None:
    pulled(cfs, tmp_path)
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        error = cfs.error("oci", "prepare-boot", "os", "--bootdir", tmp_path / place)
        assert str(tmp_path / "file") in error
    assert not (tmp_path / "state").exists()


def test_no_room(cfs: Cfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bootc.boot import entry_files

    pulled(cfs, tmp_path)
    monkeypatch.setattr(entry_files, "free_space", lambda _: (17 * 512, 512))
    assert "but the boot files need" in missing(cfs, tmp_path)


def test_the_state_of_a_deployment(cfs: Cfs, tmp_path: Path) -> None:
    digest = pulled(cfs, tmp_path)
    state = tmp_path / "state/deploy" / digest
    state.mkdir(parents=True)
    (state / f"{digest}.origin").touch()
    error = cfs.error("oci", "prepare-boot", "os", "--bootdir", tmp_path / "boot")
    assert f"{digest} has the state of a deployment" in error
    assert os.listdir(state) == [f"{digest}.origin"]
    assert not (tmp_path / "boot").exists()


@pytest.mark.parametrize(("first", "second"), [("a", "A"), ("A", "a")])
def test_ids_that_differ_only_in_case(
    cfs: Cfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    """FAT takes them for the same, and the second would replace the first."""
    pulled(cfs, tmp_path)
    boot = tmp_path / "boot"
    words = ("oci", "prepare-boot", "os", "--bootdir", boot, "--entry-id")
    cfs(*words, first)
    before = files_below(boot)
    with monkeypatch.context() as patch:
        patch.setattr(Dir, "exists", exists_on_fat)
        code, out, err = cfs.raw(*words, second)
        assert (code, out) == (1, b"")
        assert f"{boot} has '{first}', and its file system takes '{second}' for the same" in err
        assert "choose another --entry-id" in err
        assert files_below(boot) == before
        # The same id replaces its own files.
        cfs(*words, first)
    cfs(*words, second)
    assert len(files_below(boot)) == 2 * len(before)


def exists_on_fat(directory: Dir, relpath: str) -> bool:
    top = Path(directory.path)
    names = {str(path.relative_to(top)).lower() for path in top.rglob("*")}
    return relpath.lower() in names
