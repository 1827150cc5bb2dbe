"""Images through skopeo: registries, archives, local storage.

Owns: one ``skopeo experimental-image-proxy`` child and the conversation with it.
skopeo brings what a host is configured for: credentials, mirrors, certificates,
signature policy. Promises: manifest, configuration and layers are checked against
their digests here as well, so a wrong byte between skopeo and us is noticed; and
whatever goes wrong is one line that names the image.

Credentials: the first of :data:`AUTH_FILES` is given to skopeo if there is one;
otherwise skopeo looks where it always does (``REGISTRY_AUTH_FILE``, the user's
``containers/auth.json``). Upstream's bootc is anonymous in that case.

Protocol (skopeo-experimental-image-proxy(1), version 0.2.3 and later): requests and
replies are JSON, one in a packet of a ``SOCK_SEQPACKET`` socket; content comes
through a pipe whose reading end arrives with the reply. The pipe ends only once
``FinishPipe`` was called, and that call is answered once all was written. So the
request is sent first, the pipe read to its end next, the answer taken last; this
needs no thread and hears of every error.

A Docker manifest is converted by skopeo: then the digest is the one the registry
knows, while manifest and configuration are the converted ones.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bootc.errors import Error, doing
from bootc.formats import ocispec
from bootc.formats.digest import DigestError, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import Descriptor, Manifest
from bootc.fs import process
from bootc.oci.blob import (
    CHUNK_BYTES,
    Blob,
    DigestMismatch,
    VerifiedBlob,
    check_digest,
    read_document,
)

_log = logging.getLogger(__name__)

#: Where a host keeps the credentials of its own operating system image.
AUTH_FILES = ("/run/ostree/auth.json", "/etc/ostree/auth.json", "/usr/lib/ostree/auth.json")
#: What steers skopeo besides the environment every child gets.
_VARIABLES = (
    "CONTAINERS_STORAGE_CONF",
    "DOCKER_CONFIG",
    "STORAGE_DRIVER",
    "STORAGE_OPTS",
)
_PACKET_BYTES = 1 << 20
_EXIT_TIMEOUT_S = 10.0
_PIPED_LAYER_INFO = (0, 2, 7)
_LAYER_INFO = (0, 2, 5)


class SkopeoError(Error):
    """skopeo could not do what was asked."""


@dataclass(frozen=True, slots=True)
class SkopeoSource:
    """An image opened in skopeo (a :class:`bootc.oci.source.Source`)."""

    imgref: ImageReference
    manifest_digest: OciDigest
    manifest_raw: bytes
    config_raw: bytes
    layers: tuple[Descriptor, ...]
    image: _Image

    @contextlib.contextmanager
    def blob(self, descriptor: Descriptor) -> Iterator[Blob]:
        """Open a blob; reading it to its end checks it. One blob can be open at a time."""
        with self.image.blob(descriptor) as blob:
            yield blob


@contextlib.contextmanager
def open_skopeo(imgref: ImageReference) -> Iterator[SkopeoSource]:
    """Open an image for this machine's architecture.

    Raises:
        ToolMissing: skopeo is not installed.
        SkopeoError: no such image, no access, or skopeo failed otherwise.
        DigestMismatch: a document is not what its digest says.
        ImageSpecError: a document is malformed.
    """
    with _proxy() as proxy:
        image = _Image.open(proxy, imgref)
        with doing(f"Reading the manifest of {imgref}"):
            claimed, manifest_raw = image.document("GetManifest")
            manifest = Manifest.parse(manifest_raw)
            digest = _digest(claimed)
        # Equal unless skopeo converted the manifest; then the configuration it belongs to is
        # one skopeo made as well, and no blob of the image.
        converted = digest != OciDigest.of(manifest_raw)
        with doing(f"Reading the configuration of {imgref}"):
            if converted:
                _, config_raw = image.document("GetFullConfig")
                found = manifest.config.digest.new()
                found.update(config_raw)
                check_digest("the configuration", found.hexdigest(), manifest.config.digest)
            else:
                with image.blob(manifest.config) as blob:
                    config_raw = read_document(blob, manifest.config, ocispec.MAX_CONFIG_BYTES)
        layers = manifest.layers
        if imgref.transport == "containers-storage":
            # Local storage keeps layers unpacked and cannot serve what the manifest names.
            layers = image.local_layers()
        yield SkopeoSource(imgref, digest, manifest_raw, config_raw, layers, image)
        proxy.call("CloseImage", image.number)


@dataclass(frozen=True, slots=True)
class _Reply:
    value: Any
    pipe_id: int
    fd: int | None


class _Proxy:
    """The conversation: one request, one reply, in turns."""

    def __init__(self, channel: socket.socket, child: process.Child) -> None:
        self._channel = channel
        self._child = child
        self.version: tuple[int, ...] = ()

    def initialize(self) -> None:
        value = str(self.call("Initialize").value)
        parts = value.split(".")
        if not all(part.isdigit() for part in parts):
            raise SkopeoError(f"skopeo speaks an unknown protocol version {value!r}")
        self.version = tuple(map(int, parts))
        _log.debug("skopeo image proxy %s", value)

    def call(self, method: str, *args: int | str) -> _Reply:
        self.send(method, *args)
        return self.receive()

    def send(self, method: str, *args: int | str) -> None:
        request = json.dumps({"method": method, "args": args}).encode()
        try:
            self._channel.sendall(request)
        except (BrokenPipeError, ConnectionResetError) as exc:
            raise self._gone() from exc

    def receive(self) -> _Reply:
        try:
            data, fds, flags, _ = socket.recv_fds(
                self._channel, _PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError as exc:
            raise self._gone() from exc
        fd = fds[0] if fds else None
        try:
            if not data:
                raise self._gone()
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise SkopeoError("skopeo's reply is too long")
            return _parse_reply(data, fd)
        except BaseException:
            if fd is not None:
                os.close(fd)
            raise

    def abandon(self) -> None:
        """Hang up: a reply is outstanding that nobody waits for."""
        self._channel.shutdown(socket.SHUT_RDWR)

    def _gone(self) -> Error:
        with contextlib.suppress(TimeoutError, process.CommandFailed):
            self._child.wait(_EXIT_TIMEOUT_S)
        return self._child.failure()


def _parse_reply(data: bytes, fd: int | None) -> _Reply:
    reply = _json(data)
    try:
        if reply["success"]:
            return _Reply(reply.get("value"), int(reply.get("pipeid") or 0), fd)
        text = " ".join(str(reply["error"]).split())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise SkopeoError(f"skopeo's reply makes no sense: {data[:200]!r}") from exc
    raise SkopeoError(f"skopeo: {text}")


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise SkopeoError(f"skopeo's reply makes no sense: {data[:200]!r}") from exc


@contextlib.contextmanager
def _proxy() -> Iterator[_Proxy]:
    argv = ["skopeo", "experimental-image-proxy"]
    if auth_file := next(filter(os.path.exists, AUTH_FILES), None):
        argv += ["--authfile", auth_file]
    env = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            child = process.spawn(argv, stdin=theirs.fileno(), env=env)
        with child:
            proxy = _Proxy(ours, child)
            proxy.initialize()
            yield proxy
            # No reply comes: the child ends. If anything failed it is stopped instead.
            proxy.send("Shutdown")
            child.wait(_EXIT_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class _Image:
    """An image opened in the proxy."""

    proxy: _Proxy
    number: int

    @classmethod
    def open(cls, proxy: _Proxy, imgref: ImageReference) -> _Image:
        name = str(imgref)
        if imgref.transport == "containers-storage":
            # An image id is written with its algorithm elsewhere, but not here.
            name = f"containers-storage:{imgref.name.removeprefix('sha256:')}"
        with doing(f"Opening image {imgref}"):
            number = proxy.call("OpenImage", name).value
            if not isinstance(number, int):
                raise SkopeoError(f"skopeo's reply makes no sense: image {number!r}")
            return cls(proxy, number)

    @contextlib.contextmanager
    def pipe(self, method: str, *args: int | str) -> Iterator[tuple[Any, Blob]]:
        """Make a call that answers with content; leaving the block says whether all went well."""
        reply = self.proxy.call(method, self.number, *args)
        if reply.fd is None:
            raise SkopeoError(f"skopeo's reply to {method} lacks a pipe")
        with open(reply.fd, "rb", buffering=0) as file:
            self.proxy.send("FinishPipe", reply.pipe_id)
            try:
                yield reply.value, _Pipe(file.fileno())
            except DigestMismatch:
                # Too few bytes, or wrong ones: skopeo may know why, and then its word counts.
                file.close()
                self.proxy.receive()
                raise
            except BaseException:
                self.proxy.abandon()
                raise
        self.proxy.receive()

    def document(self, method: str) -> tuple[Any, bytes]:
        """Fetch something small whose size is not known beforehand."""
        parts: list[bytes] = []
        size = 0
        with self.pipe(method) as (value, blob):
            while part := blob.read(CHUNK_BYTES):
                parts.append(part)
                size += len(part)
                if size > ocispec.MAX_CONFIG_BYTES:
                    raise SkopeoError(f"skopeo's answer to {method} is too long")
        return value, b"".join(parts)

    @contextlib.contextmanager
    def blob(self, descriptor: Descriptor) -> Iterator[VerifiedBlob]:
        """Open a blob of the image."""
        with self.pipe("GetBlob", str(descriptor.digest), descriptor.size_bytes) as (_, pipe):
            yield VerifiedBlob(pipe.read, descriptor)

    def local_layers(self) -> tuple[Descriptor, ...]:
        """Ask for the layers as local storage holds them."""
        if self.proxy.version >= _PIPED_LAYER_INFO:
            infos = _json(self.document("GetLayerInfoPiped")[1])
        elif self.proxy.version >= _LAYER_INFO:
            infos = self.proxy.call("GetLayerInfo", self.number).value
        else:
            raise SkopeoError(
                "this skopeo is too old to read local container storage",
                hint="version 1.11 and later can; or copy the image to an oci: directory first",
            )
        try:
            return tuple(
                Descriptor(str(info["media_type"]), _digest(info["digest"]), int(info["size"]), {})
                for info in infos
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise SkopeoError(f"skopeo's reply makes no sense: {exc!r}") from exc


class _Pipe:
    """A :class:`Blob` on a descriptor that belongs to somebody else."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int, /) -> bytes:
        return os.read(self._fd, size)


def _digest(value: Any) -> OciDigest:
    try:
        return OciDigest.parse(str(value))
    except DigestError as exc:
        raise SkopeoError(f"skopeo's reply makes no sense: {exc}") from exc
