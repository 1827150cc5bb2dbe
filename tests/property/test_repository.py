"""Whatever is done to a repository in whatever order, what it holds stays true."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.repository.links import decode_tag, encode_tag
from bootc.repository.repository import Repository
from support.verity import FakeVerity

CONTENTS = st.binary(max_size=200) | st.binary(min_size=4090, max_size=4100)
CONTENT_IDS = st.sampled_from(["oci-config-sha256:1", "oci-layer-sha256:2", "x"])
REFS = st.sampled_from(["a", "oci/a", "oci/b", "deep/er/still"])


class RepositoryMachine(RuleBasedStateMachine):
    """A repository beside three dictionaries that say what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.objects: dict[Digest, bytes] = {}
        self.streams: dict[str, bytes] = {}
        self.refs: dict[str, str] = {}
        self.images: set[str] = set()

    @initialize(secure=st.booleans(), algorithm=st.sampled_from(Algorithm))
    def create(self, secure: bool, algorithm: Algorithm) -> None:
        self.root = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.parent = self.stack.enter_context(Dir.open(self.root))
        self.secure = secure
        self.verity = FakeVerity(error=None if secure else 95)
        self.algorithm = algorithm
        self.repository = self.opened(Repository.create)

    def opened(self, how: Callable[..., Repository]) -> Repository:
        return how(self.parent, algorithm=self.algorithm, secure=self.secure, verity=self.verity)

    @rule(data=CONTENTS)
    def put(self, data: bytes) -> None:
        digest = self.repository.objects.put(data)
        assert digest == verity_digest(data, self.algorithm)
        self.objects[digest] = data

    @rule(pieces=st.lists(CONTENTS, max_size=4), commit=st.booleans())
    def write(self, pieces: list[bytes], commit: bool) -> None:
        with self.repository.objects.writer() as writer:
            for piece in pieces:
                writer.write(piece)
            if commit:
                self.objects[writer.commit()] = b"".join(pieces)

    @rule(content_id=CONTENT_IDS, data=CONTENTS)
    def write_stream(self, content_id: str, data: bytes) -> None:
        self.objects[self.repository.streams.write(content_id, data)] = data
        self.streams[content_id] = data

    @rule(name=REFS, content_id=CONTENT_IDS)
    def set_ref(self, name: str, content_id: str) -> None:
        self.repository.streams.set_ref(name, content_id)
        self.refs[name] = content_id

    @rule(name=REFS)
    def remove_ref(self, name: str) -> None:
        if name in self.refs:
            self.repository.streams.remove_ref(name)
            del self.refs[name]
        else:
            with pytest.raises(FileNotFoundError):
                self.repository.streams.remove_ref(name)

    @rule(data=CONTENTS)
    def add_image(self, data: bytes) -> None:
        digest = self.repository.images.add(data)
        self.objects[digest] = data
        self.images.add(digest.hex)

    @rule()
    def reopen(self) -> None:
        self.repository.close()
        self.repository = self.opened(Repository.create)

    @rule(digest=st.data())
    def lose_an_object_and_store_it_again(self, digest: st.DataObject) -> None:
        if not self.objects:
            return
        lost = digest.draw(st.sampled_from(sorted(self.objects, key=str)))
        path = f"{self.root}/composefs/objects/{lost.object_path}"
        self.repository.objects.flush()
        os.unlink(path)
        with open(path, "wb"):  # as a power cut leaves it
            pass
        assert self.repository.objects.put(self.objects[lost]) == lost

    @invariant()
    def everything_is_there_and_nothing_else(self) -> None:
        repository = self.repository
        repository.objects.flush()
        assert {d: repository.objects.read(d) for d in self.objects} == self.objects
        assert {i: repository.streams.read(i) for i in self.streams} == self.streams
        assert repository.streams.refs() == self.refs
        assert repository.images.names() == sorted(self.images)
        files = [
            os.path.relpath(os.path.join(where, name), f"{self.root}/composefs/objects")
            for where, _, names in os.walk(f"{self.root}/composefs/objects")
            for name in names
        ]
        assert sorted(files) == sorted(digest.object_path for digest in self.objects)

    def teardown(self) -> None:
        if hasattr(self, "repository"):
            self.repository.close()
        self.stack.close()


TestRepository = RepositoryMachine.TestCase
TestRepository.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@settings(derandomize=True)
@given(st.text())
def test_any_tag_is_one_component_and_comes_back(tag: str) -> None:
    assert "/" not in encode_tag(tag)
    assert decode_tag(encode_tag(tag)) == tag
