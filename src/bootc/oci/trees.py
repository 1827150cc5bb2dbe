"""File trees of container images, and the image ids that are computed from them.

:func:`stored_tree` puts together the layers of a repository. :func:`image_tree` reads the layers
from their source and stores nothing. Both give the same tree, and so the same image id, for the
same layers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial

from bootc.errors import doing
from bootc.events import Done, Sink, Start, null_sink
from bootc.formats import splitstream
from bootc.formats.digest import Algorithm, Digest, DigestMismatch, OciDigest
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.ocispec import ImageConfig
from bootc.formats.splitstream import StreamReader
from bootc.formats.tar import Entry
from bootc.formats.tree import Directory, External, Inline
from bootc.formats.verity import verity_digest
from bootc.oci import unpack
from bootc.oci.budget import Budget
from bootc.oci.documents import read_document
from bootc.oci.fetch import fetch_layer, layer_name
from bootc.oci.flatten import apply_layer
from bootc.oci.layer_doubts import LayerDoubts
from bootc.oci.layers import check_layer
from bootc.oci.names import XattrMode, layer_id
from bootc.oci.seal import transform_for_boot, transform_for_oci
from bootc.oci.selabel import ReadContent, policy_contents
from bootc.oci.source import Source, parse_documents
from bootc.oci.stored import StoredConfig
from bootc.repository.content import read_content
from bootc.repository.repository import Repository
from bootc.repository.sink import DigestOnly

#: The task of events while an image is made.
IMAGE_TASK = "image"


@dataclass(frozen=True, slots=True)
class ImageTree:
    """The tree that an image id is computed from."""

    root: Directory
    #: The same tree with the content of ``/boot``, where kernels may be.
    whole: Directory
    #: Reads a file of the tree; works as long as the source is open.
    read_content: ReadContent


def image_id_of(
    root: Directory, algorithm: Algorithm = Algorithm.SHA512, *, version: int = 1
) -> Digest:
    """Return the image id of a tree: the fs-verity digest of its EROFS image."""
    return verity_digest(mkfs_erofs(root, version=version), algorithm)


# -- of layers in a repository


def stored_tree(
    repository: Repository,
    diff_ids: Iterable[OciDigest],
    xattrs: XattrMode = XattrMode.ALLOWLIST_ONLY,
) -> Directory:
    """Return the plain tree of layers that are in the repository.

    Raises:
        FileNotFoundError: a layer is missing.
        Error: the stream of a layer is damaged, or the layers do not make a tree.
    """
    streams = repository.streams
    return _flatten(
        ((diff_id, streams.read(layer_id(diff_id))) for diff_id in diff_ids),
        repository.algorithm,
        xattrs,
    )


def boot_tree(repository: Repository, root: Directory) -> Directory:
    """Return the tree to boot, made from a plain tree whose files are in the repository.

    Raises:
        SealError, LabelError: the tree lacks something that a bootable image needs.
    """
    return transform_for_boot(root, partial(read_content, repository.objects))


def config_tree(
    repository: Repository,
    config: StoredConfig,
    *,
    bootable: bool,
    xattrs: XattrMode = XattrMode.ALLOWLIST_ONLY,
    trusted: bool = False,
) -> Directory:
    """Return the tree of the layers that a stored configuration names.

    Args:
        repository: The repository.
        config: The configuration.
        bootable: Return the tree to boot, not the plain tree.
        xattrs: Which extended attributes are kept.
        trusted: Trust the streams of layers that the configuration names by their verity digests.
            All others are compared with the digests of the layers, but for those that a pull has
            compared.

    Raises:
        DigestMismatch: a stream holds another document or another layer.
        SealError, LabelError: the tree lacks something that a bootable image needs.
        Error, OSError: a stream is damaged or missing.
    """
    with doing(f"Reading configuration {config.digest}"):
        found = read_document(repository, config.stream, config.digest, splitstream.OCI_CONFIG)
        diff_ids = ImageConfig.parse(found.raw).diff_ids
    for diff_id in diff_ids:
        name = layer_id(diff_id)
        # A pull sets the mark when it has compared a layer.
        known = found.references.get(str(diff_id)) if trusted else repository.streams.verified(name)
        if known != repository.streams.find(name):
            check_layer(repository, diff_id)
    root = stored_tree(repository, diff_ids, xattrs)
    return boot_tree(repository, root) if bootable else root


# -- of a source


def image_tree(
    source: Source,
    sink: Sink = null_sink,
    *,
    bootable: bool = True,
    algorithm: Algorithm = Algorithm.SHA512,
    architecture: str | None = None,
    xattrs: XattrMode = XattrMode.ALLOWLIST_ONLY,
    ahead: Collection[External] = (),
    doubts: LayerDoubts | None = None,
) -> ImageTree:
    """Return the tree that a pull makes an image of. The function stores nothing.

    A pull always uses the default mode of extended attributes.

    Args:
        source: The image; must stay open while content is read.
        sink: Receives the progress of each layer and of the image.
        bootable: Return the tree to boot, not the plain tree.
        algorithm: The algorithm of the digests of files.
        architecture: The architecture in the spelling of images; this machine's if None.
        xattrs: Which extended attributes are kept.
        ahead: Contents that the caller will read. The first read of any content reads them too.
            The caller may fill the collection when it has the tree.
        doubts: Receives what other programs that unpack the layers do differently.

    Raises:
        WrongArchitecture: the image is for another architecture.
        Error: the image is damaged or malformed, or lacks something that a bootable image needs.
    """
    _, config = parse_documents(source, architecture)
    objects = DigestOnly(algorithm)
    layers = [
        (diff_id, fetch_layer(source, descriptor, diff_id, objects, sink))
        for descriptor, diff_id in zip(source.layers, config.diff_ids, strict=True)
    ]
    sink(Start(IMAGE_TASK, "Making the image"))
    root = _flatten(layers, algorithm, xattrs, doubts)
    kept: dict[External, bytes] = {}

    def read_content(content: Inline | External) -> bytes:
        if isinstance(content, Inline):
            return content.data
        if content not in kept:
            # Reading a file means reading its layer from the start. Therefore all files of the
            # SELinux policy are read together.
            wanted = {content, *ahead, *policy_contents(root)}
            kept.update(_read_again(source, layers, wanted, algorithm))
        return kept[content]

    booted = transform_for_boot(root, read_content) if bootable else root
    sink(Done(IMAGE_TASK))
    return ImageTree(booted, root, read_content)


def _flatten(
    layers: Iterable[tuple[OciDigest, bytes]],
    algorithm: Algorithm,
    xattrs: XattrMode,
    doubts: LayerDoubts | None = None,
) -> Directory:
    """Return the plain tree of layers, given as pairs of ``diff_id`` and stream."""
    root = Directory()
    budget = Budget()
    for diff_id, data in layers:
        entries = unpack.entries(StreamReader(data), algorithm)
        with doing(f"Applying layer {diff_id}"):
            apply_layer(root, diff_id, entries, doubts, budget)
    transform_for_oci(root, xattrs)
    return root


def _read_again(
    source: Source,
    layers: list[tuple[OciDigest, bytes]],
    wanted: set[External],
    algorithm: Algorithm,
) -> dict[External, bytes]:
    """Read the contents of files from their layers, because no repository has stored them."""
    found: dict[External, bytes] = {}
    for descriptor, (diff_id, data) in zip(source.layers, layers, strict=True):
        held: dict[External, Entry] = {}
        for entry, content in unpack.entries(StreamReader(data), algorithm):
            if isinstance(content, External) and content in wanted and content not in found:
                held.setdefault(content, entry)
        if held:
            name = layer_name(descriptor, diff_id)
            with doing(f"Reading {name}"), source.blob(descriptor) as blob:
                bodies = unpack.bodies_of(blob, held.values())
                found |= zip(held, (body for _, body in bodies), strict=True)
    for content in wanted:
        if verity_digest(found.get(content, b""), algorithm) != content.digest:
            raise DigestMismatch(f"the image {source.imgref} changed while it was read")
    return found
