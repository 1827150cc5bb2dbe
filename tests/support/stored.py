"""Small images put into a repository as a pull does, and what then has to be there.

What is reported here is computed from what was stored, without the code that finds what
is reachable, so that the two can be compared.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from bootc.formats import splitstream
from bootc.formats.digest import Algorithm, Digest, OciDigest
from bootc.formats.erofs.reader import read_erofs
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.splitstream import StreamReader, StreamWriter
from bootc.formats.tree import Directory, External, Leaf, Stat
from bootc.formats.verity import verity_digest
from bootc.fs.atomic import OBJECT_PREFIX, SYMLINK_PREFIX
from bootc.repository.repository import Repository

#: Where a sync costs nothing, for tests that do many and need no extended attributes.
IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


@dataclass(frozen=True, slots=True)
class Stored:
    """An image in a repository."""

    manifest_id: str
    config_id: str
    layer_id: str
    image_id: str
    #: The stream its manifest's link leads to.
    manifest: Digest
    #: All objects its manifest leads to.
    objects: frozenset[Digest]


def tree(contents: Mapping[str, tuple[Digest, int]]) -> Directory:
    """Return a tree of files in objects."""
    root = Directory(Stat(mode=0o755))
    for name, (digest, size) in contents.items():
        root.entries[name.encode()] = Leaf(Stat(mode=0o644), External(digest, size))
    return root


class Store:
    """Stores images in a repository, which may be reopened meanwhile."""

    def __init__(self) -> None:
        #: Objects of the files of each image, by its id.
        self.files: dict[Digest, frozenset[Digest]] = {}
        #: The files themselves, by name.
        self.contents: dict[Digest, Mapping[str, bytes]] = {}

    def expect(
        self,
        algorithm: Algorithm,
        files: Mapping[str, bytes],
        *,
        image_key: str = "composefs.image.v1",
    ) -> bytes:
        """Return an image of files, and remember what is in it; nothing is stored.

        A process that is to store it and may die could not tell us afterwards.
        """
        contents = {
            name: (verity_digest(data, algorithm), len(data)) for name, data in files.items()
        }
        root = tree(contents)
        root.stat.xattrs[b"user.kind"] = image_key.encode()
        raw = mkfs_erofs(root)
        image = verity_digest(raw, algorithm)
        self.files[image] = frozenset(digest for digest, _ in contents.values())
        self.contents[image] = files
        return raw

    def add(
        self,
        repository: Repository,
        files: Mapping[str, bytes],
        *,
        note: str = "",
        tag: str | None = None,
        image_key: str = "composefs.image.v1",
    ) -> Stored:
        """Store an image of one layer.

        Args:
            repository: Where to.
            files: Content by name, all long enough to be objects.
            note: Makes a manifest differ from others of the same configuration.
            tag: Its name below ``refs/oci/``.
            image_key: What the configuration calls the image.
        """
        objects, streams = repository.objects, repository.streams
        contents = {name: (objects.put(data), len(data)) for name, data in files.items()}
        raw_image = self.expect(repository.algorithm, files, image_key=image_key)
        diff_id, config = _config_of(files)
        layer_id = f"oci-layer-{diff_id}"
        layer = StreamWriter(repository.algorithm, splitstream.OCI_LAYER)
        for name, (digest, size) in contents.items():
            layer.inline(name.encode())
            layer.external(digest, size)
        layer_object = streams.write(layer_id, layer.finish())

        image = repository.images.add(raw_image)
        config_id = f"oci-config-{OciDigest.of(config)}"
        named = {str(diff_id): layer_object, image_key: image}
        if streams.exists(config_id):
            named = StreamReader(streams.read(config_id)).named_refs | named
        config_object = self._document(repository, config_id, splitstream.OCI_CONFIG, config, named)
        manifest = _manifest_of(files, note)
        manifest_id = manifest_id_of(files, note)
        refs = {f"config:{config_id}": config_object, str(diff_id): layer_object}
        manifest_object = self._document(
            repository, manifest_id, splitstream.OCI_MANIFEST, manifest, refs
        )
        if tag is not None:
            streams.set_ref(f"oci/{tag}", manifest_id)
        images = [digest for key, digest in named.items() if key.startswith("composefs.image")]
        needed = {manifest_object, config_object, layer_object, *images}
        needed |= {objects.put(manifest), objects.put(config)}
        objects.flush()
        needed |= {digest for digest, _ in contents.values()}
        return Stored(
            manifest_id,
            config_id,
            layer_id,
            image.hex,
            manifest_object,
            frozenset(needed.union(*(self.files[image] for image in images))),
        )

    @staticmethod
    def _document(
        repository: Repository, name: str, kind: bytes, raw: bytes, named: Mapping[str, Digest]
    ) -> Digest:
        stream = StreamWriter(repository.algorithm, kind)
        # In an order of its own, so that doing it again gives the same stream.
        for key, digest in sorted(named.items()):
            stream.refer(key, digest)
        stream.external(repository.objects.put(raw), len(raw))
        return repository.streams.write(name, stream.finish())


def manifest_id_of(files: Mapping[str, bytes], note: str = "") -> str:
    """Return the content id that the manifest of an image of these files will have."""
    return f"oci-manifest-{OciDigest.of(_manifest_of(files, note))}"


def _config_of(files: Mapping[str, bytes]) -> tuple[OciDigest, bytes]:
    diff_id = OciDigest.of(repr(sorted(files.items())).encode())
    return diff_id, json.dumps({"diff_ids": [str(diff_id)]}).encode()


def _manifest_of(files: Mapping[str, bytes], note: str) -> bytes:
    config_id = f"oci-config-{OciDigest.of(_config_of(files)[1])}"
    return json.dumps({"config": config_id, "note": note}).encode()


def object_names(repository: Repository) -> set[str]:
    """Return the names of all objects on the disk."""
    with repository.dir.open_dir("objects") as objects:
        return {
            first + rest
            for first in objects.names()
            if not first.startswith(OBJECT_PREFIX)
            for rest in os.listdir(f"{objects.path}/{first}")
        }


def links(repository: Repository) -> dict[str, Digest]:
    """Return all links to streams and images, by name, with what they lead to."""
    found = {name: Digest.from_hex(name) for name in repository.images.names()}
    if repository.dir.exists("streams"):
        with repository.dir.open_dir("streams") as streams:
            for name in streams.names():
                if name != "refs":
                    found[name] = repository.streams.digest_of(name)
    return found


def leftovers(repository: Repository) -> list[str]:
    """Return the temporary names that interrupted writers left."""
    with repository.dir.open_dir("objects") as objects:
        names = repository.dir.names() + objects.names()
    return [name for name in names if name.startswith((OBJECT_PREFIX, SYMLINK_PREFIX))]


def check_objects(repository: Repository) -> None:
    """Fail unless every object's content is what its name says, needed or not."""
    for name in object_names(repository):
        repository.objects.read(Digest.from_hex(name))


def check_registered(repository: Repository) -> None:
    """Fail unless everything that has a link is whole, down to the content of its files."""
    seen: set[Digest] = set()
    pending = list(links(repository).values())
    while pending:
        digest = pending.pop()
        if digest in seen:
            continue
        seen.add(digest)
        data = repository.objects.read(digest)
        if data.startswith(splitstream.MAGIC):
            stream = StreamReader(data)
            pending += (*stream.stream_refs, *stream.object_refs)
        elif data[1024:1028] == b"\xe2\xe1\xf5\xe0":
            pending += [
                leaf.content.digest
                for leaf in read_erofs(data).entries.values()
                if isinstance(leaf, Leaf) and isinstance(leaf.content, External)
            ]
