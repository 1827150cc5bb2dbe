"""Layers that are in a repository already: whether a pull may take one instead of fetching it.

Owns: that decision. Promises: a layer that is taken has all its objects, and its content was
compared with its digest, by this program and not only by whoever stored it: composefs-rs
stores what a layout directory calls by a digest without looking. What is there and cannot be
taken is a warning, and fetching it replaces it.

A layer is compared once, which takes about a second for each 700 MB; then a mark names the
stream that was compared (:meth:`bootc.repository.streams.Streams.verified`). A stream that
another tool puts in its place is compared again. The mark is as easy to write as the stream:
this is about mistakes of other tools, and against who may write to the repository it protects
no more than the digests in it do.

Whether an object still has the content that its name says is not asked here but by
:mod:`bootc.repository.fsck`; where there is fs-verity, the kernel asks.
"""

from __future__ import annotations

import logging

from bootc.errors import Error, one_line
from bootc.events import Done, Progress, Sink, Start
from bootc.formats import splitstream
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.splitstream import MAX_STREAM_BYTES, StreamReader
from bootc.oci.layers import layer_archive
from bootc.oci.names import layer_id
from bootc.repository.repository import Repository
from bootc.repository.sealing import HEALED

_log = logging.getLogger(__name__)


def can_reuse(repository: Repository, diff_id: OciDigest, sink: Sink) -> bool:
    """Tell whether a layer is there, whole, and the one that its name says.

    Args:
        repository: Where; writable.
        diff_id: The layer.
        sink: Told of the comparison, if there has to be one.

    Raises:
        OSError: the repository cannot be read or written for another reason than damage.
    """
    stream = repository.streams.find(layer_id(diff_id))
    if stream is None:
        return False
    try:
        fault = _fault(repository, diff_id, stream, sink)
    except Error as exc:
        fault = one_line(exc)
    except OSError as exc:
        if exc.errno not in HEALED:
            raise
        fault = one_line(exc)
    if fault is not None:
        _log.warning("the stored layer %s is fetched again: %s", diff_id, fault)
    return fault is None


def _fault(repository: Repository, diff_id: OciDigest, stream: Digest, sink: Sink) -> str | None:
    """Return what is wrong with a stored layer.

    Raises:
        Error, OSError: that is wrong with it.
    """
    objects, streams = repository.objects, repository.streams
    reader = StreamReader(objects.read(stream, limit=MAX_STREAM_BYTES))
    reader.expect(splitstream.OCI_LAYER, repository.algorithm)
    missing = objects.missing(reader.object_refs)
    if missing:
        return f"it lacks {len(missing)} of its objects, {missing[0]} for one"
    if streams.verified(layer_id(diff_id)) != stream:
        _compare(repository, diff_id, stream, reader.size_bytes, sink)
        streams.set_verified(layer_id(diff_id), stream)
    return None


def _compare(
    repository: Repository, diff_id: OciDigest, stream: Digest, size_bytes: int, sink: Sink
) -> None:
    """Put a layer together and compare it with its digest.

    Raises:
        DigestMismatch: it is another one.
        Error, OSError: it cannot be read.
    """
    task = f"compare:{diff_id.hex[:12]}"
    sink(Start(task, f"Comparing stored layer {diff_id.hex[:12]}", size_bytes))
    done = 0
    for data in layer_archive(repository, diff_id, stream):
        done += len(data)
        sink(Progress(task, done))
    sink(Done(task))
