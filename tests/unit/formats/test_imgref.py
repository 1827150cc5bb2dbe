from __future__ import annotations

import pytest

from bootc.formats.imgref import TRANSPORTS, ImageReference, ImageReferenceError


@pytest.mark.parametrize(
    ("text", "transport", "name", "skopeo"),
    [
        ("docker://quay.io/os:42", "registry", "quay.io/os:42", "docker://quay.io/os:42"),
        ("registry:quay.io/os", "registry", "quay.io/os", "docker://quay.io/os"),
        ("registry:[::1]:5000/os", "registry", "[::1]:5000/os", "docker://[::1]:5000/os"),
        ("oci:/dir:tag", "oci", "/dir:tag", "oci:/dir:tag"),
        ("oci-archive:a.tar", "oci-archive", "a.tar", "oci-archive:a.tar"),
        ("docker-archive:a.tar:x:y", "docker-archive", "a.tar:x:y", "docker-archive:a.tar:x:y"),
        ("containers-storage:x", "containers-storage", "x", "containers-storage:x"),
        ("dir:/d", "dir", "/d", "dir:/d"),
        ("ostree-unverified-image:docker://a/b", "registry", "a/b", "docker://a/b"),
        ("ostree-unverified-image:oci:/d", "oci", "/d", "oci:/d"),
        ("ostree-unverified-registry:a/b", "registry", "a/b", "docker://a/b"),
        ("ostree-image-signed:registry:a/b", "registry", "a/b", "docker://a/b"),
        ("ostree-remote-image:fedora:docker://a/b", "registry", "a/b", "docker://a/b"),
        ("ostree-remote-registry:fedora:a/b:c", "registry", "a/b:c", "docker://a/b:c"),
    ],
)
def test_parse(text: str, transport: str, name: str, skopeo: str) -> None:
    reference = ImageReference.parse(text)
    assert (reference.transport, reference.name) == (transport, name)
    assert str(reference) == skopeo
    assert ImageReference.parse(skopeo) == reference


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("quay.io/os:42", "names no transport", "docker://quay.io/os:42"),
        ("localhost", "names no transport", "docker://localhost"),
        ("docker:quay.io/os", "bad image reference", "write docker://quay.io/os"),
        ("oci", "names no transport", ""),
        ("oci:", "bad image name ''", ""),
        ("docker://", "bad image name ''", ""),
        ("", "names no transport", ""),
        ("oci:/a\nb", r"bad image reference 'oci:/a\\nb'$", ""),
        ("docker:a\x1b[2J", r"bad image reference 'docker:a\\x1b\[2J'$", ""),
        ("oci:/\udcff", r"bad image reference 'oci:/\\udcff'$", ""),
        ("oci:" + "a" * 5000, r"bad image reference 'oci:a{296}'$", ""),
        ("oci: /a", "bad image name", ""),
        ("ostree-remote-image:fedora", "names no transport", ""),
    ],
)
def test_refused(text: str, message: str, hint: str) -> None:
    with pytest.raises(ImageReferenceError, match=message) as caught:
        ImageReference.parse(text)
    assert hint in (caught.value.hint or "")


def test_from_parts() -> None:
    assert str(ImageReference.of("registry", "a/b")) == "docker://a/b"
    for transport in TRANSPORTS:
        reference = ImageReference.of(transport, "name")
        assert ImageReference.parse(str(reference)) == reference
    with pytest.raises(ImageReferenceError, match="unknown transport 'docker'"):
        ImageReference.of("docker", "a/b")


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("/dir", ("/dir", None)),
        ("/dir:tag", ("/dir", "tag")),
        ("dir:", ("dir", None)),
        ("/odd:dir/layout", ("/odd:dir/layout", None)),
        ("/odd:dir/layout:v1", ("/odd:dir/layout", "v1")),
        (":tag", (":tag", None)),
    ],
)
def test_layout(name: str, layout: tuple[str, str | None]) -> None:
    assert ImageReference.of("oci", name).layout == layout
