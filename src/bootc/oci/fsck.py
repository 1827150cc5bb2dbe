"""Container images of a repository checked, above what the repository itself knows.

Owns: the checks of tagged images (composefs, "OCI fsck kinds") and the two ways their
outcome is written down, both those of ``cfsctl oci fsck``. Promises: documents are what
their digests say, and everything an image needs to be put together again is there; what
is wrong with one image is a finding, and the others are still checked. Whether the
objects are sound is :mod:`bootc.repository.fsck`'s part, which always comes first.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bootc.errors import Error, one_line
from bootc.events import Sink, null_sink, stage
from bootc.formats import ocispec, splitstream
from bootc.formats.digest import Digest, DigestError, OciDigest
from bootc.formats.ocispec import ImageConfig, ImageSpecError, Manifest
from bootc.formats.splitstream import StreamReader
from bootc.oci.names import config_id, layer_id, manifest_id
from bootc.oci.stored import Artifact, artifact_of, tag_names
from bootc.repository import layout
from bootc.repository.findings import Count, Finding, Report
from bootc.repository.refs import encode_tag
from bootc.repository.repository import Repository

_TAGS = f"{layout.STREAMS}/{layout.REFS}/oci"
_MANIFEST_PREFIX = "oci-manifest-"
#: Names the sealed image of an image; nothing writes it any more.
_SEAL = "containers.composefs.fsverity"


class OciKind(StrEnum):
    """What can be wrong with an image."""

    MANIFEST_READ_FAILED = "manifest-read-failed"
    MANIFEST_DIGEST_MISMATCH = "manifest-digest-mismatch"
    MANIFEST_PARSE_FAILED = "manifest-parse-failed"
    CONFIG_REF_MISSING = "config-ref-missing"
    CONFIG_READ_FAILED = "config-read-failed"
    CONFIG_DIGEST_MISMATCH = "config-digest-mismatch"
    CONFIG_PARSE_FAILED = "config-parse-failed"
    LAYER_REF_MISSING = "layer-ref-missing"
    LAYER_STREAM_MISSING = "layer-stream-missing"
    LAYER_CHECK_FAILED = "layer-check-failed"
    LAYER_OBJECT_MISSING = "layer-object-missing"
    SEAL_IMAGE_MISSING = "seal-image-missing"
    ARTIFACT_LAYER_REF_MISSING = "artifact-layer-ref-missing"
    ARTIFACT_LAYER_OBJECT_MISSING = "artifact-layer-object-missing"
    REF_RESOLVE_FAILED = "ref-resolve-failed"
    INVALID_REF_NAME = "invalid-ref-name"


@dataclass(frozen=True, slots=True)
class OciReport:
    """The outcome of a check of a repository and its images."""

    repository: Report
    images: Count
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Nothing is wrong, neither with the repository."""
        return self.repository.ok and not self.findings

    def to_text(self) -> str:
        """Return what ``cfsctl oci fsck`` prints."""
        lines = [f"oci images: {self.images}"]
        if self.findings:
            lines.append(f"oci errors: {len(self.findings)}")
            lines += [f"  - {finding}" for finding in self.findings]
        return self.repository.to_text() + "".join(f"{line}\n" for line in lines)

    def to_json(self) -> dict[str, object]:
        """Return what ``cfsctl oci fsck --json`` prints: an OciFsckReply."""
        return {
            "ok": self.ok,
            "images_checked": self.images.checked,
            "images_corrupted": self.images.corrupted,
            "errors": [str(finding) for finding in self.findings],
            "repo": self.repository.to_json(),
        }


def check_images(
    repository: Repository, report: Report, sink: Sink = null_sink, *, tag: str | None = None
) -> OciReport:
    """Check all tagged images, or one.

    Args:
        repository: Open for reading will do.
        report: What the check of the repository has found.
        sink: Told of progress.
        tag: The only image to check.
    """
    findings: list[Finding] = []
    checked = corrupted = 0
    with stage(sink, "images", "Checking container images"):
        for name in tag_names(repository) if tag is None else [tag]:
            found = _check_tag(repository, name, asked=tag is not None)
            if found is None:
                continue
            checked += 1
            corrupted += bool(found)
            findings += found
    return OciReport(report, Count(checked, corrupted), tuple(findings))


class _Wrong(Exception):
    """Ends the check of one image."""

    def __init__(self, kind: OciKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


def _check_tag(repository: Repository, name: str, *, asked: bool) -> list[Finding] | None:
    """Return what is wrong with an image; None if the tag is that of something else."""
    if name.startswith("@"):
        detail = "leading '@' is reserved for digest references"
        return [Finding(OciKind.INVALID_REF_NAME, name, detail)]
    try:
        digest = _manifest_digest(repository, name)
    except (OSError, ValueError, DigestError) as exc:
        # ValueError: the name is no component of a path.
        return [Finding(OciKind.REF_RESOLVE_FAILED, name, _why(exc))]
    if digest is None:
        detail = "it refers to no manifest"
        return [Finding(OciKind.REF_RESOLVE_FAILED, name, detail)] if asked else None
    checker = _ImageChecker(repository, name)
    try:
        checker.check(digest)
    except _Wrong as exc:
        checker.report(exc.kind, exc.detail)
    return checker.findings


def _manifest_digest(repository: Repository, name: str) -> OciDigest | None:
    target = repository.dir.readlink(f"{_TAGS}/{encode_tag(name)}")
    entry = target.rpartition("/")[2]
    if not entry.startswith(_MANIFEST_PREFIX):
        return None
    return OciDigest.parse(entry.removeprefix(_MANIFEST_PREFIX))


class _ImageChecker:
    """Follows one image from its manifest to its layers."""

    def __init__(self, repository: Repository, name: str) -> None:
        self.findings: list[Finding] = []
        self._repository = repository
        self._name = name

    def report(self, kind: OciKind, detail: str) -> None:
        """Note what is wrong."""
        self.findings.append(Finding(kind, self._name, detail))

    def check(self, digest: OciDigest) -> None:
        """Check an image by its manifest.

        Raises:
            _Wrong: there is no going on.
        """
        raw, named = self._document(
            manifest_id(digest),
            digest,
            (OciKind.MANIFEST_READ_FAILED, OciKind.MANIFEST_DIGEST_MISMATCH),
            splitstream.OCI_MANIFEST,
        )
        try:
            artifact = artifact_of(raw)
            config = Manifest.parse(raw).config.digest if artifact is None else artifact.config
        except ImageSpecError as exc:
            raise _Wrong(OciKind.MANIFEST_PARSE_FAILED, _why(exc)) from exc
        config_stream = named.get(f"config:{config}")
        if config_stream is None:
            raise _Wrong(OciKind.CONFIG_REF_MISSING, str(config))
        raw, layers = self._document(
            config_id(config),
            config,
            (OciKind.CONFIG_READ_FAILED, OciKind.CONFIG_DIGEST_MISMATCH),
            splitstream.OCI_CONFIG,
            config_stream,
        )
        if artifact is not None:
            self._artifact_layers(artifact, named)
            return
        try:
            configuration = ImageConfig.parse(raw)
        except ImageSpecError as exc:
            raise _Wrong(OciKind.CONFIG_PARSE_FAILED, _why(exc)) from exc
        for diff_id in configuration.diff_ids:
            self._layer(diff_id, layers)
        self._seal(configuration)

    def _document(
        self,
        content_id: str,
        digest: OciDigest,
        kinds: tuple[OciKind, OciKind],
        content_type: bytes,
        expected: Digest | None = None,
    ) -> tuple[bytes, Mapping[str, Digest]]:
        """Return a document and the references of its stream.

        Raises:
            _Wrong: it cannot be read (the first kind), or is another one (the second).
        """
        repository = self._repository
        try:
            if expected not in (None, repository.streams.digest_of(content_id)):
                raise _Wrong(kinds[0], f"{content_id} is another stream than {expected}")
            stream = StreamReader(repository.streams.read(content_id))
            stream.expect(content_type, repository.algorithm)
            raw = self._content(stream)
        except (Error, OSError) as exc:
            raise _Wrong(kinds[0], _why(exc)) from exc
        found = digest.new()
        found.update(raw)
        if found.hexdigest() != digest.hex:
            actual = f"{digest.algorithm}:{found.hexdigest()}"
            raise _Wrong(kinds[1], f"expected {digest}, got {actual}")
        return raw, stream.named_refs

    def _content(self, stream: StreamReader) -> bytes:
        parts = []
        left = ocispec.MAX_CONFIG_BYTES
        for piece in stream.chunks():
            data = piece
            if isinstance(data, Digest):
                data = self._repository.objects.read(data, limit=left)
            left -= len(data)
            if left < 0:
                raise OSError(errno.EFBIG, f"larger than {ocispec.MAX_CONFIG_BYTES} bytes")
            parts.append(data)
        return b"".join(parts)

    def _layer(self, diff_id: OciDigest, named: Mapping[str, Digest]) -> None:
        objects, streams = self._repository.objects, self._repository.streams
        wanted = named.get(str(diff_id))
        if wanted is None:
            self.report(OciKind.LAYER_REF_MISSING, str(diff_id))
            return
        try:
            if not streams.exists(layer_id(diff_id)):
                self.report(OciKind.LAYER_STREAM_MISSING, str(diff_id))
            if not objects.exists(wanted):
                self.report(OciKind.LAYER_OBJECT_MISSING, f"{diff_id}: {wanted}")
        except (Error, OSError) as exc:
            self.report(OciKind.LAYER_CHECK_FAILED, f"{diff_id}: {_why(exc)}")

    def _artifact_layers(self, artifact: Artifact, named: Mapping[str, Digest]) -> None:
        for digest in artifact.layers:
            wanted = named.get(str(digest))
            if wanted is None:
                self.report(OciKind.ARTIFACT_LAYER_REF_MISSING, str(digest))
            elif not self._repository.objects.exists(wanted):
                self.report(OciKind.ARTIFACT_LAYER_OBJECT_MISSING, f"{digest}: {wanted}")

    def _seal(self, configuration: ImageConfig) -> None:
        seal = configuration.labels.get(_SEAL)
        if seal is None:
            return
        try:
            image = Digest.from_hex(seal)
        except DigestError as exc:
            self.report(OciKind.SEAL_IMAGE_MISSING, f"{seal}: {_why(exc)}")
            return
        if not self._repository.images.exists(image) or not self._repository.objects.exists(image):
            self.report(OciKind.SEAL_IMAGE_MISSING, f"{seal}: no such image")


def _why(exc: Exception) -> str:
    return exc.strerror or str(exc) if isinstance(exc, OSError) else one_line(exc)
