"""Images that skopeo serves: from registries, archives and local storage.

The module runs one ``skopeo experimental-image-proxy`` child and talks to it. skopeo applies the
configuration of the host: credentials, mirrors, certificates, signature policy. bootc compares
the manifest, the configuration and the layers with their digests again, so it detects a wrong
byte between skopeo and itself. Every failure becomes one line that names the image.

Credentials: bootc gives skopeo the first of :data:`AUTH_FILES` that exists. If there is no such
file, skopeo looks in its usual places (``REGISTRY_AUTH_FILE``, the user's
``containers/auth.json``). Upstream's bootc is anonymous in that case.

Signatures: from protocol version 0.2.6 on, ``OpenImage`` refuses an image that the host's
``policy.json`` rejects, for every transport (tried with skopeo 1.18). Older versions (skopeo 1.9)
do not read the policy at all. If the caller demands a signature, skopeo gets a copy of the policy
that bootc judged (:mod:`bootc.oci.sigpolicy`). The check and the pull use one ``OpenImage``: the
manifest that skopeo checked is the manifest that bootc gets, even if the tag moves.

Protocol (skopeo-experimental-image-proxy(1), version 0.2.3 and later): requests and replies are
JSON, one in each packet of a ``SOCK_SEQPACKET`` socket. Content comes through a pipe; its reading
end arrives with the reply. The pipe ends only after a call of ``FinishPipe``, and skopeo answers
that call when it has written everything. Therefore the module first sends the request, then reads
the pipe to its end, and takes the answer last. This needs no thread, and no error is lost.

The proxy converts a Docker manifest and its configuration, but it reports the digest of the
original. Therefore bootc reads the original with ``skopeo inspect --raw``, so that the bytes of
an image have the digest that names it. For two kinds of images this is not possible: for an image
in a list that has no name of its own (in ``dir:``), and for a manifest of Docker's first schema,
whose digest leaves out a part of it. For these, bootc stores the conversion under its own digest,
and a warning names both.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bootc.errors import Error, doing
from bootc.formats import ocispec
from bootc.formats.digest import DigestError, DigestMismatch, OciDigest, check_digest
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import Descriptor, ImageSpecError, Index, Manifest
from bootc.fs import process
from bootc.oci.blob import (
    CHUNK_BYTES,
    Blob,
    VerifiedBlob,
    read_whole,
)
from bootc.oci.sigpolicy import EnforcedPolicy, PolicyNotEnforced

_log = logging.getLogger(__name__)

#: Where a host keeps the credentials of its own operating system image.
AUTH_FILES = ("/run/ostree/auth.json", "/etc/ostree/auth.json", "/usr/lib/ostree/auth.json")
#: Variables that skopeo gets in addition to the environment of every child.
_VARIABLES = (
    "CONTAINERS_STORAGE_CONF",
    "DOCKER_CONFIG",
    "STORAGE_DRIVER",
    "STORAGE_OPTS",
)
_STORAGE_OPTIONS = "STORAGE_OPTS"
_PACKET_BYTES = 1 << 20
_EXIT_TIMEOUT_S = 10.0
_PIPED_LAYER_INFO = (0, 2, 7)
_LAYER_INFO = (0, 2, 5)
_SIGNATURE_POLICY = (0, 2, 6)
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){1,3}")
_PIPE_IDS = range(1 << 32)
_MAX_ERROR = 4096


class SkopeoError(Error):
    """skopeo failed."""


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
def open_skopeo(
    imgref: ImageReference,
    *,
    image_store: str | None = None,
    policy: EnforcedPolicy | None = None,
) -> Iterator[SkopeoSource]:
    """Open an image for this machine's architecture.

    Args:
        imgref: The image.
        image_store: An additional image store, see containers-storage.conf(5).
        policy: The policy to enforce; None leaves the policy to skopeo.

    Raises:
        PolicyNotEnforced: this skopeo does not check it.
        ToolMissing: skopeo is not installed.
        SkopeoError: the image does not exist, access is denied, or skopeo failed.
        DigestMismatch: a document does not have its digest.
        ImageSpecError: a document is malformed.
    """
    _refuse_odd_files(imgref)
    env = _environment(image_store)
    with _proxy(env, policy) as proxy:
        if policy is not None and proxy.version < _SIGNATURE_POLICY:
            version = ".".join(map(str, proxy.version))
            raise PolicyNotEnforced(
                f"the signature policy cannot be enforced for {imgref}: this skopeo does not "
                f"check signatures (its image proxy has version {version})",
                hint="0.2.6 and later do, as that of skopeo 1.18",
            )
        under = f" under the signature policy {policy.path}" if policy is not None else ""
        with doing(f"Opening image {imgref}{under}"):
            image = _Image.open(proxy, imgref)
        with doing(f"Reading the manifest of {imgref}"):
            value, served = image.document("GetManifest", ocispec.MAX_MANIFEST_BYTES)
            manifest_raw = _original_manifest(imgref, _digest(value), served, env)
            manifest = Manifest.parse(manifest_raw)
        # The configuration of a converted image is made by skopeo. It is not a blob.
        converted = manifest_raw == served and not _has_digest(served, _digest(value))
        digest = OciDigest.of(manifest_raw) if converted else _digest(value)
        with doing(f"Reading the configuration of {imgref}"):
            if converted:
                _, config_raw = image.document("GetFullConfig", ocispec.MAX_CONFIG_BYTES)
                found = manifest.config.digest.new()
                found.update(config_raw)
                check_digest("the configuration", found.hexdigest(), manifest.config.digest)
            else:
                with image.blob(manifest.config) as blob:
                    config_raw = read_whole(blob, manifest.config, ocispec.MAX_CONFIG_BYTES)
        layers = manifest.layers
        if imgref.transport == "containers-storage":
            # Local storage keeps layers unpacked and cannot serve the blobs of the manifest.
            layers = image.local_layers()
        yield SkopeoSource(imgref, digest, manifest_raw, config_raw, layers, image)
        proxy.ask("CloseImage", image.number)


def _refuse_odd_files(imgref: ImageReference) -> None:
    """Refuse a directory with a FIFO or a device, which skopeo would never finish reading.

    Raises:
        SkopeoError: the directory holds such a file.
    """
    if imgref.transport != "dir" or not os.path.isdir(imgref.name):
        return
    with os.scandir(imgref.name) as entries:
        for entry in entries:
            # skopeo itself reports a missing file, or a directory in the place of a file.
            if not (entry.is_file() or entry.is_dir() or not os.path.exists(entry.path)):
                raise SkopeoError(f"{entry.path!r} is not a regular file")


def _original_manifest(
    imgref: ImageReference, digest: OciDigest, served: bytes, env: Mapping[str, str]
) -> bytes:
    """Return the manifest with a digest; if it is not available, the served conversion.

    Raises:
        DigestMismatch: the manifest does not have the digest that skopeo reports, or it changed.
        CommandFailed: skopeo cannot read the manifest.
    """
    if _has_digest(served, digest):
        return served
    raw = _raw_manifest(imgref, digest, env)
    if _has_digest(raw, digest):
        return raw
    if not (_is_first_schema(raw) or _lists(raw, digest)):
        check_digest(f"the manifest of {imgref}", OciDigest.of(raw).hex, digest)
    _log.warning(
        "%s: the manifest %s cannot be read unchanged; storing the conversion by skopeo as %s",
        imgref,
        digest,
        OciDigest.of(served),
    )
    return served


def _raw_manifest(imgref: ImageReference, digest: OciDigest, env: Mapping[str, str]) -> bytes:
    """Return the stored document of an image: its manifest, or a list that names it."""
    reference = imgref
    if imgref.transport == "registry":
        # By digest: a tag may move meanwhile, or lead to a list.
        reference = imgref.with_digest(digest)
    argv = ["skopeo", "inspect", "--raw", *_auth_arguments(), _name(reference)]
    return process.run(argv, limit=ocispec.MAX_MANIFEST_BYTES, env=env).stdout


def _has_digest(raw: bytes, digest: OciDigest) -> bool:
    found = digest.new()
    found.update(raw)
    return found.hexdigest() == digest.hex


def _is_first_schema(raw: bytes) -> bool:
    try:
        return bool(json.loads(raw)["schemaVersion"] == 1)
    except (ValueError, RecursionError, LookupError, TypeError):
        return False


def _lists(raw: bytes, digest: OciDigest) -> bool:
    try:
        return digest in [entry.digest for entry in Index.parse(raw).manifests]
    except ImageSpecError:
        return False


@dataclass(frozen=True, slots=True)
class _Reply:
    value: Any
    pipe_id: int
    fd: int | None


class _Proxy:
    """The conversation with skopeo: one request, one reply, in turns."""

    def __init__(self, channel: socket.socket, child: process.Child) -> None:
        self._channel = channel
        self._child = child
        self.version: tuple[int, ...] = ()

    def initialize(self) -> None:
        value = self.ask("Initialize")
        if not isinstance(value, str) or not _VERSION.fullmatch(value):
            shown = f" {value!r:.40}" if isinstance(value, str) else ""
            raise SkopeoError(f"skopeo speaks an unknown protocol version{shown}")
        self.version = tuple(map(int, value.split(".")))
        _log.debug("skopeo image proxy %s", value)

    def call(self, method: str, *args: int | str) -> _Reply:
        self.send(method, *args)
        return self.receive()

    def ask(self, method: str, *args: int | str) -> Any:
        """Make a call whose reply is only a value."""
        reply = self.call(method, *args)
        if reply.fd is not None:
            os.close(reply.fd)
        return reply.value

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
        """Close the conversation without waiting for the outstanding reply."""
        self._channel.shutdown(socket.SHUT_RDWR)

    def _gone(self) -> Error:
        with contextlib.suppress(TimeoutError, process.CommandFailed):
            self._child.wait(_EXIT_TIMEOUT_S)
        return self._child.failure()


def _parse_reply(data: bytes, fd: int | None) -> _Reply:
    reply = _json(data)
    match reply:
        case {"success": True}:
            # Without a pipe, "pipeid" is missing or 0.
            pipe_id = reply.get("pipeid") or 0
            if type(pipe_id) is int and pipe_id in _PIPE_IDS:
                return _Reply(reply.get("value"), pipe_id, fd)
        case {"success": False, "error": str(text)}:
            raise SkopeoError(f"skopeo: {' '.join(text[:_MAX_ERROR].split())}")
    raise _nonsense(data)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise _nonsense(data) from exc


def _nonsense(data: bytes) -> SkopeoError:
    return SkopeoError(f"skopeo's reply makes no sense: {data[:200]!r}")


def _auth_arguments() -> list[str]:
    auth_file = next(filter(os.path.isfile, AUTH_FILES), None)
    return ["--authfile", auth_file] if auth_file else []


def _environment(image_store: str | None) -> dict[str, str]:
    env = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    if image_store is not None:
        given = env.get(_STORAGE_OPTIONS)
        options = [given] if given else []
        env[_STORAGE_OPTIONS] = ",".join([*options, f"additionalimagestore={image_store}"])
    return env


def _name(imgref: ImageReference) -> str:
    """Return the name of an image in the spelling of skopeo."""
    if imgref.transport == "containers-storage":
        # Here, unlike elsewhere, an image id is written without its algorithm.
        return f"containers-storage:{imgref.name.removeprefix('sha256:')}"
    return str(imgref)


@contextlib.contextmanager
def _proxy(env: Mapping[str, str], policy: EnforcedPolicy | None = None) -> Iterator[_Proxy]:
    argv = ["experimental-image-proxy", *_auth_arguments()]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.ExitStack() as stack:
        stack.enter_context(ours)
        fds: list[int] = []
        if policy is not None:
            fds.append(stack.enter_context(policy.opened()))
            argv = ["--policy", f"/proc/self/fd/{fds[0]}", *argv]
        with theirs:
            child = process.spawn(["skopeo", *argv], stdin=theirs.fileno(), env=env, pass_fds=fds)
        with child:
            proxy = _Proxy(ours, child)
            proxy.initialize()
            yield proxy
            # There is no reply: the child ends. After a failure, the block above stops it instead.
            proxy.send("Shutdown")
            child.wait(_EXIT_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class _Image:
    """An image opened in the proxy."""

    proxy: _Proxy
    number: int

    @classmethod
    def open(cls, proxy: _Proxy, imgref: ImageReference) -> _Image:
        number = proxy.ask("OpenImage", _name(imgref))
        if type(number) is not int:
            raise SkopeoError("skopeo's reply makes no sense: no number of an image")
        return cls(proxy, number)

    @contextlib.contextmanager
    def pipe(self, method: str, *args: int | str) -> Iterator[tuple[Any, Blob]]:
        """Make a call that answers with content. Leaving the block raises if the call failed."""
        reply = self.proxy.call(method, self.number, *args)
        if reply.fd is None:
            raise SkopeoError(f"skopeo's reply to {method} lacks a pipe")
        with open(reply.fd, "rb", buffering=0) as file:
            self.proxy.send("FinishPipe", reply.pipe_id)
            try:
                yield reply.value, _Pipe(file.fileno())
            except DigestMismatch:
                # If skopeo knows why bytes are missing or wrong, its error is raised instead.
                file.close()
                self.proxy.receive()
                raise
            except BaseException:
                self.proxy.abandon()
                raise
        self.proxy.receive()

    def document(self, method: str, limit: int) -> tuple[Any, bytes]:
        """Fetch a small document whose size is not known beforehand."""
        parts: list[bytes] = []
        size = 0
        with self.pipe(method) as (value, blob):
            while part := blob.read(CHUNK_BYTES):
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise SkopeoError(
                        f"skopeo's answer to {method} is too long: {limit} bytes are the limit"
                    )
        return value, b"".join(parts)

    @contextlib.contextmanager
    def blob(self, descriptor: Descriptor) -> Iterator[VerifiedBlob]:
        """Open a blob of the image."""
        with self.pipe("GetBlob", str(descriptor.digest), descriptor.size_bytes) as (_, pipe):
            yield VerifiedBlob(pipe.read, descriptor)

    def local_layers(self) -> tuple[Descriptor, ...]:
        """Return the layers as local storage holds them."""
        if self.proxy.version >= _PIPED_LAYER_INFO:
            infos = _json(self.document("GetLayerInfoPiped", ocispec.MAX_MANIFEST_BYTES)[1])
        elif self.proxy.version >= _LAYER_INFO:
            infos = self.proxy.ask("GetLayerInfo", self.number)
        else:
            raise SkopeoError(
                "this skopeo is too old to read local container storage",
                hint="version 1.11 and later can; or copy the image to an oci: directory first",
            )
        if not isinstance(infos, list):
            raise SkopeoError("skopeo's reply makes no sense: no list of layers")
        return tuple(map(_local_layer, infos))


class _Pipe:
    """A :class:`Blob` that reads a descriptor, which the caller owns."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int, /) -> bytes:
        return os.read(self._fd, size)


def _local_layer(info: Any) -> Descriptor:
    match info:
        case {"media_type": str(media_type), "digest": digest, "size": int(size)}:
            return Descriptor(media_type, _digest(digest), int(size), {})
    raise SkopeoError("skopeo's reply makes no sense: no description of a layer")


def _digest(value: Any) -> OciDigest:
    if not isinstance(value, str):
        raise SkopeoError("skopeo's reply makes no sense: no digest")
    try:
        return OciDigest.parse(value)
    except DigestError as exc:
        raise SkopeoError(f"skopeo's reply makes no sense: {exc}") from exc
