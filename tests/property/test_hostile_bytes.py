"""Every parser takes any document of its kind, and survives what became of damaged ones.

The promises are those of the fuzzers (``fuzz/targets.py``). What is made here are the
documents; tar archives, streams, dumpfiles and images are the corpus's, as they have
property tests of their own.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootc.formats import bls, cmdline, grubcfg, imgref, ocispec, origin
from bootc.formats.digest import Algorithm, Digest, OciDigest
from bootc.repository.metadata import ErofsFormats, Metadata
from fuzz.targets import TARGETS
from support.pe import UKI_SECTIONS, program

words = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1)
texts = st.lists(words, min_size=1, max_size=4).map(" ".join)
digests = st.binary(min_size=64, max_size=64).map(lambda raw: Digest(Algorithm.SHA512, raw))
oci_digests = st.binary(max_size=8).map(OciDigest.of)

entries = st.builds(
    bls.Entry,
    version=texts,
    title=st.none() | texts,
    linux=words,
    initrd=st.lists(words, max_size=3).map(tuple),
    options=st.none() | texts,
    machine_id=st.none() | words,
    sort_key=st.none() | words,
    extra=st.lists(st.tuples(st.sampled_from(["a", "devicetree", "x-y"]), texts)).map(tuple),
)
references = st.builds(imgref.ImageReference.of, st.sampled_from(imgref.TRANSPORTS), words)
origins = st.builds(
    origin.Origin,
    image=st.none() | references,
    boot_type=st.sampled_from(origin.BootType),
    boot_digest=st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex),
    manifest_digest=st.none() | oci_digests,
)
menus = st.lists(st.builds(grubcfg.uki_entry, st.text(), digests, st.just("/EFI/Linux/x.efi")))
command_lines = st.builds(
    lambda params, digest, optional: cmdline.join(
        [*params, cmdline.composefs_karg(digest.hex, optional=optional)]
    ),
    st.lists(words.filter(lambda w: '"' not in w and not w.lower().startswith("composefs"))),
    digests,
    st.booleans(),
)
os_releases = st.lists(
    st.tuples(st.sampled_from(["ID", "NAME", "PRETTY_NAME", "VERSION_ID"]), st.text())
).map(lambda pairs: "".join(f'{key}="{value}"\n' for key, value in pairs))
metadatas = st.builds(
    Metadata,
    algorithm=st.sampled_from(Algorithm),
    compatible=st.lists(words, max_size=3).map(tuple),
    erofs_formats=st.builds(ErofsFormats, st.sampled_from([0, 1, 2]), st.just((0, 1))),
)
descriptors = st.fixed_dictionaries(
    {
        "mediaType": st.sampled_from(sorted(ocispec.MANIFEST_TYPES)),
        "digest": oci_digests.map(str),
        "size": st.integers(0, 2**63 - 1),
    },
    optional={
        "annotations": st.dictionaries(texts, texts, max_size=3),
        "platform": st.fixed_dictionaries({"architecture": words, "os": words}),
        "future": st.none() | texts,
    },
)
indexes = st.fixed_dictionaries(
    {"schemaVersion": st.just(2), "manifests": st.lists(descriptors, max_size=3)}
)
ukis = st.lists(st.tuples(st.binary(min_size=1, max_size=8), st.binary(max_size=99)), max_size=3)


def corpus(name: str) -> st.SearchStrategy[bytes]:
    return st.sampled_from([path.read_bytes()[: 1 << 16] for path in TARGETS[name].seeds()])


DOCUMENTS: dict[str, st.SearchStrategy[bytes]] = {
    "bls": entries.map(bls.serialise_entry),
    "cmdline": command_lines.map(str.encode),
    "grubcfg": menus.map(grubcfg.serialise_menu),
    "imgref": references.map(lambda reference: str(reference).encode()),
    "metadata": metadatas.map(Metadata.to_bytes),
    "ocispec": indexes.map(lambda index: json.dumps(index).encode()),
    "origin": origins.map(origin.serialise_origin),
    "osrelease": os_releases.map(str.encode),
    "pe": ukis.map(lambda sections: program(*UKI_SECTIONS, *sections)),
}


@st.composite
def damaged(draw: st.DrawFn, documents: st.SearchStrategy[bytes], tokens: list[bytes]) -> bytes:
    """Documents with up to three pieces replaced, doubled or lost."""
    data = draw(documents)
    pieces = st.binary(max_size=9) | st.sampled_from([*tokens, b"\0", b"\xff" * 8])
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 64)) | st.just(len(data)))
        piece = draw(pieces | st.just(data[start:end] * 2))
        data = data[:start] + piece + data[end:]
    return data


@pytest.mark.parametrize("name", DOCUMENTS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_documents_are_accepted(name: str, data: st.DataObject) -> None:
    TARGETS[name].check(data.draw(DOCUMENTS[name]))


@pytest.mark.parametrize("name", TARGETS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damaged_documents_are_survived(name: str, data: st.DataObject) -> None:
    documents = corpus(name)
    if name in DOCUMENTS:
        documents |= DOCUMENTS[name]
    TARGETS[name].run(data.draw(damaged(documents, list(TARGETS[name].tokens))))
