"""Images whose unified kernel image names them by two digests, on machines of each kind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bootc.boot.scheme import Scheme
from bootc.boot.uki import WrongUki
from bootc.deploy import upgrade as updates
from bootc.deploy.cleanup import collect_garbage
from bootc.deploy.host.boot_state import deployment_ids
from bootc.deploy.host.model import ImageSpec
from bootc.deploy.upgrade import UpdateOptions
from bootc.errors import one_line
from bootc.formats import cmdline
from bootc.formats.digest import Digest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType
from bootc.initramfs.setup_root import open_first_image, open_state
from bootc.oci.layoutdir import open_layout
from bootc.oci.names import XattrMode
from bootc.oci.trees import image_id_of, image_tree
from bootc.repository import layout
from support import images, osimages, pe
from support.bench import Bench
from support.bootdirs import GRUB_UKI, SYSTEMD_UKI, scheme_name
from support.machine import Command
from support.osimages import Images

OTHER = "cd" * 64
V1, V2 = "composefs.digest=?v1-sha512-12:{v1}", "composefs=?{v2}"


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids of one tree: of both format versions, and with the user's attributes."""

    v1: str
    v2: str
    user: str


class Sealed:
    """Images of one tree that differ in their unified kernel image."""

    def __init__(self, path: Path) -> None:
        self._layout = images.Layout(path)
        content = b"the program of an image with two digests " * 20
        attributes = images.xattr("user.mark", "kept")
        etc = {"uid": os.getuid(), "gid": os.getgid()}
        self._system = images.bootable(
            images.file("usr/lib/os-release", b"ID=fedora\nVERSION_ID=45\n"),
            images.file("usr/program", content, pax_headers=attributes),
            images.directory("etc", **etc),
            images.file("etc/new", b"of the image", **etc),
        )
        self._layout.image([self._system], tag="plain")
        self.ids = Ids(self._id(1), self._id(2), self._id(1, XattrMode.KEEP_USER_XATTRS))

    def offer(self, arguments: str, *profiles: str) -> tuple[ImageReference, bytes]:
        """Add an image whose UKI has these arguments; return its name and the UKI."""
        line = arguments.format(v1=self.ids.v1, v2=self.ids.v2, user=self.ids.user)
        uki = pe.program(
            (b".osrel", b"ID=fedora\nVERSION_ID=45\n"),
            (b".cmdline", f"rw {line}".encode()),
            (b".linux", b"kernel of two digests" * 20),
            (b".initrd", b"initramfs of two digests" * 20),
            *(
                section
                for text in profiles
                for section in (
                    (b".profile", b"ID=other\n"),
                    (b".cmdline", text.format(v1=self.ids.v1, v2=self.ids.v2).encode()),
                )
            ),
        )
        where = [images.directory(d) for d in ("boot/EFI", "boot/EFI/Linux")]
        boot = images.layer(*where, images.file("boot/EFI/Linux/os.efi", uki))
        self._layout.image([self._system, boot], tag="sealed")
        return ImageReference.parse(self._layout.reference("sealed")), uki

    def _id(self, version: int, xattrs: XattrMode = XattrMode.ALLOWLIST_ONLY) -> str:
        reference = ImageReference.parse(self._layout.reference("plain"))
        with open_layout(reference, images.ARCHITECTURE) as source:
            return image_id_of(image_tree(source, xattrs=xattrs).root, version=version).hex


@pytest.fixture
def sealed(top: Path) -> Sealed:
    return Sealed(top / "sealed")


@pytest.fixture(params=[SYSTEMD_UKI, GRUB_UKI], ids=scheme_name)
def bench(request: pytest.FixtureRequest, top: Path, made: dict[BootType, Images]) -> Bench:
    scheme: Scheme = request.param
    return Bench(scheme, top, made[BootType.UKI], osimages.OLD)


@pytest.fixture
def one_bench(top: Path, made: dict[BootType, Images]) -> Bench:
    return Bench(SYSTEMD_UKI, top, made[BootType.UKI], osimages.OLD)


def switch(target: ImageReference) -> Command:
    return lambda system, journal: updates.switch(
        system, ImageSpec(target), UpdateOptions(), journal
    )


def deploy(bench: Bench, sealed: Sealed, arguments: str, *profiles: str) -> None:
    """Switch to an image, and boot it."""
    reference, uki = sealed.offer(arguments, *profiles)
    for image_id in (sealed.ids.v1, sealed.ids.v2, sealed.ids.user):
        bench.images.kernels[image_id] = (uki,)
    bench.machine.command(switch(reference))
    assert bench.machine.reboot() is None


def update(bench: Bench, image: osimages.OsImage) -> None:
    """Switch to an image of one digest, and boot it."""
    bench.channel.offer(image)
    bench.machine.command(switch(bench.channel.reference))
    # A switch to the channel that the machine follows already changes nothing.
    bench.upgrade(image)
    assert bench.machine.reboot() is None
    assert bench.machine.booted_id == bench.id(image)


def link(bench: Bench, image_id: str) -> Path:
    return bench.machine.physical / layout.REPOSITORY / layout.image_path(image_id)


@contextlib.contextmanager
def physical_fd(bench: Bench) -> Iterator[int]:
    fd = os.open(bench.machine.physical, os.O_PATH | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def start_as_the_initramfs_does(bench: Bench, arguments: str) -> str:
    """Boot with this command line, and return the image that is mounted, in hex."""
    named = cmdline.composefs_images(arguments)
    with physical_fd(bench) as sysroot_fd:
        repo_fd = os.open(layout.REPOSITORY, os.O_PATH | os.O_DIRECTORY, dir_fd=sysroot_fd)
        mounted, image_fd = open_first_image(repo_fd, named)
        path, state_fd = open_state(sysroot_fd, named)
        for fd in (repo_fd, image_fd, state_fd):
            os.close(fd)
    # Userland finds the same deployment by itself.
    ids = deployment_ids(Digest.from_hex(mounted), named, str(bench.machine.path))
    assert path == layout.state_dir(ids[0].hex)
    machine = bench.machine
    machine.booted = replace(machine.booted, image_id=ids[0], also=ids[1:], cmdline=arguments)
    return mounted


@pytest.mark.parametrize("arguments", [f"{V1} {V2}", f"{V2} {V1}", f"{V2} {V1} {V2}"])
def test_a_deployment_of_two_digests(bench: Bench, sealed: Sealed, arguments: str) -> None:
    machine, ids = bench.machine, sealed.ids
    deploy(bench, sealed, arguments)
    # Its id is the one that is called v1, and the repository has both images.
    assert machine.booted_id == ids.v1
    assert machine.menu()[0].image_id == ids.v1
    assert link(bench, ids.v1).exists()
    assert link(bench, ids.v2).exists()
    assert bench.findings() == []

    # The repository lost the first image: the second one boots the same deployment.
    line = f"rw {arguments}".format(v1=ids.v1, v2=ids.v2)
    first, second = cmdline.composefs_images(line).hexes
    assert start_as_the_initramfs_does(bench, line) == first
    link(bench, first).unlink()
    assert start_as_the_initramfs_does(bench, line) == second
    status = machine.status()["status"]
    assert status["booted"]["composefs"]["verity"] == ids.v1
    assert status["rollback"]["composefs"]["verity"] == bench.id(osimages.OLD)
    assert bench.findings() == []

    # So does a repository that never had it. Nothing needs it: neither the next update, nor its
    # finalization, which merges /etc. No clean-up removes the image that boots.
    bench.machine.physical.joinpath(layout.REPOSITORY, layout.object_path(first)).unlink()
    (machine.state(ids.v1) / "etc/local").write_text("mine")
    update(bench, osimages.NEW)
    assert machine.etc(machine.booted_id)["local"] == "mine"
    machine.command(collect_garbage)
    assert link(bench, second).exists()
    assert (machine.state(ids.v1) / "etc/new").exists()


def test_both_images_stay_without_the_documents(one_bench: Bench, sealed: Sealed) -> None:
    """The entries keep them: an origin of another program may name no manifest."""
    machine, ids = one_bench.machine, sealed.ids
    deploy(one_bench, sealed, f"{V1} {V2}")
    origin = machine.state(ids.v1) / f"{ids.v1}.origin"
    lines = origin.read_text().splitlines(keepends=True)
    origin.write_text("".join(line for line in lines if not line.startswith("manifest_digest")))
    facts = machine.facts()
    named = facts.origin(Digest.from_hex(ids.v1))
    assert named is not None
    assert named.manifest_digest is None
    machine.command(collect_garbage)
    assert link(one_bench, ids.v1).exists()
    assert link(one_bench, ids.v2).exists()


@pytest.mark.parametrize(
    ("arguments", "deployment"),
    [
        (V2, "v2"),
        ("composefs.digest=?v2-sha512-12:{v2}", "v2"),
        ("composefs=?{v1}", "v1"),
        ("composefs=?{v2} composefs=?{v1}", "v2"),
        # Images that keep the attributes of users have other ids.
        ("composefs=?{user}", "user"),
        ("composefs.digest=?v1-sha512-12:{user} composefs=?{v2}", "user"),
        # A repository of another kind would have this one.
        (f"composefs.digest=?v1-sha256-12:{'ab' * 32} {V1}", "v1"),
    ],
)
def test_the_images_are_made_as_the_uki_names_them(
    one_bench: Bench, sealed: Sealed, arguments: str, deployment: str
) -> None:
    deploy(one_bench, sealed, arguments)
    image_id = getattr(sealed.ids, deployment)
    assert one_bench.machine.booted_id == image_id
    assert one_bench.machine.states() == sorted([image_id, one_bench.id(osimages.OLD)])
    for named in cmdline.composefs_images(arguments.format_map(vars_of(sealed.ids))).hexes:
        assert link(one_bench, named).exists()
    assert one_bench.findings() == []


def vars_of(ids: Ids) -> dict[str, str]:
    return {"v1": ids.v1, "v2": ids.v2, "user": ids.user}


@pytest.mark.parametrize(
    ("arguments", "profiles", "message"),
    [
        (
            f"{V1} composefs=?{OTHER}",
            (),
            f"The UKI has the wrong parameter composefs=?{OTHER}: no image of its container has",
        ),
        (
            f"composefs.digest=?v1-sha512-12:{OTHER} {V2}",
            (),
            f"The UKI has the wrong composefs= parameter (is '{OTHER}', should be '{{v1}}')",
        ),
        (
            f"{V2} composefs=?{OTHER}",
            (),
            f"The UKI has the wrong parameter composefs=?{OTHER}: no image of its container has",
        ),
        (
            f"composefs=?{OTHER}",
            (),
            f"The UKI has the wrong composefs= parameter (is '{OTHER}', should be '",
        ),
        (
            "composefs.digest=?v1-sha512-12:{v1} composefs={v2}",
            (),
            "No composefs image in UKI cmdline: the arguments composefs={v2:.12}… and "
            "composefs.digest=?v1-sha512-12:{v1:.12}… disagree",
        ),
        (
            f"{V1} {V2}",
            (V1,),
            "No composefs image in UKI cmdline: profile 0 (other): the kernel command line has",
        ),
        (
            f"{V1} {V2}",
            (f"{V1} {V2}", f"{V1} composefs=?{OTHER}"),
            "No composefs image in UKI cmdline: profile 1 (other): the kernel command line has",
        ),
    ],
)
def test_a_digest_that_is_no_image_of_the_container(
    one_bench: Bench, sealed: Sealed, arguments: str, profiles: tuple[str, ...], message: str
) -> None:
    machine = one_bench.machine
    before = machine.contents(repository=False)
    reference, _ = sealed.offer(arguments, *profiles)
    with pytest.raises(WrongUki) as caught:
        machine.command(switch(reference))
    prefix = "Reading boot/EFI/Linux/os.efi of the image: "
    expected = prefix + message.format_map(vars_of(sealed.ids))
    assert one_line(caught.value).startswith(expected)
    assert machine.contents(repository=False) == before
    assert machine.announced() is None


def test_an_update_from_two_digests_to_one_and_back(one_bench: Bench, sealed: Sealed) -> None:
    machine, ids = one_bench.machine, sealed.ids
    deploy(one_bench, sealed, f"{V1} {V2}")
    update(one_bench, osimages.NEW)
    assert [shown.image_id for shown in machine.menu()] == [machine.booted_id, ids.v1]
    deploy(one_bench, sealed, f"{V1} {V2}")
    assert machine.booted_id == ids.v1
    machine.command(collect_garbage)
    assert link(one_bench, ids.v2).exists()
    # When the deployment is gone, so are both images.
    for image in (osimages.OLD, osimages.NEW):
        update(one_bench, image)
    machine.command(collect_garbage)
    assert not link(one_bench, ids.v1).exists()
    assert not link(one_bench, ids.v2).exists()
