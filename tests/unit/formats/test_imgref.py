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
        ("dir:/d:e", "dir", "/d:e", "dir:/d:e"),
        ("oci:/l:localhost/os:v1", "oci", "/l:localhost/os:v1", "oci:/l:localhost/os:v1"),
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
        ("dir:localhost/os:v1", ("dir", "localhost/os:v1")),
        ("dir:localhost:5000/a/os", ("dir", "localhost:5000/a/os")),
        ("dir:@0", ("dir", "@0")),
        ("/odd:dir/layout", ("/odd", "dir/layout")),
        (":tag", (".", "tag")),
        (":", (".", None)),
    ],
)
def test_layout(name: str, layout: tuple[str, str | None]) -> None:
    assert ImageReference.of("oci", name).layout == layout


STORE = "[overlay@/var/lib/x+/run/x:a=b]"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("docker://quay.io/os", "docker://quay.io/os:T"),
        ("docker://quay.io/os:42", "docker://quay.io/os:T"),
        ("docker://localhost:5000/os", "docker://localhost:5000/os:T"),
        (f"docker://h/os:42@sha256:{'a' * 64}", "docker://h/os:T"),
        ("oci:/l", "oci:/l:T"),
        ("oci:/l:42", "oci:/l:T"),
        ("oci:/l:@1", "oci:/l:T"),
        ("oci:/l:os:42", "oci:/l:os:T"),
        ("oci:/l:localhost/os", "oci:/l:localhost/os:T"),
        ("oci:/l:localhost:5000/os:42", "oci:/l:localhost:5000/os:T"),
        ("oci-archive:a.tar:localhost/os:42", "oci-archive:a.tar:localhost/os:T"),
        ("docker-archive:a.tar:os", "docker-archive:a.tar:os:T"),
        ("docker-archive:a.tar:localhost/os:42", "docker-archive:a.tar:localhost/os:T"),
        ("docker-daemon:os:42", "docker-daemon:os:T"),
        ("containers-storage:localhost/os:42", "containers-storage:localhost/os:T"),
        (
            f"containers-storage:{STORE}localhost/os:42@sha256:{'a' * 64}",
            f"containers-storage:{STORE}localhost/os:T",
        ),
    ],
)
def test_another_tag(before: str, after: str) -> None:
    assert str(ImageReference.parse(before).with_tag("T")) == after


@pytest.mark.parametrize(
    "text",
    [
        "dir:/a:b",
        f"docker-daemon:sha256:{'a' * 64}",
        f"containers-storage:{'a' * 64}",
        f"containers-storage:{STORE}sha256:{'a' * 64}",
    ],
)
def test_what_has_no_tag(text: str) -> None:
    with pytest.raises(ImageReferenceError, match="has no tag that could be another one"):
        ImageReference.parse(text).with_tag("43")


@pytest.mark.parametrize("tag", ["", "a/b", "a:b", "a@b", "-a", ".a", "a b", "é", "x" * 129, "a\n"])
def test_bad_tags(tag: str) -> None:
    with pytest.raises(ImageReferenceError, match=r"^bad tag "):
        ImageReference.parse("docker://h/os:1").with_tag(tag)
