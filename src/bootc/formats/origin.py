r"""The origin file of a deployment: its image, and the way it boots.

The file is ``state/deploy/<id>/<id>.origin``. Unknown keys and sections survive reading
and writing, as often as they occur, because another implementation may share the system.
Of several equal keys the last one counts. Spacing, blank lines and comments are not kept.

>>> print(serialise_origin(parse_origin(
...     b"[origin]\ncontainer-image-reference=ostree-unverified-image:docker://q.io/os:1\n"
...     b"[boot]\nboot_type=bls\n")).decode(), end="")
[origin]
container-image-reference = ostree-unverified-image:docker://q.io/os:1
<BLANKLINE>
[boot]
boot_type = bls
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bootc.errors import Error
from bootc.formats.digest import DigestError, OciDigest
from bootc.formats.imgref import ImageReference, ImageReferenceError
from bootc.formats.keyfile import KeyfileError, keyfile_items

_IMAGE = ("origin", "container-image-reference")
_BOOT_TYPE = ("boot", "boot_type")
_BOOT_DIGEST = ("boot", "digest")
_MANIFEST_DIGEST = ("image", "manifest_digest")
#: A section of this program. Upstream ignores it.
_BOOTLOADER = ("bootc", "bootloader")
_FIRMWARE = ("bootc", "firmware")
_ESP = ("bootc", "esp")
_MIRRORS = ("bootc", "esp_mirrors")
_TAKES_APART = ("bootc", "takes_apart")
_UKI_ARGUMENTS = ("bootc", "uki_arguments")
_UKI_ADDONS = ("bootc", "uki_addons")
_WAIVED = ("bootc", "waived")
_KNOWN = (
    *(_IMAGE, _BOOT_TYPE, _BOOT_DIGEST, _MANIFEST_DIGEST, _BOOTLOADER, _FIRMWARE, _ESP),
    *(_MIRRORS, _TAKES_APART, _UKI_ARGUMENTS, _UKI_ADDONS, _WAIVED),
)
#: Between the file names of add-ons, which cannot have it.
_ADDON_SEPARATOR = "/"

_UNVERIFIED = "ostree-unverified-image:"
_SIGNED = "ostree-image-signed:"
#: Followed by the name of the remote and a colon; the older one by a bare registry name.
_REMOTE = "ostree-remote-image:"
_REMOTES = (_REMOTE, "ostree-remote-registry:")

_SHA256_HEX = re.compile(r"[0-9a-f]{64}\Z")


class OriginError(Error):
    """An origin file is malformed, or a value cannot be written into one."""


class BootType(enum.StrEnum):
    """The way a deployment boots: by a Type #1 entry, or as a unified kernel image.

    Deployments of upstream's ``aboot`` boot from one of two partitions: unified kernel images with
    ukiboot, else Android boot images.
    """

    BLS = "bls"
    UKI = "uki"
    ABOOT = "aboot"

    @property
    def is_unified(self) -> bool:
        """Whether the kernel brings its arguments with it."""
        return self is not BootType.BLS


@dataclass(frozen=True, slots=True)
class Signature:
    """A record of the signature that the user demanded; it checks nothing by itself.

    The demand is the container policy of the host, or the keys of an ostree remote.
    :mod:`bootc.oci.sigpolicy` enforces the policy when it opens the image. bootc cannot
    check the keys of a remote, and refuses an image for which they are demanded.
    """

    ostree_remote: str | None = None


@dataclass(frozen=True, slots=True)
class BootRecord:
    """How the installer made the machine boot. The firmware does not always tell.

    Attributes:
        bootloader: The name of the boot loader.
        firmware: ``uefi`` or ``bios``.
        esp: The PARTUUID of the EFI system partition.
        mirrors: Those of the further EFI system partitions.
    """

    bootloader: str | None = None
    firmware: str | None = None
    esp: str | None = None
    mirrors: tuple[str, ...] = ()


class TakesApart(enum.StrEnum):
    """Which unified kernel images a machine boots by a Type #1 entry, taken apart.

    ``UNSEALED``: images whose own command line tolerates missing fs-verity. ``ALL``: also those
    that demand it, because the user gave up their seal.
    """

    UNSEALED = "unsealed"
    ALL = "all"


class Waiver(enum.StrEnum):
    """A demand of sealed images that the user gave up, by the name of the option.

    ``MISSING_VERITY``: the installation tolerates missing fs-verity. ``SEALING``: it takes sealed
    unified kernel images apart, which :class:`TakesApart` records. ``WEAKER``: an update protects
    less than the deployment that was booted.
    """

    MISSING_VERITY = "allow-missing-verity"
    SEALING = "disable-sealing"
    WEAKER = "allow-weaker"


@dataclass(frozen=True, slots=True)
class UkiRecord:
    """How a machine takes unified kernel images apart, chosen by its installer.

    Attributes:
        takes_apart: Which images.
        addons: The file names of the add-ons whose arguments are used.
        arguments: The arguments that the deployment has from its unified kernel image and the
            add-ons; None if its image has no unified kernel image.
    """

    takes_apart: TakesApart
    addons: tuple[str, ...] = ()
    arguments: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The content of an origin file.

    ``boot_digest`` is the SHA-256 in hex over kernel and initramfs. ``signature``
    is None if no signature is demanded. ``uki`` is None on machines that take nothing apart.
    ``waived`` names the options by which the user gave up a demand; newer versions may know more of
    them than :class:`Waiver`. ``extra`` holds unknown keys, as (section, key, value).
    """

    image: ImageReference | None
    boot_type: BootType
    boot_digest: str | None = None
    manifest_digest: OciDigest | None = None
    signature: Signature | None = None
    record: BootRecord = BootRecord()
    uki: UkiRecord | None = None
    waived: tuple[str, ...] = ()
    extra: tuple[tuple[str, str, str], ...] = ()

    @property
    def waivers(self) -> tuple[str, ...]:
        """The options by which the user gave up a demand, wherever they are recorded."""
        apart = self.uki is not None and self.uki.takes_apart is TakesApart.ALL
        return (*self.waived, *((Waiver.SEALING.value,) if apart else ()))

    def with_waiver(self, waiver: Waiver) -> Origin:
        """Return the origin with the record that the user gave up a demand."""
        waived = dict.fromkeys((*self.waived, waiver.value))
        return dataclasses.replace(self, waived=tuple(waived))


def parse_origin(data: bytes) -> Origin:
    """Parse an origin file.

    Raises:
        OriginError: the bytes are no origin file; the message says where.
    """
    try:
        lines = keyfile_items(data)
    except KeyfileError as exc:
        raise OriginError(f"origin {exc.message}") from None
    values = {name: value for name, value in lines if name in _KNOWN}
    image, signature = _parse_image(values.get(_IMAGE))
    boot_type = values.get(_BOOT_TYPE)
    if boot_type is None:
        raise OriginError("origin has no boot_type in [boot]")
    if boot_type not in list(BootType):
        raise OriginError(f"origin has the unknown boot_type {boot_type!r}")
    boot_digest = values.get(_BOOT_DIGEST)
    if boot_digest is not None and not _SHA256_HEX.match(boot_digest):
        raise OriginError(f"origin has the malformed boot digest {boot_digest[:140]!r}")
    manifest_digest = values.get(_MANIFEST_DIGEST)
    try:
        manifest = None if manifest_digest is None else OciDigest.parse(manifest_digest)
    except DigestError as exc:
        raise OriginError(f"origin has a malformed manifest_digest: {exc.message}") from None
    return Origin(
        image=image,
        boot_type=BootType(boot_type),
        boot_digest=boot_digest,
        manifest_digest=manifest,
        signature=signature,
        record=BootRecord(
            values.get(_BOOTLOADER),
            values.get(_FIRMWARE),
            values.get(_ESP),
            tuple(values.get(_MIRRORS, "").split()),
        ),
        uki=_parse_uki(values),
        waived=tuple(dict.fromkeys(values.get(_WAIVED, "").split())),
        extra=tuple((*name, value) for name, value in lines if name not in _KNOWN),
    )


def serialise_origin(origin: Origin) -> bytes:
    """Write an origin file.

    Raises:
        OriginError: a value would not stay on its line.
    """
    values: list[tuple[str, str, str]] = []
    if origin.image is not None:
        values.append((*_IMAGE, f"{_signature_prefix(origin.signature)}{origin.image}"))
    values.append((*_BOOT_TYPE, origin.boot_type.value))
    if origin.boot_digest is not None:
        values.append((*_BOOT_DIGEST, origin.boot_digest))
    if origin.manifest_digest is not None:
        values.append((*_MANIFEST_DIGEST, str(origin.manifest_digest)))
    record = origin.record
    recorded = (
        (_BOOTLOADER, record.bootloader),
        (_FIRMWARE, record.firmware),
        (_ESP, record.esp),
        (_MIRRORS, " ".join(record.mirrors) or None),
        *_uki_values(origin.uki),
        (_WAIVED, " ".join(origin.waived) or None),
    )
    values += [(*name, value) for name, value in recorded if value is not None]
    sections: dict[str, list[str]] = {}
    for section, key, value in (*values, *origin.extra):
        if "\n" in value:
            raise OriginError(f"origin cannot hold {value!r} as {key}")
        sections.setdefault(section, []).append(f"{key} = {value}\n")
    return "\n".join(f"[{name}]\n{''.join(lines)}" for name, lines in sections.items()).encode()


def _parse_uki(values: Mapping[tuple[str, str], str]) -> UkiRecord | None:
    takes_apart = values.get(_TAKES_APART)
    if takes_apart is None:
        return None
    if takes_apart not in list(TakesApart):
        raise OriginError(f"origin has the unknown value {takes_apart!r:.140} for takes_apart")
    addons = values.get(_UKI_ADDONS, "").split(_ADDON_SEPARATOR)
    return UkiRecord(
        TakesApart(takes_apart), tuple(filter(None, addons)), values.get(_UKI_ARGUMENTS)
    )


def _uki_values(uki: UkiRecord | None) -> Iterator[tuple[tuple[str, str], str | None]]:
    if uki is not None:
        yield _TAKES_APART, uki.takes_apart.value
        yield _UKI_ADDONS, _ADDON_SEPARATOR.join(uki.addons) or None
        yield _UKI_ARGUMENTS, uki.arguments


def _parse_image(text: str | None) -> tuple[ImageReference | None, Signature | None]:
    if text is None:
        return None, None
    try:
        image = ImageReference.parse(text)
    except ImageReferenceError as exc:
        raise OriginError(f"origin: {exc.message}") from None
    if text.startswith(_SIGNED):
        return image, Signature()
    for prefix in _REMOTES:
        if text.startswith(prefix):
            return image, Signature(text.removeprefix(prefix).partition(":")[0])
    return image, None


def _signature_prefix(signature: Signature | None) -> str:
    if signature is None:
        return _UNVERIFIED
    if signature.ostree_remote is None:
        return _SIGNED
    return f"{_REMOTE}{signature.ostree_remote}:"
