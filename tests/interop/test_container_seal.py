"""Sealed images: ukify builds, osslsigncode or sbsign signs, sbverify and umoci judge."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bootc.boot.image_content import checked_chunks, size_of
from bootc.boot.image_kernel import UkiFile
from bootc.deploy.install.boot_choice import decide_booting
from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.filesystem import Filesystem
from bootc.deploy.install.loader_systemd_boot import SystemdBootInstaller
from bootc.deploy.install.request import InstallRequest
from bootc.formats.digest import Digest
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import Manifest
from bootc.formats.origin import BootType
from bootc.formats.pe import Uki
from bootc.formats.pesignature import is_signed
from bootc.formats.tree import Leaf
from bootc.fs.dir import Dir
from bootc.oci.pull import pull
from bootc.oci.source import open_source
from bootc.repository.repository import Repository
from support import images, require, sealing, sealtools, ukify
from support.images import directory, file
from support.sealing import KVER, LOADER, UKI
from support.sealtools import Keys
from support.verity import FakeVerity

pytestmark = pytest.mark.interop


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    require.tool("osslsigncode")
    return ukify.program(tmp_path / "programs", stub=False)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys.make(tmp_path)


@pytest.fixture
def base(tmp_path: Path) -> images.Layout:
    return images.single(tmp_path / "base", *sealtools.real_layers(), tag="os")


def result(output: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in output.splitlines())


def digest_of(what: object) -> str:
    argv = [sys.executable, "-m", "bootc", "container", "compute-composefs-digest", str(what)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def unpacked(reference: str, bundle: Path) -> Path:
    require.root()
    umoci = require.tool("umoci")
    subprocess.run([umoci, "unpack", "--image", reference, bundle], check=True)
    return bundle / "rootfs"


def warnings_of(root: Path) -> list[str]:
    """Return the names of the lints that find something."""
    argv = [sys.executable, "-m", "bootc", "container", "lint", "--rootfs", str(root)]
    lines = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()
    assert any(line.startswith("Checks passed: ") for line in lines)
    return [line.split(": ")[1] for line in lines if line.startswith(("Lint", "Failed"))]


def last_layer(reference: str) -> str:
    with open_source(ImageReference.parse(reference)) as source:
        return str(Manifest.parse(source.manifest_raw).layers[-1].digest)


def test_a_sealed_image(tmp_path: Path, programs: Path, keys: Keys, base: images.Layout) -> None:
    """The same image gives the same digest, whenever it is sealed; it is signed and complete."""
    out = tmp_path / "out"
    arguments = (base.reference("os"), f"oci:{out}:sealed", *keys.options, "--karg=ro")
    found = result(sealtools.seal(*arguments, programs=programs).stdout)
    assert found["Image"] == f"oci:{out}:sealed"
    # A machine computes the id that the UKI names, of the image and of its files on a disk.
    assert digest_of(f"oci:{out}:sealed") == found["Deployment"]
    root = unpacked(f"{out}:sealed", tmp_path / "bundle")
    assert digest_of(root) == found["Deployment"]
    with (root / UKI).open("rb") as opened:
        uki = Uki.read(opened)
        words = uki.text(".cmdline").split()
        assert words[:3] == [
            *("quiet", "lockdown=integrity"),
            f"composefs.digest=v1-sha512-12:{found['Deployment']}",
        ]
        assert words[3].startswith("composefs=")
        assert words[4:] == ["ro"]
        assert b"".join(uki.chunks(".linux")) == sealing.KERNEL
        assert uki.text(".uname") == KVER
    for path in (UKI, f"{LOADER}.signed"):
        verify = [require.tool("sbverify"), "--cert", keys.certificate, root / path]
        subprocess.run(verify, check=True, capture_output=True)
    assert list((root / "usr/lib/modules" / KVER).iterdir()) == []
    # What ukify and the signer have made has no fault.
    assert not {name for name in warnings_of(root) if "-seal-" in name or "-digests" in name}

    # Time has passed; a signature of sbsign would be another one.
    again = sealtools.seal(*arguments, "--erofs-version=v1", programs=programs, expect=1)
    assert "has an image sealed already" in again.stderr
    second = (arguments[0], f"oci:{tmp_path}/second", *arguments[2:])
    assert result(sealtools.seal(*second, programs=programs).stdout)["Digest"] == found["Digest"]


def test_other_builders(tmp_path: Path, programs: Path, keys: Keys, base: images.Layout) -> None:
    """The files count, and not how a builder packed them."""
    first, second = sealtools.real_layers()
    repacked = images.Layout(tmp_path / "repacked")
    # The end of an archive is two blocks of zeros.
    both = first[: -(-first.index(bytes(1024)) // 512) * 512] + second
    repacked.image([both], tag="one", compression="zstd")
    docker = {
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "layers": [
            repacked.blob(
                images.compress(data, "gzip"), "application/vnd.docker.image.rootfs.diff.tar.gzip"
            )
            for data in (first, second)
        ],
    }
    repacked.image([first, second], tag="docker", manifest=docker)
    umoci = require.tool("umoci")
    rootfs = unpacked(f"{base.path}:os", tmp_path / "bundle")
    for command in (
        ["init", "--layout", tmp_path / "umoci"],
        ["new", "--image", f"{tmp_path}/umoci:os"],
    ):
        subprocess.run([umoci, *command], check=True)
    empty = unpacked(f"{tmp_path}/umoci:os", tmp_path / "empty")
    subprocess.run(["cp", "-a", f"{rootfs}/.", empty], check=True)
    repack = ["repack", "--image", f"{tmp_path}/umoci:os", tmp_path / "empty"]
    subprocess.run([umoci, *repack], check=True)

    sources = [
        base.reference("os"),
        *(repacked.reference(tag) for tag in ("one", "docker")),
        f"oci:{tmp_path}/umoci:os",
        built_by_buildah(rootfs, tmp_path),
    ]
    found = set()
    for number, source in enumerate(sources):
        output = f"oci:{tmp_path}/out:{number}"
        done = sealtools.seal(source, output, *keys.options, programs=programs)
        found.add((result(done.stdout)["Deployment"], last_layer(output)))
    assert len(found) == 1


def built_by_buildah(rootfs: Path, directory: Path) -> str:
    """Build an image of files in one layer, as a Containerfile FROM scratch does."""
    buildah = (
        *(require.tool("buildah"), "--storage-driver", "vfs"),
        *("--root", f"{directory}/storage", "--runroot", f"{directory}/run"),
    )

    def run(*arguments: str) -> str:
        argv = [*buildah, *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    container = run("from", "scratch")
    run("copy", "--quiet", container, f"{rootfs}/.", "/")
    run("commit", "--quiet", container, f"oci:{directory}/buildah:os")
    run("rm", container)
    return f"oci:{directory}/buildah:os"


def test_an_external_signer(
    tmp_path: Path, programs: Path, keys: Keys, base: images.Layout
) -> None:
    """The files are signed by another program, in two halves or as a command."""
    work, out = tmp_path / "work", tmp_path / "out"
    rounds: list[list[str]] = []
    for _ in range(3):
        done = sealtools.seal("prepare", base.reference("os"), work, programs=programs)
        rounds.append(done.stdout.splitlines())
        for path in rounds[-1]:
            keys.sbsign(path, path.replace("/unsigned/", "/signed/"))
    expected = [[f"{work}/unsigned/systemd-bootx64.efi"], [f"{work}/unsigned/{KVER}.efi"], []]
    assert rounds == expected
    finish = ("finish", base.reference("os"), work, f"oci:{out}:halves")
    other = Keys.make(tmp_path, "other")
    failed = sealtools.seal(*finish, f"--cert={other.certificate}", programs=programs, expect=1)
    assert "does not verify with the certificate" in failed.stderr
    assert not out.exists()
    done = sealtools.seal(*finish, f"--cert={keys.certificate}", programs=programs)
    assert digest_of(f"oci:{out}:halves") == result(done.stdout)["Deployment"]

    signer = programs / "hsm"
    signer.write_text('#!/bin/sh\nexec sbsign "$1" "$2" --output "$4" "$3"\n')
    signer.chmod(0o755)
    command = f"{signer} '--key={keys.key}' '--cert={keys.certificate}'"
    done = sealtools.seal(
        *(base.reference("os"), f"oci:{out}:command"),
        *("--signer", command, "--cert", keys.certificate),
        programs=programs,
    )
    assert digest_of(f"oci:{out}:command") == result(done.stdout)["Deployment"]
    assert len(json.loads((out / "index.json").read_text())["manifests"]) == 2


def test_a_loader_that_another_key_signed(
    tmp_path: Path, programs: Path, keys: Keys, base: images.Layout
) -> None:
    """It is kept, and the user hears that the certificate is another one."""
    loader = tmp_path / "loader.efi"
    loader.write_bytes(ukify.stub_path().with_name("systemd-bootx64.efi").read_bytes())
    Keys.make(tmp_path, "other").sbsign(str(loader), f"{loader}.signed")
    added = file(f"{LOADER}.signed", Path(f"{loader}.signed").read_bytes())
    base.image([*sealtools.real_layers(added)], tag="signed")
    out = f"oci:{tmp_path}/out"
    done = sealtools.seal(base.reference("signed"), out, *keys.options, programs=programs)
    assert digest_of(out) == result(done.stdout)["Deployment"]
    assert f"/{LOADER}.signed of the image is signed already" in done.stderr
    assert f"its signature does not verify with {keys.certificate}" in done.stderr
    assert "Signing systemd-boot" not in done.stderr


def test_an_installation_takes_it(
    tmp_path: Path, programs: Path, keys: Keys, base: images.Layout
) -> None:
    """An installation that requires fs-verity recognises the UKI, and finds all that it names."""
    out = ImageReference.parse(f"oci:{tmp_path}/out")
    named = result(
        sealtools.seal(base.reference("os"), out, *keys.options, programs=programs).stdout
    )["Deployment"]
    (tmp_path / "root").mkdir()
    with (
        Dir.open(tmp_path / "root") as root,
        Repository.create(root, secure=True, verity=FakeVerity()) as repository,
        open_source(out) as source,
    ):
        pulled = pull(repository, source, bootable=True)
        assert pulled.image_id.hex == named
        request = InstallRequest(source=out, target=out, source_name=out.name)
        decisions = Decisions(
            machine=os.uname().machine,
            loader=SystemdBootInstaller(),
            filesystem=Filesystem.EXT4,
            allow_missing_verity=False,
            kargs=(),
        )
        booting = decide_booting(request, decisions, (), pulled, repository)
        assert (booting.image_id.hex, booting.boot_type) == (named, BootType.UKI)
        assert isinstance(booting.resource, UkiFile)
        assert booting.resource.path == UKI
        installed = b"".join(checked_chunks(booting.resource.leaf, repository.objects, "UKI"))
        images_named = Uki.read(io.BytesIO(installed)).composefs_images()
        assert images_named.deployment == named
        assert not images_named.optional
        # The image of the second digest was made as well.
        assert all(repository.images.exists(Digest.from_hex(h)) for h in images_named.hexes)
        assert is_signed(io.BytesIO(installed))
        # The installer of the boot loader finds the signed program.
        sizes = SystemdBootInstaller().program_sizes(pulled.root, generic=False)
        signed = pulled.root.lookup(f"{LOADER}.signed")
        assert isinstance(signed, Leaf)
        assert set(sizes.values()) == {size_of(signed)}


@pytest.mark.parametrize(
    ("key", "certificate", "message"),
    [
        ("db.key", "other.pem", "does not belong to the certificate"),
        ("db.pem", "db.pem", "db.pem is not a key in PEM"),
        ("absent", "db.pem", "Reading the key: "),
    ],
)
def test_keys_that_do_not_fit(
    tmp_path: Path,
    programs: Path,
    keys: Keys,
    base: images.Layout,
    key: str,
    certificate: str,
    message: str,
) -> None:
    Keys.make(tmp_path, "other")
    done = sealtools.seal(
        *(base.reference("os"), f"oci:{tmp_path}/out"),
        *("--key", tmp_path / key, "--cert", tmp_path / certificate),
        programs=programs,
        expect=1,
    )
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("choice", ["v2", "v1-only"])
def test_the_digests_that_were_chosen(
    tmp_path: Path, programs: Path, keys: Keys, choice: str
) -> None:
    """Whichever digest the UKI names, it is that of the image; with links and labels too."""
    more: list[Any] = [
        *(directory(path) for path in ("etc", "etc/selinux", "etc/selinux/t")),
        *(directory(f"etc/selinux/t/{path}") for path in ("contexts", "contexts/files")),
        file("etc/selinux/config", b"SELINUXTYPE=t\n"),
        file(
            "etc/selinux/t/contexts/files/file_contexts",
            b"/.*\tsystem_u:object_r:usr_t:s0\n" + f"/{LOADER}.*\tx:y:boot_t:s0\n".encode(),
        ),
        images.hardlink("boot/vmlinuz", f"usr/lib/modules/{KVER}/vmlinuz"),
    ]
    base = images.single(tmp_path / "base", *sealtools.real_layers(*more))
    out = f"oci:{tmp_path}/out:os"
    done = sealtools.seal(
        base.reference(), out, *keys.options, f"--erofs-version={choice}", programs=programs
    )
    named = result(done.stdout)["Deployment"]
    assert (digest_of(out) == named) == (choice == "v1-only")
    root = unpacked(f"{tmp_path}/out:os", tmp_path / "bundle")
    assert not (root / "boot/vmlinuz").exists()
