"""Images into the repository, and image ids without one.

Owns: the order of a pull and the names it leaves in the repository. Promises: a
layer is registered only when its digests were right and its objects are on disk,
so an interrupted pull goes on where it stopped; a layer that is there is taken when
it is whole and was compared with its digest, whoever stored it, and else replaced; the
image's tag is set last, when all that it refers to is durable; pulling again changes
nothing.

Names are those of :mod:`bootc.oci.names`; the tag is ``localhost/bootc-<manifest digest>``
below ``streams/refs/oci/`` where the caller names none. The config stream names the EROFS
images made of the image.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from bootc.errors import Error, doing, one_line
from bootc.events import Done, Progress, Sink, Start, null_sink
from bootc.formats import splitstream
from bootc.formats.digest import Algorithm, Digest, DigestMismatch, OciDigest, check_digest
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.ocispec import Descriptor, ImageConfig, ImageSpecError, Manifest
from bootc.formats.splitstream import StreamReader, StreamWriter
from bootc.formats.tar import Entry
from bootc.formats.tree import Directory, External, Inline
from bootc.formats.verity import verity_digest
from bootc.oci import unpack
from bootc.oci.blob import Blob
from bootc.oci.documents import read_document
from bootc.oci.flatten import apply_layer
from bootc.oci.names import config_id, layer_id, manifest_id, tag_of, tag_ref
from bootc.oci.reuse import HEALED, can_reuse
from bootc.oci.seal import XattrMode, transform_for_boot, transform_for_oci
from bootc.oci.selabel import ReadContent, policy_contents
from bootc.oci.source import Source, host_architecture
from bootc.repository.content import read_content
from bootc.repository.objects import Tally
from bootc.repository.repository import Repository
from bootc.repository.sink import DigestOnly, ObjectSink

_log = logging.getLogger(__name__)

#: How names in the config stream begin that stand for EROFS images made of the image.
IMAGE_PREFIX = "composefs.image"
#: EROFS format versions such an image can have; 0 has no name.
FORMAT_VERSIONS = (1, 2)

_IMAGE_TASK = "image"


@dataclass(frozen=True, slots=True)
class Documents:
    """What tells which image it is, byte for byte."""

    manifest_digest: OciDigest
    manifest_raw: bytes
    config_digest: OciDigest
    config_raw: bytes
    #: The layers, lowest first.
    diff_ids: tuple[OciDigest, ...]


@dataclass(frozen=True, slots=True)
class Amount:
    """What the layers that were fetched added to the repository."""

    objects: Tally
    #: Headers, padding and small files, kept in the layers' streams.
    inlined_bytes: int


@dataclass(frozen=True, slots=True)
class Pulled:
    """An image in the repository."""

    manifest_digest: OciDigest
    config_digest: OciDigest
    manifest: Manifest
    config: ImageConfig
    #: The image to mount: the boot image of a bootable image, else the plain one.
    image_id: Digest
    #: The tree before ``/boot`` was emptied: where kernels are found.
    root: Directory
    amount: Amount


def image_name(
    version: int, *, bootable: bool, xattrs: XattrMode = XattrMode.ALLOWLIST_ONLY
) -> str:
    """Return the name in the config stream of an EROFS image made of the image.

    Args:
        version: One of :data:`FORMAT_VERSIONS`.
        bootable: The boot image, not the plain one.
        xattrs: The mode the boot image is made with; plain ones have the default mode.
    """
    kind = ".boot" if bootable else ""
    suffix = ".v1" if version == 1 else ""
    mode = "" if xattrs is XattrMode.ALLOWLIST_ONLY else f".xattrs={xattrs.value}"
    return f"{IMAGE_PREFIX}{kind}{suffix}{mode}"


def images_in(references: Mapping[str, Digest]) -> dict[str, Digest]:
    """Return the EROFS images among the references of a configuration's stream."""
    return {name: ref for name, ref in references.items() if name.startswith(IMAGE_PREFIX)}


def required_bytes(source: Source, repository: Repository | None = None) -> int:
    """Return how many bytes the layers have as they are served: the least a pull needs.

    Args:
        source: The image.
        repository: Where layers need nothing that are there already; none is an empty one.

    Raises:
        ImageSpecError: the image's documents are malformed.
    """
    if repository is None:
        return sum(descriptor.size_bytes for descriptor in source.layers)
    diff_ids = ImageConfig.parse(source.config_raw).diff_ids
    return sum(
        descriptor.size_bytes
        # Where the numbers differ the pull will say so.
        for descriptor, diff_id in zip(source.layers, diff_ids, strict=False)
        if repository.streams.find(layer_id(diff_id)) is None
    )


def pull(
    repository: Repository,
    source: Source,
    sink: Sink = null_sink,
    *,
    bootable: bool = True,
    architecture: str | None = None,
    tag: str | None = None,
    erofs_formats: Sequence[int] = (1,),
    accept: Callable[[OciDigest], None] | None = None,
) -> Pulled:
    """Bring an image into the repository.

    Args:
        repository: Where to; writable.
        source: The image.
        sink: Told of each layer and of the making of the image.
        bootable: Make the boot image too.
        architecture: The machine that will run it, in images' spelling; this one if left out.
        tag: What keeps the image; one made of its digest if left out.
        erofs_formats: The format versions to make images of, that of the returned id first.
        accept: Given the manifest's digest when the image is stored, before it gets its tag;
            raises where it shall get none.

    Raises:
        WrongArchitecture: the image is for other machines.
        Error: the image is damaged, malformed, or lacks what a bootable one needs.
        OSError: the repository cannot be written; ENOSPC among others.
    """
    manifest, config = _check(source, architecture)
    amount = _fetch(repository, source, config, sink)
    sink(Start(_IMAGE_TASK, "Making the image"))
    root = stored_tree(repository, config.diff_ids)
    booted = boot_tree(repository, root) if bootable else None
    made = _add_images(repository, root, booted, erofs_formats)
    documents = Documents(
        source.manifest_digest,
        source.manifest_raw,
        manifest.config.digest,
        source.config_raw,
        config.diff_ids,
    )
    write_documents(repository, documents, made)
    if accept is not None:
        accept(source.manifest_digest)
    ref = tag_of(source.manifest_digest) if tag is None else tag_ref(tag)
    repository.streams.set_ref(ref, manifest_id(source.manifest_digest))
    sink(Done(_IMAGE_TASK))
    return Pulled(
        source.manifest_digest,
        manifest.config.digest,
        manifest,
        config,
        made[image_name(erofs_formats[0], bootable=bootable)],
        root,
        amount,
    )


def _add_images(
    repository: Repository, root: Directory, booted: Directory | None, versions: Sequence[int]
) -> dict[str, Digest]:
    """Add the images of a tree, and of the one to boot; return them by their names."""
    made = {}
    for version in versions:
        for tree, boots in ((root, False), (booted, True)):
            if tree is not None:
                image = mkfs_erofs(tree, version=version)
                made[image_name(version, bootable=boots)] = repository.images.add(image)
    return made


def stored_tree(
    repository: Repository,
    diff_ids: Iterable[OciDigest],
    xattrs: XattrMode = XattrMode.ALLOWLIST_ONLY,
) -> Directory:
    """Return the tree of layers that are in the repository.

    Raises:
        FileNotFoundError: one of them is not.
        Error: their streams are damaged, or do not make a tree.
    """
    streams = repository.streams
    return _flatten(
        ((diff_id, streams.read(layer_id(diff_id))) for diff_id in diff_ids),
        repository.algorithm,
        xattrs,
    )


def boot_tree(repository: Repository, root: Directory) -> Directory:
    """Return the tree to boot of one whose files are in the repository.

    Raises:
        Error: it lacks what a bootable one needs.
    """
    return transform_for_boot(root, partial(read_content, repository.objects))


@dataclass(frozen=True, slots=True)
class ImageTree:
    """The tree an image id is computed of."""

    root: Directory
    #: The same with the content of ``/boot``: where kernels are found.
    whole: Directory
    #: Reads a file of the tree; works as long as the source is open.
    read_content: ReadContent


def image_tree(
    source: Source,
    sink: Sink = null_sink,
    *,
    bootable: bool = True,
    algorithm: Algorithm = Algorithm.SHA512,
    architecture: str | None = None,
    xattrs: XattrMode = XattrMode.ALLOWLIST_ONLY,
) -> ImageTree:
    """Return the tree a pull would make an image of, storing nothing.

    A pull keeps the extended attributes of the default mode.

    Raises:
        Error: as :func:`pull`.
    """
    _, config = _check(source, architecture)
    objects = DigestOnly(algorithm)
    layers = [
        (diff_id, _unpack_layer(source, descriptor, diff_id, objects, sink))
        for descriptor, diff_id in zip(source.layers, config.diff_ids, strict=True)
    ]

    sink(Start(_IMAGE_TASK, "Making the image"))
    root = _flatten(layers, algorithm, xattrs)
    kept: dict[External, bytes] = {}

    def read_content(content: Inline | External) -> bytes:
        if isinstance(content, Inline):
            return content.data
        if content not in kept:
            # With one file of a policy its other files, for layers are read from their start.
            wanted = {content, *policy_contents(root)}
            kept.update(_read_again(source, layers, wanted, algorithm))
        return kept[content]

    booted = transform_for_boot(root, read_content) if bootable else root
    sink(Done(_IMAGE_TASK))
    return ImageTree(booted, root, read_content)


def compute_image_id(
    source: Source,
    sink: Sink = null_sink,
    *,
    bootable: bool = True,
    algorithm: Algorithm = Algorithm.SHA512,
    architecture: str | None = None,
) -> Digest:
    """Return the image id a pull would end with, storing nothing.

    Raises:
        Error: as :func:`pull`.
    """
    tree = image_tree(
        source, sink, bootable=bootable, algorithm=algorithm, architecture=architecture
    )
    return verity_digest(mkfs_erofs(tree.root), algorithm)


def _check(source: Source, architecture: str | None) -> tuple[Manifest, ImageConfig]:
    manifest = Manifest.parse(source.manifest_raw)
    config = ImageConfig.parse(source.config_raw)
    config.check_platform(architecture or host_architecture())
    if len(config.diff_ids) != len(source.layers):
        raise ImageSpecError(
            f"image configuration: rootfs.diff_ids: {len(config.diff_ids)} entries "
            f"for {len(source.layers)} layers"
        )
    return manifest, config


def _fetch(repository: Repository, source: Source, config: ImageConfig, sink: Sink) -> Amount:
    """Bring in the layers that are not there yet, or not as they should be."""
    objects, streams = repository.objects, repository.streams
    total = Amount(Tally(), 0)
    for descriptor, diff_id in zip(source.layers, config.diff_ids, strict=True):
        if can_reuse(repository, diff_id, sink):
            _announce_layer(sink, descriptor, diff_id)
            sink(Done(_task(diff_id), cached=True))
            continue
        before = objects.tally
        stream = _unpack_layer(source, descriptor, diff_id, objects, sink)
        added = objects.tally - before
        inlined = StreamReader(stream).size_bytes - added.new_bytes - added.present_bytes
        total = Amount(total.objects + added, total.inlined_bytes + inlined)
        written = streams.write(layer_id(diff_id), stream)
        # What was split here was hashed on its way.
        streams.set_verified(layer_id(diff_id), written)
    return total


def _task(diff_id: OciDigest) -> str:
    return f"layer:{diff_id.hex[:12]}"


def _announce_layer(sink: Sink, descriptor: Descriptor, diff_id: OciDigest) -> None:
    sink(Start(_task(diff_id), f"Layer {diff_id.hex[:12]}", descriptor.size_bytes))


def _unpack_layer(
    source: Source, descriptor: Descriptor, diff_id: OciDigest, objects: ObjectSink, sink: Sink
) -> bytes:
    _announce_layer(sink, descriptor, diff_id)
    with doing(f"Unpacking {_layer_name(descriptor, diff_id)}"), source.blob(descriptor) as blob:
        stream = unpack.split_layer(_Counted(blob, _task(diff_id), sink), diff_id, objects)
    sink(Done(_task(diff_id)))
    return stream


def _layer_name(descriptor: Descriptor, diff_id: OciDigest) -> str:
    """Name a layer as progress does, and by its blob, which is what a registry knows."""
    return f"layer {diff_id.hex[:12]} (blob {descriptor.digest})"


class _Counted:
    """A blob that reports how much of it was read."""

    def __init__(self, blob: Blob, task: str, sink: Sink) -> None:
        self._blob = blob
        self._task = task
        self._sink = sink
        self._done = 0

    def read(self, size: int, /) -> bytes:
        data = self._blob.read(size)
        if data:
            self._done += len(data)
            self._sink(Progress(self._task, self._done))
        return data


def _flatten(
    layers: Iterable[tuple[OciDigest, bytes]],
    algorithm: Algorithm,
    xattrs: XattrMode = XattrMode.ALLOWLIST_ONLY,
) -> Directory:
    root = Directory()
    for diff_id, data in layers:
        with doing(f"Applying layer {diff_id}"):
            apply_layer(root, diff_id, unpack.entries(StreamReader(data), algorithm))
    transform_for_oci(root, xattrs)
    return root


def _read_again(
    source: Source,
    layers: list[tuple[OciDigest, bytes]],
    wanted: set[External],
    algorithm: Algorithm,
) -> dict[External, bytes]:
    """Return the contents of files from their layers, where no repository kept them."""
    found: dict[External, bytes] = {}
    for descriptor, (diff_id, data) in zip(source.layers, layers, strict=True):
        held: dict[External, Entry] = {}
        for entry, content in unpack.entries(StreamReader(data), algorithm):
            if isinstance(content, External) and content in wanted and content not in found:
                held.setdefault(content, entry)
        if held:
            name = _layer_name(descriptor, diff_id)
            with doing(f"Reading {name}"), source.blob(descriptor) as blob:
                bodies = unpack.bodies_of(blob, held.values())
                found |= zip(held, (body for _, body in bodies), strict=True)
    for content in wanted:
        if verity_digest(found.get(content, b""), algorithm) != content.digest:
            raise DigestMismatch(f"the image {source.imgref} changed while it was read")
    return found


def write_documents(
    repository: Repository, documents: Documents, made: Mapping[str, Digest]
) -> None:
    """Write config and manifest streams of an image whose layers are there.

    Images that the config stream names already keep their references, if they are made of the
    same layers.

    Args:
        repository: Where to; writable.
        documents: The image.
        made: EROFS images made of it, by :func:`image_name`.

    Raises:
        DigestMismatch: a document is another one than its digest says.
    """
    _compare("the manifest", documents.manifest_raw, documents.manifest_digest)
    _compare("the configuration", documents.config_raw, documents.config_digest)
    streams = repository.streams
    layers = {str(d): streams.digest_of(layer_id(d)) for d in documents.diff_ids}
    config_name = config_id(documents.config_digest)
    kept = _images_kept(repository, documents.config_digest, layers)
    config_stream = streams.write(
        config_name,
        _document(
            repository,
            splitstream.OCI_CONFIG,
            documents.config_raw,
            {**layers, **kept, **made},
        ),
    )
    streams.write(
        manifest_id(documents.manifest_digest),
        _document(
            repository,
            splitstream.OCI_MANIFEST,
            documents.manifest_raw,
            {f"config:{documents.config_digest}": config_stream, **layers},
        ),
    )


def _compare(what: str, raw: bytes, digest: OciDigest) -> None:
    found = digest.new()
    found.update(raw)
    check_digest(what, found.hexdigest(), digest)


def _images_kept(
    repository: Repository, digest: OciDigest, layers: Mapping[str, Digest]
) -> dict[str, Digest]:
    """Return the images that the present config stream names: of another format, or filter.

    Those of other tools, too. One that was made of a layer which was replaced is none of them.
    """
    stream = repository.streams.find(config_id(digest))
    if stream is None:
        return {}
    try:
        present = read_document(repository, stream, digest, splitstream.OCI_CONFIG).references
    except (Error, OSError) as exc:
        if isinstance(exc, OSError) and exc.errno not in HEALED:
            raise
        _log.warning("the stored configuration %s is replaced: %s", digest, one_line(exc))
        return {}
    same = all(present.get(diff_id, layer) == layer for diff_id, layer in layers.items())
    return images_in(present) if same else {}


def _document(
    repository: Repository, content_type: bytes, raw: bytes, named_refs: dict[str, Digest]
) -> bytes:
    """Return a stream of one object, the document, and references."""
    stream = StreamWriter(repository.algorithm, content_type)
    for name, digest in named_refs.items():
        stream.refer(name, digest)
    stream.external(repository.objects.put(raw), len(raw))
    return stream.finish()
