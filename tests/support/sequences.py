"""Random sequences of everything that is done to a repository, and what then has to hold.

One machine for all places: in memory (tests/property), and on a file system of its own
with images mounted (tests/host). What each reference must keep is counted beside the
repository, when images are stored. Any change may be done by another process that dies
in the middle of it; then the sequence goes on from whatever is left.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bootc.formats.digest import Algorithm, Digest
from bootc.fs.dir import Dir
from bootc.repository.gc import collect
from bootc.repository.repository import Repository
from bootc.repository.sealing import Verity
from support.failing import dies, without_nameless_files
from support.stored import (
    Store,
    Stored,
    check_objects,
    check_registered,
    leftovers,
    links,
    manifest_id_of,
    object_names,
)

FILES = st.dictionaries(
    st.sampled_from("abc"),
    st.sampled_from([b"1" * 65, b"2" * 4096, b"3" * 5000]),
    min_size=1,
)
NOTES = ("", "other")
KEYS = ("composefs.image.v1", "composefs.image.boot.v1", "composefs.image")
TAGS = ("a", "deep/b")
#: The change at which another process dies, if it comes to that; None for this process.
DEATHS = st.none() | st.integers(1, 60)
EARLY_DEATHS = st.none() | st.integers(1, 4)

Work = Callable[[Repository], object]


class StoreMachine(RuleBasedStateMachine):
    """A repository, and what each tag must keep.

    Args:
        home: The directory to make it in.
        verity: The kernel's ioctls. The repository is not secure.
    """

    def __init__(self, home: str | None, verity: Verity) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.home = home
        self.verity = verity
        self.store = Store()
        #: By manifest, as long as it has a link.
        self.stored: dict[str, Stored] = {}
        #: Manifests by the names of references.
        self.tags: dict[str, str] = {}

    @initialize(algorithm=st.sampled_from(Algorithm), nameless=st.booleans(), files=FILES)
    def create(self, algorithm: Algorithm, nameless: bool, files: dict[str, bytes]) -> None:
        root = self.stack.enter_context(tempfile.TemporaryDirectory(dir=self.home))
        self.parent = self.stack.enter_context(Dir.open(root))
        if not nameless:
            self.stack.enter_context(without_nameless_files())
        self.algorithm = algorithm
        self.repository = self.opened()
        self.store_image(files, NOTES[0], KEYS[0], TAGS[0], None)

    def opened(self) -> Repository:
        return Repository.create(
            self.parent, algorithm=self.algorithm, secure=False, verity=self.verity
        )

    def change(self, at: int | None, work: Work) -> bool:
        """Do something; tell whether the process that did it died before its end."""
        if at is None:
            work(self.repository)
            return False
        self.repository.close()

        def reopen_and_work() -> None:
            with self.opened() as repository:
                work(repository)

        died = dies(at, reopen_and_work)
        self.repository = self.opened()
        # Before anything is done again, which would heal it.
        check_objects(self.repository)
        check_registered(self.repository)
        return died

    def live(self, *roots: Stored) -> set[str]:
        """Return the names of the objects that tags keep, and images at the roots."""
        kept = {digest for name in self.tags.values() for digest in self.stored[name].objects}
        for root in roots:
            image = Digest.from_hex(root.image_id)
            kept |= {image, *self.store.files[image]}
        return {digest.hex for digest in kept}

    def any_stored(self, data: st.DataObject) -> Stored:
        return self.stored[data.draw(st.sampled_from(sorted(self.stored)))]

    # -- what is done

    @rule(
        files=FILES,
        note=st.sampled_from(NOTES),
        key=st.sampled_from(KEYS),
        tag=st.sampled_from((*TAGS, None)),
        at=DEATHS,
    )
    def store_image(
        self, files: dict[str, bytes], note: str, key: str, tag: str | None, at: int | None
    ) -> None:
        manifest_id = manifest_id_of(files, note)
        self.store.expect(self.algorithm, files, image_key=key)

        def work(repository: Repository) -> None:
            self.store.add(repository, files, note=note, tag=tag, image_key=key)

        died = self.change(at, work)
        found = links(self.repository).get(manifest_id)
        before = self.stored.get(manifest_id)
        if found != (before and before.manifest):
            # What the manifest leads to is there: doing it again changes nothing, and tells us.
            again = self.store.add(self.repository, files, note=note, image_key=key)
            assert again.manifest == found
            self.stored[manifest_id] = again
        else:
            assert died or found is not None
        if tag is not None:
            self.settle(f"oci/{tag}", manifest_id, died)

    @precondition(lambda self: self.stored)
    @rule(tag=st.sampled_from(TAGS), data=st.data(), at=EARLY_DEATHS)
    def set_tag(self, tag: str, data: st.DataObject, at: int | None) -> None:
        ref, name = f"oci/{tag}", self.any_stored(data).manifest_id
        died = self.change(at, lambda repository: repository.streams.set_ref(ref, name))
        self.settle(ref, name, died)

    @precondition(lambda self: self.tags)
    @rule(data=st.data(), at=EARLY_DEATHS)
    def untag(self, data: st.DataObject, at: int | None) -> None:
        ref = data.draw(st.sampled_from(sorted(self.tags)))
        died = self.change(at, lambda repository: repository.streams.remove_ref(ref))
        self.settle(ref, None, died)

    def settle(self, ref: str, manifest_id: str | None, died: bool) -> None:
        """Note what a reference says: what it should, or after a death perhaps what it did."""
        found = self.repository.streams.refs().get(ref)
        assert found == manifest_id or (died and found == self.tags.get(ref))
        if found is None:
            self.tags.pop(ref, None)
        else:
            self.tags[ref] = found

    @rule(content=st.binary(min_size=1, max_size=100), at=EARLY_DEATHS)
    def put(self, content: bytes, at: int | None) -> None:
        self.change(at, lambda repository: repository.objects.put(content))

    @rule(keep=st.booleans(), data=st.data())
    def collect_garbage(self, keep: bool, data: st.DataObject) -> None:
        roots = [self.any_stored(data)] if keep and self.stored else []
        names = [root.image_id for root in roots]
        planned = collect(self.repository, roots=names, dry_run=True)
        before = object_names(self.repository)
        assert collect(self.repository, roots=names) == planned
        after = object_names(self.repository)
        assert after == self.live(*roots)
        assert len(before - after) == planned.objects_removed
        assert planned.warnings == ()
        self.see_links(*roots)
        assert leftovers(self.repository) == []
        self.forget_unlinked()
        assert set(self.stored) == set(self.tags.values())
        again = collect(self.repository, roots=names, dry_run=True)
        assert (again.objects_removed, again.streams_pruned, again.images_pruned) == (0, 0, 0)

    def see_links(self, *roots: Stored) -> None:
        """Fail unless exactly what is needed has a link.

        Of a configuration that is its object only, to which its manifest refers: the link leads to
        what was stored last under that name, and goes when nobody needs that.
        """
        found = links(self.repository)
        assert {digest.hex for digest in found.values()} <= self.live(*roots)
        for name in self.tags.values():
            stored = self.stored[name]
            assert found[name] == stored.manifest
            assert {stored.layer_id, stored.image_id} <= found.keys()
        assert {root.image_id for root in roots} <= found.keys()

    @rule(at=st.integers(1, 40))
    def collect_garbage_in_vain(self, at: int) -> None:
        self.change(at, collect)
        assert object_names(self.repository) >= self.live()
        self.forget_unlinked()
        assert set(self.stored) >= set(self.tags.values())

    def forget_unlinked(self) -> None:
        found = links(self.repository)
        self.stored = {name: stored for name, stored in self.stored.items() if name in found}

    @rule()
    def reopen(self) -> None:
        self.repository.close()
        self.repository = Repository.open(
            self.parent, require_verity=False, writable=True, verity=self.verity
        )

    # -- what holds

    @invariant()
    def what_has_a_link_is_whole(self) -> None:
        check_registered(self.repository)
        assert self.repository.streams.refs() == self.tags

    def teardown(self) -> None:
        if hasattr(self, "repository"):
            self.repository.close()
        self.stack.close()
