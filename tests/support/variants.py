"""Images to upgrade to and to switch to: the demo image with one small layer more.

======== ======= ============= ==========================================================
tag      version os-release ID what it has
======== ======= ============= ==========================================================
v1       1       debian-demo   the demo image itself
v2       9       debian-demo   files changed in ``/usr``, an argument in ``kargs.d``, a
                               changed default and two new ones in ``/etc``; v1's kernel
v2-meta  9.1     debian-demo   v2's tree; only what the image says of itself is new
v3       10      renamed-demo  another kernel set, another argument; of the defaults v2
                               brought one is gone and one has become a directory
v3-plain 10      renamed-demo  v3, but nothing has become a directory
v4       11      renamed-demo  v3-plain with a third kernel set
======== ======= ============= ==========================================================

``u2-two`` is u2 as version 9.2. Its unified kernel image names the image in both format versions.

The families ``g``, ``gs`` and ``gu`` have g1 and g2, and so on: v1 and v2 with GRUB, whose files
come from ``tools/grub-tree``. Those of ``gs`` have the GRUB of Debian sid. Those of ``gu`` boot a
unified kernel image.
The family ``a`` has a1 and a2: u1 and u2 with ukiboot, from ``tools/ukiboot-tree``.
The family ``s`` has s2: u2, signed, with a signed boot loader and the security version 2. s3 has 3
and goes back to 2. A machine that runs a sealed image is to refuse the others: s2-wrong names
another image, s2-optional does not demand fs-verity, and s2-bare has no unified kernel image.

These are of the family ``v``. The family ``u`` has the same, ``u1`` to ``u4``, with a unified
kernel image in place of the kernel. A kernel set differs from another in its initramfs, which
begins with one more archive: it boots alike and has another boot digest. What is said of a
variant (:class:`Variant`) comes from pulling it into a repository, not from how it was made.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bootc.boot.kargs import read_kargs_d
from bootc.formats import cmdline
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.pe import Uki
from bootc.formats.tree import Directory, External, Inline, Leaf
from bootc.fs.dir import Dir
from bootc.oci.pull import Pulled, pull
from bootc.oci.source import open_source
from bootc.oci.trees import boot_tree, image_id_of
from bootc.repository.content import read_content
from bootc.repository.repository import Repository
from support import grubtree, initramfs, ukiboottree, ukify
from support.images import LAYER_TYPE, Layout, Member, directory, file, layer, sha256
from support.sealtools import Keys
from testbed.demo_os import DemoOs

#: Families, by the letter that their tags begin with: a kernel and an initramfs, or one image.
TYPE1, UKI = "v", "u"
#: The kernel and initramfs of the family v, or a unified kernel image, and GRUB.
GRUB, GRUB_SID, GRUB_UKI = "g", "gs", "gu"
#: The unified kernel images of the family u, and ukiboot.
UKIBOOT = "a"
#: Unified kernel images and a boot loader that are signed for Secure Boot.
SEALED = "s"
VERSION = "org.opencontainers.image.version"
_SECURITY, _MINIMUM = "bootc.security-version=", "bootc.minimum-security-version="
KARGS_D = "usr/lib/bootc/kargs.d/20-variant.toml"
#: Changed in v2; text that names the version.
CHANGED = "usr/share/demo/changed.txt"
#: A default that every version brings; v2 changes it.
CHANGED_DEFAULT = "etc/demo.conf"
#: Defaults that v2 brings; the one is gone in v3, the other a directory.
REMOVED_DEFAULT = "etc/removed.conf"
CONFLICT = "etc/conflict.d"
UKI_DIRECTORY = "boot/EFI/Linux"
#: The boot loader, and the program that bootctl prefers to it.
_LOADER = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
_SIGNED_LOADER = f"{_LOADER}.signed"

_PADDING_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Variant:
    """An image in an OCI layout, and what a system that runs it is to show."""

    tag: str
    #: For skopeo and bootc: ``oci:DIRECTORY:TAG``.
    reference: str
    version: str
    os_id: str
    manifest_digest: OciDigest
    image_id: Digest
    boot_digest: str
    #: The name of its files for the boot loader in the image, and their sizes.
    boot_files: Mapping[str, int]
    #: The arguments of its kargs.d.
    kargs: list[str]
    #: The id in the second version of the image format, if its kernel image names that, too.
    second_id: Digest | None = None

    @property
    def is_uki(self) -> bool:
        """Whether it boots a unified kernel image."""
        return any(name.endswith(".efi") for name in self.boot_files)


@dataclass(frozen=True, slots=True)
class _Recipe:
    version: str
    os_id: str
    members: tuple[Member, ...] = ()
    #: What the initramfs is padded with; none leaves it as it is.
    padding: bytes = b""
    uki: bool = False
    two_digests: bool = False
    #: The unified kernel image names another image, or does not demand fs-verity.
    wrong: bool = False
    optional: bool = False
    #: More arguments in the unified kernel image.
    kargs: tuple[str, ...] = ()


def build(demo_os: DemoOs, path: Path, family: str, keys: Keys | None = None) -> dict[str, Variant]:
    """Make the variants of a family in one OCI layout below ``path``; return them by tag.

    With ``keys``, boot loader and unified kernel images are signed.
    """
    return _Builder(demo_os, path, keys).build(_recipes(family))


def _recipes(family: str) -> dict[str, _Recipe]:
    second = _changes("9", "debian-demo", "second")
    if family in (GRUB, GRUB_SID, GRUB_UKI):
        tree = grubtree.SID if family == GRUB_SID else grubtree.TRIXIE
        members, uki = tree.members(), family == GRUB_UKI
        return {
            f"{family}1": _Recipe("1", "debian-demo", members, uki=uki),
            f"{family}2": _Recipe("9", "debian-demo", (*second, *members), uki=uki),
        }
    if family == UKIBOOT:
        members = ukiboottree.members()
        return {
            "a1": _Recipe("1", "debian-demo", members, uki=True),
            "a2": _Recipe("9", "debian-demo", (*second, *members), uki=True),
        }
    if family == SEALED:
        return {
            "s2": _Recipe("9", "debian-demo", second, uki=True, kargs=(_SECURITY + "2",)),
            "s3": _Recipe(
                "10",
                "debian-demo",
                _changes("10", "debian-demo", "third"),
                uki=True,
                kargs=(_SECURITY + "3", _MINIMUM + "2"),
            ),
            "s2-wrong": _Recipe("9", "debian-demo", second, uki=True, wrong=True),
            "s2-optional": _Recipe("9", "debian-demo", second, uki=True, optional=True),
            "s2-bare": _Recipe("9", "debian-demo", second),
        }
    third = _changes("10", "renamed-demo", "third")
    fourth = _changes("11", "renamed-demo", "fourth")
    brought = file(REMOVED_DEFAULT, b"brought by version 9\n")
    still_a_file = file(CONFLICT, b"a file\n")
    now_a_directory = (directory(CONFLICT), file(f"{CONFLICT}/default.conf", b"in a directory\n"))
    recipes = {
        "1": _Recipe("1", "debian-demo"),
        "2": _Recipe("9", "debian-demo", (*second, brought, still_a_file)),
        "2-meta": _Recipe("9.1", "debian-demo", (*second, brought, still_a_file)),
        "3": _Recipe("10", "renamed-demo", (*third, *now_a_directory), b"third"),
        "3-plain": _Recipe("10", "renamed-demo", (*third, still_a_file), b"third"),
        "4": _Recipe("11", "renamed-demo", (*fourth, still_a_file), b"fourth"),
    }
    if family == UKI:
        members = (*second, brought, still_a_file)
        recipes["2-two"] = _Recipe("9.2", "debian-demo", members, two_digests=True)
    return {
        f"{family}{name}": replace(recipe, uki=family == UKI) for name, recipe in recipes.items()
    }


def _changes(version: str, os_id: str, word: str) -> tuple[Member, ...]:
    os_release = (
        f'PRETTY_NAME="Demo image {version}"\nNAME="Demo image"\nID={os_id}\nID_LIKE=debian\n'
        f'VERSION_ID={version}\nVERSION="{version} ({word})"\n'
    )
    return (
        file("usr/lib/os-release", os_release.encode()),
        file(CHANGED, f"This line is version {version}'s.\n".encode()),
        file(KARGS_D, f'kargs = ["variant={word}"]\n'.encode()),
        file(CHANGED_DEFAULT, f'greeting = "hello from version {version}"\n'.encode()),
    )


class _Builder:
    """The layout under construction, and a repository to look at the images with."""

    def __init__(self, demo_os: DemoOs, path: Path, keys: Keys | None) -> None:
        self._path = path
        self._keys = keys
        self._layout = Layout(path / "oci")
        self._demo = demo_os
        self._vmlinuz = (demo_os.directory / "vmlinuz").read_bytes()
        self._initramfs = (demo_os.directory / "initramfs.img").read_bytes()
        index = json.loads((demo_os.layout / "index.json").read_text())
        (self._v1,) = (
            entry
            for entry in index["manifests"]
            if entry["annotations"]["org.opencontainers.image.ref.name"] == "v1"
        )
        self._manifest = self._take_json(self._v1)
        self._config = self._take_json(self._manifest["config"])
        for descriptor in self._manifest["layers"]:
            self._take(descriptor)

    def build(self, recipes: Mapping[str, _Recipe]) -> dict[str, Variant]:
        with self._repository() as repository:
            self._layout.add(self._v1, tag="v1")
            root = self._pull(repository, "v1").root
            self._modules = _only_directory(root, "usr/lib/modules")
            self._signed: tuple[Member, ...] = ()
            if self._keys is not None:
                loader = self._sign(self._keys, _content(repository, root, _LOADER))
                self._signed = (file(_SIGNED_LOADER, loader),)
            variants = {}
            for tag, recipe in recipes.items():
                if tag != "v1":
                    self._add(repository, tag, recipe)
                variants[tag] = self._variant(repository, tag, recipe)
        shutil.rmtree(self._path / "repository")
        return variants

    @contextmanager
    def _repository(self) -> Iterator[Repository]:
        path = self._path / "repository"
        path.mkdir()
        with Dir.open(path) as parent, Repository.create(parent, secure=False) as repository:
            yield repository

    def _pull(self, repository: Repository, tag: str) -> Pulled:
        reference = ImageReference.parse(self._layout.reference(tag))
        with open_source(reference) as source:
            return pull(repository, source)

    def _add(self, repository: Repository, tag: str, recipe: _Recipe) -> None:
        members = (*recipe.members, *self._signed)
        layers = [layer(*members)] if members else []
        initramfs = _padding(recipe.padding) + self._initramfs
        if recipe.uki:
            gone = (f"{self._modules}/.wh.vmlinuz", f"{self._modules}/.wh.initramfs.img")
            layers.append(layer(*(file(name) for name in gone)))
            # Nothing below /boot counts for the image's id.
            self._add_image(tag, recipe, layers)
            pulled = self._pull(repository, tag)
            self._layout.manifests.pop()
            layers.append(layer(*self._unified(repository, pulled, initramfs, recipe)))
        elif recipe.padding:
            layers.append(layer(file(f"{self._modules}/initramfs.img", initramfs)))
        self._add_image(tag, recipe, layers)

    def _add_image(self, tag: str, recipe: _Recipe, layers: Sequence[bytes]) -> None:
        more = [self._layout.blob(data, LAYER_TYPE) for data in layers]
        rootfs = self._config["rootfs"]
        config = self._config["config"]
        labels = {**config["Labels"], VERSION: recipe.version}
        self._layout.image(
            [],
            tag=tag,
            config={
                **self._config,
                "config": {**config, "Labels": labels},
                "rootfs": {
                    **rootfs,
                    "diff_ids": rootfs["diff_ids"] + [sha256(data) for data in layers],
                },
            },
            manifest={
                "layers": self._manifest["layers"] + more,
                "annotations": {VERSION: recipe.version},
            },
        )

    def _unified(
        self, repository: Repository, pulled: Pulled, initramfs: bytes, recipe: _Recipe
    ) -> tuple[Member, ...]:
        (self._path / "vmlinuz").write_bytes(self._vmlinuz)
        (self._path / "initramfs").write_bytes(initramfs)
        os_release = _content(repository, pulled.root, "usr/lib/os-release")
        (self._path / "os-release").write_bytes(os_release)
        image_id = pulled.image_id.hex
        if recipe.wrong:
            image_id = image_id[::-1]
        names = [cmdline.composefs_karg(image_id, optional=recipe.optional)]
        if recipe.two_digests:
            names = [
                cmdline.composefs_karg(pulled.image_id.hex, optional=False, version="v1"),
                cmdline.composefs_karg(_second_id(repository, pulled).hex, optional=False),
            ]
        kver = self._modules.rpartition("/")[2]
        uki = ukify.build(
            self._path / "uki.efi",
            {
                "linux": str(self._path / "vmlinuz"),
                "initrd": str(self._path / "initramfs"),
                "uname": kver,
                "os-release": f"@{self._path / 'os-release'}",
                "cmdline": cmdline.join(
                    [*_kargs(repository, pulled.root), *recipe.kargs, *names, "rw"]
                ),
            },
        )
        content = uki.read_bytes()
        if self._keys is not None:
            content = self._sign(self._keys, content)
        parents = ("boot/EFI", UKI_DIRECTORY)
        return (
            *(directory(name) for name in parents),
            file(f"{UKI_DIRECTORY}/{kver}.efi", content),
        )

    def _sign(self, keys: Keys, program: bytes) -> bytes:
        unsigned, signed = self._path / "unsigned.efi", self._path / "signed.efi"
        unsigned.write_bytes(program)
        keys.sbsign(str(unsigned), str(signed))
        return signed.read_bytes()

    def _variant(self, repository: Repository, tag: str, recipe: _Recipe) -> Variant:
        pulled = self._pull(repository, tag)
        if recipe.uki:
            (name,) = _directory(pulled.root, UKI_DIRECTORY).entries
            data = _content(repository, pulled.root, f"{UKI_DIRECTORY}/{name.decode()}")
            boot_files = {name.decode(): len(data)}
            boot_digest = Uki.read(io.BytesIO(data)).boot_digest()
        else:
            contents = {
                name: _content(repository, pulled.root, f"{self._modules}/{name}")
                for name in ("vmlinuz", "initramfs.img")
            }
            boot_files = {name: len(data) for name, data in contents.items()}
            boot_digest = hashlib.sha256(b"".join(contents.values())).hexdigest()
        return Variant(
            tag=tag,
            reference=self._layout.reference(tag),
            version=recipe.version,
            os_id=recipe.os_id,
            manifest_digest=pulled.manifest_digest,
            image_id=pulled.image_id,
            boot_digest=boot_digest,
            boot_files=boot_files,
            kargs=_kargs(repository, pulled.root),
            second_id=_second_id(repository, pulled) if recipe.two_digests else None,
        )

    def _take(self, descriptor: Mapping[str, Any]) -> Path:
        """Copy a blob of the demo's layout."""
        target = self._layout.blob_path(descriptor["digest"])
        source = self._demo.layout / target.relative_to(self._layout.path)
        shutil.copyfile(source, target)
        return target

    def _take_json(self, descriptor: Mapping[str, Any]) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self._take(descriptor).read_text())
        return document


def _padding(content: bytes) -> bytes:
    """A cpio archive to precede an initramfs: what is made of ``content``, a file nobody reads."""
    if not content:
        return b""
    data = hashlib.shake_256(content).digest(_PADDING_BYTES)
    made = initramfs.archive(("padding", data))
    return made + bytes(-len(made) % 512)


def _second_id(repository: Repository, pulled: Pulled) -> Digest:
    return image_id_of(boot_tree(repository, pulled.root), version=2)


def _kargs(repository: Repository, root: Directory) -> list[str]:
    return read_kargs_d(root, partial(read_content, repository.objects), os.uname().machine)


def _directory(root: Directory, path: str) -> Directory:
    node = root.lookup(path)
    assert isinstance(node, Directory), path
    return node


def _only_directory(root: Directory, path: str) -> str:
    (name,) = _directory(root, path).entries
    return f"{path}/{name.decode()}"


def _content(repository: Repository, root: Directory, path: str) -> bytes:
    node = root.lookup(path)
    assert isinstance(node, Leaf), path
    assert isinstance(node.content, Inline | External), path
    return read_content(repository.objects, node.content)
