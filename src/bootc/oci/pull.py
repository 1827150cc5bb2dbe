"""The pull of a container image into a repository.

:func:`pull` works in this order: layers, EROFS images, documents, tag. It promises:

- It registers a layer only after it has compared the digests and the objects are on disk. An
  interrupted pull therefore continues where it stopped.
- It uses a stored layer only if all objects are there and the content was compared with the
  digest, no matter who stored it. Otherwise it replaces the layer.
- It sets the tag last, when everything that the tag leads to is durable. This is the commit
  point.
- Pulling the same image again changes nothing. It makes no image that it made before
  (:mod:`bootc.oci.made_images`).

If the caller names no format versions, the images get those of the repository: any other program
that uses the repository computes the same image id. If the caller names no tag, the tag is
``localhost/bootc-<manifest digest>``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bootc.errors import UsageError
from bootc.events import Done, Sink, Start, null_sink
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.ocispec import ImageConfig, Manifest
from bootc.formats.splitstream import StreamReader
from bootc.formats.tree import Directory
from bootc.oci.documents import Documents, write_documents
from bootc.oci.fetch import fetch_layer, skip_layer
from bootc.oci.made_images import images_made, record_made
from bootc.oci.names import FORMAT_VERSIONS, image_name, layer_id, manifest_id, tag_of, tag_ref
from bootc.oci.reuse import can_reuse
from bootc.oci.source import Source, parse_documents
from bootc.oci.trees import IMAGE_TASK, boot_tree, stored_tree
from bootc.repository.repository import Repository
from bootc.repository.tally import Tally


@dataclass(frozen=True, slots=True)
class Amount:
    """What the fetched layers added to the repository."""

    objects: Tally
    #: Headers, padding and small files, which the streams of the layers hold.
    inlined_bytes: int


@dataclass(frozen=True, slots=True)
class Pulled:
    """An image in the repository."""

    manifest_digest: OciDigest
    config_digest: OciDigest
    manifest: Manifest
    config: ImageConfig
    #: The EROFS image to mount: the boot image of a bootable image, else the plain image.
    image_id: Digest
    amount: Amount
    #: Makes the tree, once.
    make_root: Callable[[], Directory]

    @property
    def root(self) -> Directory:
        """The tree with the content of ``/boot``, where kernels may be."""
        return self.make_root()


def required_bytes(source: Source, repository: Repository | None = None) -> int:
    """Return how many bytes of layers a pull has to fetch: the least space that it needs.

    Args:
        source: The image.
        repository: Layers of this repository count nothing; None is an empty repository.

    Raises:
        ImageSpecError: the configuration of the image is malformed.
    """
    if repository is None:
        return sum(descriptor.size_bytes for descriptor in source.layers)
    diff_ids = ImageConfig.parse(source.config_raw).diff_ids
    return sum(
        descriptor.size_bytes
        # If the numbers of layers differ, the pull will report it.
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
    erofs_formats: Sequence[int] = (),
    accept: Callable[[OciDigest], None] | None = None,
) -> Pulled:
    """Bring an image into the repository.

    Args:
        repository: The repository; writable.
        source: The image.
        sink: Receives the progress of each layer and of the image.
        bootable: Make the boot image too.
        architecture: The machine that will run the image, in the spelling of images; this
            machine's if None.
        tag: The tag that keeps the image; made from its digest if None.
        erofs_formats: The format versions to make images of, that of the returned id first;
            those of the repository if empty.
        accept: Called with the digest of the manifest when the image is stored and has no tag
            yet. If it raises, the image gets no tag.

    Raises:
        WrongArchitecture: the image is for another architecture.
        UsageError: a format version is 0, which images of container images cannot have.
        Error: the image is damaged or malformed, or lacks something that a bootable image needs.
        OSError: the repository cannot be written, for example ENOSPC.
    """
    versions = tuple(erofs_formats) or repository.metadata.effective_erofs_formats().all
    _require_nameable(versions)
    manifest, config = parse_documents(source, architecture)
    amount = _fetch_missing(repository, source, config, sink)
    sink(Start(IMAGE_TASK, "Making the image"))
    make_root = functools.cache(functools.partial(stored_tree, repository, config.diff_ids))
    config_digest = manifest.config.digest
    before = images_made(repository, config_digest, config.diff_ids)
    names = _image_names(versions, bootable=bootable)
    made = {name: before[name] for name in names if name in before}
    if made.keys() != names.keys():
        made = _make_images(repository, make_root(), names)
    write_documents(repository, _documents_of(source, manifest, config), made)
    record_made(repository, config_digest, {*before.values(), *made.values()})
    if accept is not None:
        accept(source.manifest_digest)
    ref = tag_of(source.manifest_digest) if tag is None else tag_ref(tag)
    repository.streams.set_ref(ref, manifest_id(source.manifest_digest))
    sink(Done(IMAGE_TASK))
    return Pulled(
        source.manifest_digest,
        manifest.config.digest,
        manifest,
        config,
        made[image_name(versions[0], bootable=bootable)],
        amount,
        make_root,
    )


def _require_nameable(versions: Sequence[int]) -> None:
    """Refuse a format version that the stream of a configuration has no name for."""
    if any(version not in FORMAT_VERSIONS for version in versions):
        raise UsageError(
            "images made of container images cannot have version 0", hint="give --erofs-version 1"
        )


def _fetch_missing(
    repository: Repository, source: Source, config: ImageConfig, sink: Sink
) -> Amount:
    """Fetch the layers that the repository lacks, or has damaged."""
    objects, streams = repository.objects, repository.streams
    total = Amount(Tally(), 0)
    for descriptor, diff_id in zip(source.layers, config.diff_ids, strict=True):
        if can_reuse(repository, diff_id, sink):
            skip_layer(sink, descriptor, diff_id)
            continue
        before = objects.tally
        stream = fetch_layer(source, descriptor, diff_id, objects, sink)
        added = objects.tally - before
        inlined = StreamReader(stream).size_bytes - added.new_bytes - added.present_bytes
        total = Amount(total.objects + added, total.inlined_bytes + inlined)
        written = streams.write(layer_id(diff_id), stream)
        # fetch_layer has compared the layer with its digest.
        streams.set_verified(layer_id(diff_id), written)
    return total


def _image_names(versions: Sequence[int], *, bootable: bool) -> dict[str, tuple[int, bool]]:
    """Return the names of the images to make, each with its version and whether it boots."""
    return {
        image_name(version, bootable=boots): (version, boots)
        for version in versions
        for boots in (False, True)[: 1 + bootable]
    }


def _make_images(
    repository: Repository, root: Directory, names: Mapping[str, tuple[int, bool]]
) -> dict[str, Digest]:
    """Add the EROFS images of a plain tree.

    Args:
        repository: The repository; writable.
        root: The plain tree.
        names: The names of the images. Each has the version of its format, and whether it is the
            boot image.
    """
    trees = {False: root}
    if any(boots for _, boots in names.values()):
        trees[True] = boot_tree(repository, root)
    return {
        name: repository.images.add(mkfs_erofs(trees[boots], version=version))
        for name, (version, boots) in names.items()
    }


def _documents_of(source: Source, manifest: Manifest, config: ImageConfig) -> Documents:
    return Documents(
        source.manifest_digest,
        source.manifest_raw,
        manifest.config.digest,
        source.config_raw,
        config.diff_ids,
    )
