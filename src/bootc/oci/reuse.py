"""The decision whether a pull can use a stored layer instead of fetching it.

A layer can be used if all its objects are there and bootc itself has compared its content with
its digest. It is not enough that somebody stored it: composefs-rs stores the blobs of a layout
directory under their digests without comparing them. If a stored layer cannot be used,
:func:`can_reuse` logs a warning, and the pull replaces the layer.

A comparison takes about a second for each 700 MB. bootc does it once and then sets a mark that
names the compared stream (:meth:`bootc.repository.streams.Streams.verified`). If another tool
replaces the stream, bootc compares again. A mark is as easy to write as a stream. It guards
against mistakes of other tools, not against a user who may write to the repository.

This module does not check whether an object has the content that its name says. That is the task
of :mod:`bootc.repository.fsck`, and of the kernel where there is fs-verity.
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
    """Tell whether a layer is stored, whole, and has its digest.

    Args:
        repository: The repository; writable.
        diff_id: The layer.
        sink: Receives the progress of a comparison, if one is necessary.

    Raises:
        OSError: the repository cannot be read or written, for another reason than damage.
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
        _log.warning("fetching the stored layer %s again: %s", diff_id, fault)
    return fault is None


def _fault(repository: Repository, diff_id: OciDigest, stream: Digest, sink: Sink) -> str | None:
    """Return what is wrong with a stored layer, or None.

    Raises:
        Error, OSError: the error is what is wrong.
    """
    objects, streams = repository.objects, repository.streams
    reader = StreamReader(objects.read(stream, limit=MAX_STREAM_BYTES))
    reader.expect(splitstream.OCI_LAYER, repository.algorithm)
    missing = objects.missing(reader.object_refs)
    if missing:
        return f"it lacks {len(missing)} of its objects, for example {missing[0]}"
    if streams.verified(layer_id(diff_id)) != stream:
        _compare(repository, diff_id, stream, reader.size_bytes, sink)
        streams.set_verified(layer_id(diff_id), stream)
    return None


def _compare(
    repository: Repository, diff_id: OciDigest, stream: Digest, size_bytes: int, sink: Sink
) -> None:
    """Put a layer together and compare it with its digest.

    Raises:
        DigestMismatch: the stream holds another layer.
        Error, OSError: the layer cannot be read.
    """
    task = f"compare:{diff_id.hex[:12]}"
    sink(Start(task, f"Comparing stored layer {diff_id.hex[:12]}", size_bytes))
    done = 0
    for data in layer_archive(repository, diff_id, stream):
        done += len(data)
        sink(Progress(task, done))
    sink(Done(task))
