"""The check of the container images of a repository (composefs, "OCI fsck kinds").

Promises: documents and layers match their digests, including those that no tagged image has,
and everything that is needed to put an image together again is there. A fault of one image
becomes a finding, and the check goes on with the others. :mod:`bootc.repository.fsck` checks
the objects and always runs first. :mod:`bootc.cli.render.fsck` prints the report.

The check puts each layer together and hashes it, which takes about a second for each 700 MB. The
two output formats are those of ``cfsctl oci fsck``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from bootc.errors import Error
from bootc.events import Sink, null_sink, stage
from bootc.formats.digest import Digest, DigestError, DigestMismatch, OciDigest
from bootc.formats.ocispec import ImageConfig, ImageSpecError, Manifest
from bootc.oci.contents import WRONG, Contents, named_streams
from bootc.oci.documents import Document
from bootc.oci.names import StreamKind, layer_id, manifest_id
from bootc.oci.stored import Artifact, artifact_of
from bootc.oci.tags import tag_names, tag_target
from bootc.repository import layout
from bootc.repository.fsck_report import Count, FsckFinding, FsckReport, why
from bootc.repository.repository import Repository

#: The label that named the sealed image of an image. No current tool writes it.
_SEAL = "containers.composefs.fsverity"


class OciFsckKind(StrEnum):
    """The kinds of findings about images."""

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
    #: Not a kind of cfsctl, which does not compare layers.
    LAYER_DIGEST_MISMATCH = "layer-digest-mismatch"
    LAYER_OBJECT_MISSING = "layer-object-missing"
    SEAL_IMAGE_MISSING = "seal-image-missing"
    ARTIFACT_LAYER_REF_MISSING = "artifact-layer-ref-missing"
    ARTIFACT_LAYER_OBJECT_MISSING = "artifact-layer-object-missing"
    REF_RESOLVE_FAILED = "ref-resolve-failed"
    INVALID_REF_NAME = "invalid-ref-name"


@dataclass(frozen=True, slots=True)
class OciFsckReport:
    """The result of a check of a repository and its images."""

    repository: FsckReport
    images: Count
    findings: tuple[FsckFinding, ...]

    @property
    def ok(self) -> bool:
        """Whether the check has no findings, about the repository or its images."""
        return self.repository.ok and not self.findings


def check_images(
    repository: Repository,
    report: FsckReport,
    sink: Sink = null_sink,
    *,
    tag: str | None = None,
    contents: Contents | None = None,
) -> OciFsckReport:
    """Check all tagged images, or one.

    Args:
        repository: The repository; may be open for reading only.
        report: The report of the check of the repository.
        sink: Receives the progress.
        tag: The only image to check, or None for all.
        contents: Comparisons that were made before.
    """
    findings: list[FsckFinding] = []
    checked = corrupted = 0
    contents = contents or Contents(repository)
    with stage(sink, "images", "Checking container images"):
        for name in tag_names(repository) if tag is None else [tag]:
            found = _check_tag(repository, contents, name, asked=tag is not None)
            if found is None:
                continue
            checked += 1
            corrupted += bool(found)
            findings += found
        if tag is None:
            findings += _check_untagged(repository, contents)
    return OciFsckReport(report, Count(checked, corrupted), tuple(findings))


class _Wrong(Exception):
    """Ends the check of one image."""

    def __init__(self, kind: OciFsckKind, detail: str, stream: Digest | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        #: The stream, if it does not hold what its name says.
        self.stream = stream


#: The findings about a stream that cannot be read, and about a stream with other content.
_KINDS = {
    StreamKind.MANIFEST: (OciFsckKind.MANIFEST_READ_FAILED, OciFsckKind.MANIFEST_DIGEST_MISMATCH),
    StreamKind.CONFIG: (OciFsckKind.CONFIG_READ_FAILED, OciFsckKind.CONFIG_DIGEST_MISMATCH),
    StreamKind.LAYER: (OciFsckKind.LAYER_CHECK_FAILED, OciFsckKind.LAYER_DIGEST_MISMATCH),
}


def _wrong(kind: StreamKind, stream: Digest, digest: OciDigest, exc: Error | OSError) -> _Wrong:
    """Return the finding about a stream that cannot be read, or that holds something else."""
    failed, mismatch = _KINDS[kind]
    where = f"{layout.stream_path(kind.value + str(digest))}: " if kind is StreamKind.LAYER else ""
    if isinstance(exc, DigestMismatch):
        detail = f"{where}expected {digest}, got {exc.actual}"
        return _Wrong(mismatch, detail, stream)
    return _Wrong(failed, f"{where}{why(exc, '')}", stream if isinstance(exc, WRONG) else None)


def _check_tag(
    repository: Repository, contents: Contents, name: str, *, asked: bool
) -> list[FsckFinding] | None:
    """Return the findings about an image, or None if the tag does not name an image."""
    if name.startswith("@"):
        detail = "leading '@' is reserved for digest references"
        return [FsckFinding(OciFsckKind.INVALID_REF_NAME, name, detail)]
    try:
        digest = _manifest_digest(repository, name)
    except (OSError, ValueError, DigestError) as exc:
        # ValueError: the name cannot be a component of a path.
        return [FsckFinding(OciFsckKind.REF_RESOLVE_FAILED, name, why(exc, name))]
    if digest is None:
        detail = "it refers to no manifest"
        return [FsckFinding(OciFsckKind.REF_RESOLVE_FAILED, name, detail)] if asked else None
    checker = _ImageChecker(repository, contents, name)
    try:
        checker.check(digest)
    except _Wrong as exc:
        checker.report(exc)
    return checker.findings


def _check_untagged(repository: Repository, contents: Contents) -> Iterator[FsckFinding]:
    """Yield findings about streams without a tagged image. A pull would find them by name."""
    # A layer of an artifact is stored under another digest than that of its content.
    artifact_layers: set[OciDigest] = set()
    for kind in (StreamKind.MANIFEST, StreamKind.CONFIG, StreamKind.LAYER):
        for name, stream, digest in named_streams(repository, kind):
            known = (stream, digest) in contents.seen
            try:
                if kind is StreamKind.MANIFEST:
                    artifact = artifact_of(contents.document(kind, stream, digest).raw)
                    artifact_layers.update(artifact.layers if artifact else ())
                elif not known and digest not in artifact_layers:
                    contents.compare(kind, stream, digest)
            except (Error, OSError) as exc:
                if not known:
                    wrong = _wrong(kind, stream, digest, exc)
                    yield FsckFinding(
                        wrong.kind, layout.stream_path(name), wrong.detail, wrong.stream
                    )


def _manifest_digest(repository: Repository, name: str) -> OciDigest | None:
    """Return the manifest that a tag refers to, or None if it refers to something else."""
    entry = tag_target(repository, name).rpartition("/")[2]
    if not entry.startswith(StreamKind.MANIFEST.value):
        return None
    # Not manifest_of: a malformed digest is a finding.
    return OciDigest.parse(entry.removeprefix(StreamKind.MANIFEST.value))


class _ImageChecker:
    """Follows one image from its manifest to its layers."""

    def __init__(self, repository: Repository, contents: Contents, name: str) -> None:
        self.findings: list[FsckFinding] = []
        self._repository = repository
        self._contents = contents
        self._name = name

    def report(self, wrong: _Wrong) -> None:
        """Add a finding."""
        self.findings.append(FsckFinding(wrong.kind, self._name, wrong.detail, wrong.stream))

    def check(self, digest: OciDigest) -> None:
        """Check an image by its manifest.

        Raises:
            _Wrong: the check of this image cannot go on.
        """
        try:
            stream = self._repository.streams.digest_of(manifest_id(digest))
        except (Error, OSError) as exc:
            raise _Wrong(OciFsckKind.MANIFEST_READ_FAILED, why(exc, "")) from exc
        manifest = self._document(StreamKind.MANIFEST, stream, digest)
        try:
            artifact = artifact_of(manifest.raw)
            parsed = artifact or Manifest.parse(manifest.raw)
        except ImageSpecError as exc:
            raise _Wrong(OciFsckKind.MANIFEST_PARSE_FAILED, why(exc, "")) from exc
        digest = parsed.config if isinstance(parsed, Artifact) else parsed.config.digest
        # Not by the link of the configuration: it leads to the stream of the image with this
        # configuration that was pulled last.
        named = manifest.references.get(f"config:{digest}")
        if named is None:
            raise _Wrong(OciFsckKind.CONFIG_REF_MISSING, str(digest))
        config = self._document(StreamKind.CONFIG, named, digest)
        if artifact is not None:
            self._artifact_layers(artifact, manifest.references)
            return
        try:
            configuration = ImageConfig.parse(config.raw)
        except ImageSpecError as exc:
            raise _Wrong(OciFsckKind.CONFIG_PARSE_FAILED, why(exc, "")) from exc
        for diff_id in dict.fromkeys(configuration.diff_ids):
            self._layer(diff_id, config.references)
        self._seal(configuration)

    def _document(self, kind: StreamKind, stream: Digest, digest: OciDigest) -> Document:
        """Return a document of the image.

        Raises:
            _Wrong: the document cannot be read, or is another one.
        """
        try:
            return self._contents.document(kind, stream, digest)
        except (Error, OSError) as exc:
            raise _wrong(kind, stream, digest, exc) from exc

    def _layer(self, diff_id: OciDigest, named: Mapping[str, Digest]) -> None:
        objects, streams = self._repository.objects, self._repository.streams
        wanted = named.get(str(diff_id))
        if wanted is None:
            self.report(_Wrong(OciFsckKind.LAYER_REF_MISSING, str(diff_id)))
            return
        try:
            if not streams.exists(layer_id(diff_id)):
                self.report(_Wrong(OciFsckKind.LAYER_STREAM_MISSING, str(diff_id)))
            if not objects.exists(wanted):
                self.report(_Wrong(OciFsckKind.LAYER_OBJECT_MISSING, f"{diff_id}: {wanted}"))
                return
        except (Error, OSError) as exc:
            self.report(_Wrong(OciFsckKind.LAYER_CHECK_FAILED, f"{diff_id}: {why(exc, '')}"))
            return
        try:
            self._contents.layer(wanted, diff_id)
        except (Error, OSError) as exc:
            self.report(_wrong(StreamKind.LAYER, wanted, diff_id, exc))

    def _artifact_layers(self, artifact: Artifact, named: Mapping[str, Digest]) -> None:
        for digest in artifact.layers:
            wanted = named.get(str(digest))
            if wanted is None:
                self.report(_Wrong(OciFsckKind.ARTIFACT_LAYER_REF_MISSING, str(digest)))
            elif not self._repository.objects.exists(wanted):
                self.report(
                    _Wrong(OciFsckKind.ARTIFACT_LAYER_OBJECT_MISSING, f"{digest}: {wanted}")
                )

    def _seal(self, configuration: ImageConfig) -> None:
        seal = configuration.labels.get(_SEAL)
        if seal is None:
            return
        try:
            image = Digest.from_hex(seal)
        except DigestError as exc:
            self.report(_Wrong(OciFsckKind.SEAL_IMAGE_MISSING, f"{seal}: {why(exc, '')}"))
            return
        if not self._repository.images.exists(image) or not self._repository.objects.exists(image):
            self.report(_Wrong(OciFsckKind.SEAL_IMAGE_MISSING, f"{seal}: no such image"))
