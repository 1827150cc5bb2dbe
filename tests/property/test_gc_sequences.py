"""Whatever is stored, tagged, collected and interrupted: what is reachable stays, and only that.

What is reachable is counted beside the repository, when images are stored.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bootc.formats.digest import Algorithm, Digest
from bootc.fs.dir import Dir
from bootc.repository.gc import collect
from bootc.repository.repository import Repository
from support.failing import dies
from support.stored import IN_MEMORY, Store, Stored, check_registered, object_names
from support.verity import FakeVerity

FILES = st.dictionaries(
    st.sampled_from("abc"),
    st.sampled_from([b"1" * 65, b"2" * 4096, b"3" * 5000]),
    min_size=1,
)
NOTES = st.sampled_from(["", "other"])
KEYS = st.sampled_from(["composefs.image.v1", "composefs.image.boot.v1", "composefs.image"])
TAGS = st.sampled_from(["a", "b", "deep/c"])


class CollectionMachine(RuleBasedStateMachine):
    """A repository, and what each tag must keep."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.store = Store()
        #: By manifest, as long as it has a link.
        self.stored: dict[str, Stored] = {}
        self.tags: dict[str, str] = {}

    @initialize(algorithm=st.sampled_from(Algorithm))
    def create(self, algorithm: Algorithm) -> None:
        root = self.stack.enter_context(tempfile.TemporaryDirectory(dir=IN_MEMORY))
        self.parent = self.stack.enter_context(Dir.open(root))
        self.algorithm = algorithm
        self.repository = self.opened()

    def opened(self) -> Repository:
        return Repository.create(
            self.parent, algorithm=self.algorithm, secure=False, verity=FakeVerity(error=95)
        )

    def live(self, *roots: Stored) -> set[str]:
        kept = {d for name in self.tags.values() for d in self.stored[name].objects}
        for root in roots:
            image = Digest.from_hex(root.image_id)
            kept |= {image, *self.store.files[image]}
        return {digest.hex for digest in kept}

    @rule(files=FILES, note=NOTES, key=KEYS, tag=TAGS | st.none())
    def store_image(self, files: dict[str, bytes], note: str, key: str, tag: str | None) -> None:
        stored = self.store.add(self.repository, files, note=note, tag=tag, image_key=key)
        # A manifest stored again leads to what its configuration says now.
        self.stored[stored.manifest_id] = stored
        if tag is not None:
            self.tags[f"oci/{tag}"] = stored.manifest_id

    @rule(files=FILES, note=NOTES, key=KEYS, tag=TAGS, at=st.integers(1, 60))
    def store_image_interrupted(
        self, files: dict[str, bytes], note: str, key: str, tag: str, at: int
    ) -> None:
        self.repository.close()

        def work() -> None:
            with self.opened() as repository:
                self.store.add(repository, files, note=note, tag=tag, image_key=key)

        dies(at, work)
        self.repository = self.opened()
        # How far it came does not matter: it is done again.
        self.store_image(files, note, key, tag)

    @rule(tag=TAGS, data=st.data())
    def set_tag(self, tag: str, data: st.DataObject) -> None:
        if self.stored:
            manifest_id = data.draw(st.sampled_from(sorted(self.stored)))
            self.repository.streams.set_ref(f"oci/{tag}", manifest_id)
            self.tags[f"oci/{tag}"] = manifest_id

    @rule(data=st.data())
    def untag(self, data: st.DataObject) -> None:
        if self.tags:
            name = data.draw(st.sampled_from(sorted(self.tags)))
            self.repository.dir.unlink(f"streams/refs/{name}")
            del self.tags[name]

    @rule(content=st.binary(min_size=1, max_size=100))
    def put(self, content: bytes) -> None:
        self.repository.objects.put(content)

    @rule(keep=st.booleans(), data=st.data())
    def collect_garbage(self, keep: bool, data: st.DataObject) -> None:
        roots = []
        if keep and self.stored:
            roots.append(self.stored[data.draw(st.sampled_from(sorted(self.stored)))])
        self.collected(roots)

    def collected(self, roots: list[Stored]) -> None:
        names = [root.image_id for root in roots]
        planned = collect(self.repository, roots=names, dry_run=True)
        before = object_names(self.repository)
        assert collect(self.repository, roots=names) == planned
        after = object_names(self.repository)
        assert after == self.live(*roots)
        assert len(before - after) == planned.objects_removed
        assert planned.warnings == ()
        kept = set(self.tags.values())
        self.stored = {name: stored for name, stored in self.stored.items() if name in kept}
        assert collect(self.repository, roots=names).objects_removed == 0

    @rule(at=st.integers(1, 40))
    def collect_garbage_interrupted(self, at: int) -> None:
        self.repository.close()

        def work() -> None:
            with self.opened() as repository:
                collect(repository)

        dies(at, work)
        self.repository = self.opened()
        assert object_names(self.repository) >= self.live()
        check_registered(self.repository)
        self.collected([])

    @rule()
    def reopen(self) -> None:
        self.repository.close()
        self.repository = self.opened()

    @invariant()
    def what_has_a_link_is_whole(self) -> None:
        check_registered(self.repository)
        assert self.repository.streams.refs() == self.tags

    def teardown(self) -> None:
        if hasattr(self, "repository"):
            self.repository.close()
        self.stack.close()


TestCollection = CollectionMachine.TestCase
TestCollection.settings = settings(
    max_examples=30,
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
