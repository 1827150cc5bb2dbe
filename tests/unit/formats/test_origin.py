from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import (
    BootRecord,
    BootType,
    Origin,
    OriginError,
    Signature,
    TakesApart,
    UkiRecord,
    Waiver,
    parse_origin,
    serialise_origin,
)

BOOT_DIGEST = "ab" * 32
MANIFEST_DIGEST = OciDigest("sha256", "cd" * 32)
TEXT = f"""\
[origin]
container-image-reference = ostree-unverified-image:docker://quay.io/example/os:43

[boot]
boot_type = bls
digest = {BOOT_DIGEST}

[image]
manifest_digest = {MANIFEST_DIGEST}
""".encode()
ORIGIN = Origin(
    image=ImageReference("registry", "quay.io/example/os:43"),
    boot_type=BootType.BLS,
    boot_digest=BOOT_DIGEST,
    manifest_digest=MANIFEST_DIGEST,
)


def test_the_file_to_the_byte() -> None:
    assert parse_origin(TEXT) == ORIGIN
    assert serialise_origin(ORIGIN) == TEXT


@pytest.mark.parametrize(
    ("text", "uki"),
    [
        ("takes_apart = unsealed\n", UkiRecord(TakesApart.UNSEALED)),
        (
            "takes_apart = all\nuki_addons = a b.addon.efi/c.addon.efi\n"
            'uki_arguments = rw a="b c"\n',
            UkiRecord(TakesApart.ALL, ("a b.addon.efi", "c.addon.efi"), 'rw a="b c"'),
        ),
    ],
)
def test_how_a_unified_kernel_image_was_taken_apart(text: str, uki: UkiRecord) -> None:
    data = TEXT + b"\n[bootc]\n" + text.encode()
    assert parse_origin(data) == replace(ORIGIN, uki=uki)
    assert serialise_origin(replace(ORIGIN, uki=uki)) == data
    with pytest.raises(OriginError, match="unknown value 'some' for takes_apart"):
        parse_origin(TEXT + b"\n[bootc]\ntakes_apart = some\n")


def test_the_esps_of_the_installation() -> None:
    record = BootRecord("systemd", "uefi", "a", ("b", "c"))
    data = TEXT + b"\n[bootc]\nbootloader = systemd\nfirmware = uefi\nesp = a\nesp_mirrors = b c\n"
    assert parse_origin(data) == replace(ORIGIN, record=record)
    assert serialise_origin(replace(ORIGIN, record=record)) == data


def test_an_image_without_arguments_was_taken_apart_too() -> None:
    origin = replace(ORIGIN, uki=UkiRecord(TakesApart.ALL, arguments=""))
    assert parse_origin(serialise_origin(origin)) == origin


def test_what_the_user_gave_up_is_recorded() -> None:
    text = TEXT + b"\n[bootc]\nwaived = allow-missing-verity of-the-future\n"
    origin = replace(ORIGIN, waived=("allow-missing-verity", "of-the-future"))
    assert parse_origin(text) == origin
    assert serialise_origin(origin) == text
    more = origin.with_waiver(Waiver.WEAKER).with_waiver(Waiver.MISSING_VERITY)
    assert more.waived == (*origin.waived, "allow-weaker")
    assert parse_origin(serialise_origin(more)) == more
    apart = replace(more, uki=UkiRecord(TakesApart.ALL))
    assert apart.waivers == (*more.waived, "disable-sealing")
    assert replace(more, uki=UkiRecord(TakesApart.UNSEALED)).waivers == more.waived


def test_the_record_of_the_installation() -> None:
    text = TEXT + b"\n[bootc]\nbootloader = systemd\nfirmware = uefi\nesp = 01-ab\n"
    origin = replace(ORIGIN, record=BootRecord("systemd", "uefi", "01-ab"))
    assert parse_origin(text) == origin
    assert serialise_origin(origin) == text
    # Another program may know more, or other names.
    odd = parse_origin(TEXT + b"[bootc]\nbootloader=new\nother=1\n")
    assert odd.record == BootRecord("new")
    assert odd.extra == (("bootc", "other", "1"),)
    assert parse_origin(serialise_origin(odd)) == odd


def test_a_deployment_of_two_partitions() -> None:
    text = TEXT.replace(b"boot_type = bls", b"boot_type = aboot")
    assert parse_origin(text).boot_type is BootType.ABOOT
    assert serialise_origin(parse_origin(text)) == text


def test_spacing_order_and_comments_mean_nothing() -> None:
    text = (
        f"# comment\r\n[image]\r\nmanifest_digest={MANIFEST_DIGEST}\n; other\n"
        f"[ boot ]\n\n  digest=  {BOOT_DIGEST} \nboot_type=uki\nboot_type =bls\n[origin]\n"
        "container-image-reference=ostree-unverified-image:docker://quay.io/example/os:43"
    )
    assert parse_origin(text.encode()) == ORIGIN


@pytest.mark.parametrize(
    ("reference", "image", "signature"),
    [
        (
            "ostree-image-signed:docker://q.io/os",
            ImageReference("registry", "q.io/os"),
            Signature(),
        ),
        (
            "ostree-remote-image:fedora:registry:q.io/os:1",
            ImageReference("registry", "q.io/os:1"),
            Signature("fedora"),
        ),
        (
            "ostree-remote-registry:fedora:q.io/os:1",
            ImageReference("registry", "q.io/os:1"),
            Signature("fedora"),
        ),
        ("ostree-unverified-image:oci:/a:b", ImageReference("oci", "/a:b"), None),
        ("ostree-unverified-registry:q.io/os", ImageReference("registry", "q.io/os"), None),
    ],
)
def test_references_and_who_vouches_for_them(
    reference: str, image: ImageReference, signature: Signature | None
) -> None:
    text = f"[origin]\ncontainer-image-reference={reference}\n[boot]\nboot_type=bls\n"
    origin = parse_origin(text.encode())
    assert (origin.image, origin.signature) == (image, signature)
    assert parse_origin(serialise_origin(origin)) == origin


def test_what_others_wrote_is_kept() -> None:
    text = b"[boot]\nboot_type = bls\nnew = 1\n\n[other]\nkey = a = b\n"
    origin = parse_origin(text)
    assert origin.image is None
    assert origin.extra == (("boot", "new", "1"), ("other", "key", "a = b"))
    assert serialise_origin(origin) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "origin has no boot_type in [boot]"),
        (b"[boot]\nboot_type=zipl", "origin has the unknown boot_type 'zipl'"),
        (
            b"[boot]\nboot_type=bls\ndigest=AB",
            "origin has the malformed boot digest 'AB'",
        ),
        (
            b"[boot]\nboot_type=bls\n[image]\nmanifest_digest=md5:00",
            "origin has a malformed manifest_digest: not an OCI digest: 'md5:00'",
        ),
        (
            b"[origin]\ncontainer-image-reference=x\n[boot]\nboot_type=bls",
            "origin: image reference 'x' names no transport",
        ),
        (b"[boot]\nboot_type", "origin line 2 is no key of a section: 'boot_type'"),
        (b"boot_type=bls", "origin line 1 is no key of a section: 'boot_type=bls'"),
        (b"[boot]\n=bls", "origin line 2 is no key of a section: '=bls'"),
        (b"[boot]\n\xff", "origin is not UTF-8 at offset 7"),
    ],
)
def test_malformed_files_are_named(text: bytes, message: str) -> None:
    with pytest.raises(OriginError) as caught:
        parse_origin(text)
    assert caught.value.message == message


def test_of_equal_keys_the_last_counts_and_unknown_ones_stay() -> None:
    origin = parse_origin(
        b"[boot]\nboot_type=uki\nnew=1\nboot_type=bls\n[x]\nkey=1\nkey=2\n[boot]\nnew=2\n"
    )
    assert origin.boot_type is BootType.BLS
    assert origin.extra == (
        ("boot", "new", "1"),
        ("x", "key", "1"),
        ("x", "key", "2"),
        ("boot", "new", "2"),
    )
    assert serialise_origin(origin) == (
        b"[boot]\nboot_type = bls\nnew = 1\nnew = 2\n\n[x]\nkey = 1\nkey = 2\n"
    )


def test_a_value_cannot_break_out_of_its_line() -> None:
    with pytest.raises(OriginError, match=r"origin cannot hold 'x\\ny' as key"):
        serialise_origin(replace(ORIGIN, extra=(("s", "key", "x\ny"),)))


@given(st.binary(max_size=200))
def test_hostile_bytes_parse_or_fail_as_origin(data: bytes) -> None:
    try:
        origin = parse_origin(b"[boot]\nboot_type=bls\n" + data)
    except OriginError:
        return
    assert parse_origin(serialise_origin(origin)) == origin
