"""The EROFS images that a pull made of an image before, so that it need not make them again.

The stream of a configuration names EROFS images. Any program may write such a stream. So a pull
sets a mark that names the stream (:meth:`bootc.repository.streams.Streams.verified`) when bootc
itself made all images that it names, of layers that it had compared. Without the mark, or if the
stream was written again since, the next pull makes the images anew, which takes some tenths of a
second. The mark guards against mistakes of other tools, like that of layers
(:mod:`bootc.oci.reuse`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from bootc.errors import Error
from bootc.formats import splitstream
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.erofs.structs import MAX_IMAGE_BYTES
from bootc.oci.documents import read_document
from bootc.oci.names import config_id, images_in, layer_id
from bootc.repository import layout
from bootc.repository.refs import read_link
from bootc.repository.repository import Repository
from bootc.repository.sealing import HEALED


def images_made(
    repository: Repository, config: OciDigest, diff_ids: Sequence[OciDigest]
) -> dict[str, Digest]:
    """Return the images that bootc made of these layers, by name, if they are whole.

    Raises:
        OSError: the repository cannot be read, for another reason than damage.
    """
    streams = repository.streams
    stream = streams.find(config_id(config))
    if stream is None or streams.verified(config_id(config)) != stream:
        return {}
    try:
        references = read_document(repository, stream, config, splitstream.OCI_CONFIG).references
        if any(references.get(str(d)) != streams.find(layer_id(d)) for d in diff_ids):
            return {}  # A layer was replaced since.
        found = images_in(references)
        return {name: image for name, image in found.items() if _is_whole(repository, image)}
    except Error:
        return {}
    except OSError as exc:
        if exc.errno not in HEALED:
            raise
        return {}


def record_made(repository: Repository, config: OciDigest, made: Collection[Digest]) -> None:
    """Record that bootc made all images that a stored configuration names, if it did.

    Args:
        repository: The repository; writable.
        config: The digest of the configuration, which is stored.
        made: The images that bootc made of its layers.

    Raises:
        Error, OSError: the configuration cannot be read, or the record cannot be written.
    """
    streams = repository.streams
    stream = streams.digest_of(config_id(config))
    named = images_in(read_document(repository, stream, config, splitstream.OCI_CONFIG).references)
    if set(named.values()) <= set(made):
        streams.set_verified(config_id(config), stream)


def _is_whole(repository: Repository, image: Digest) -> bool:
    """Tell whether an image is registered and has the content that its name says.

    Raises:
        Error, OSError: it has not, or it is missing.
    """
    repository.objects.read(image, limit=MAX_IMAGE_BYTES)
    path = layout.image_path(image.hex)
    return read_link(repository.dir, path) == layout.link_to_object(image.hex)
