"""Status has an answer for any system, and every deployment has one place in it."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from bootc.boot.findings import Finding, FindingKind
from bootc.boot.loader import Bootloader, LoaderTraces
from bootc.boot.menu_read import Item, Menu
from bootc.boot.scheme import Scheme
from bootc.cli.render.status import status_text
from bootc.cli.render.structured import render_json
from bootc.deploy.host.boot_state import BootedState, Staged
from bootc.deploy.host.facts import Facts, ImageFacts, StateFacts
from bootc.deploy.host.gather import gather
from bootc.deploy.host.model import BootEntry, Host, ImageSpec, ImageStatus
from bootc.deploy.host.notes import FinalizeFailure
from bootc.deploy.host.status import compose_host
from bootc.formats import bls, grubcfg
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.origin import BootType, Origin, Signature
from support.bootdirs import MENU_BOOT_TYPES
from support.schemas import problems
from support.sysroot import IMAGE, FakeSysroot, image_id

IDS = [image_id(byte) for byte in ("aa", "bb", "cc", "dd", "ee")]
MANIFESTS = [OciDigest("sha256", byte * 32) for byte in ("11", "22")]
ids = st.sampled_from(IDS)
text = st.text(max_size=12)
names = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda name: name not in (".", ".."))


@st.composite
def items(draw: st.DrawFn) -> Item:
    deployment = draw(ids)
    options = draw(
        st.sampled_from([None, "", "rw", f"rw composefs=?{deployment}", f"composefs={deployment}"])
    )
    entries: list[bls.Entry | grubcfg.MenuEntry] = [
        bls.Entry(version="1", linux="/v", options=options),
        bls.Entry(version="1", uki="/u.efi", options=options),
        grubcfg.MenuEntry("x"),
    ]
    return Item(draw(text), deployment, draw(st.none() | text), draw(st.sampled_from(entries)))


findings = st.builds(Finding, st.sampled_from(FindingKind), st.text(), st.text())
menus = st.builds(
    lambda found: Menu(tuple(found)),
    st.lists(items(), max_size=6),
)
origins = st.builds(
    Origin,
    image=st.none() | st.just(IMAGE),
    boot_type=st.sampled_from(BootType),
    boot_digest=st.none() | st.sampled_from(["b0" * 32, "b1" * 32]),
    manifest_digest=st.none() | st.sampled_from(MANIFESTS),
    signature=st.none() | st.just(Signature()),
)
images = st.builds(
    ImageStatus, st.just(ImageSpec(IMAGE)), st.sampled_from(MANIFESTS), st.just("amd64")
)
staged = st.none() | st.builds(Staged, ids, st.booleans())


@st.composite
def states(draw: st.DrawFn) -> dict[Digest, StateFacts]:
    return {
        deployment: StateFacts(
            deployment,
            draw(st.none() | origins),
            pinned=draw(st.booleans()),
            failure=draw(st.none() | st.builds(FinalizeFailure, text)),
            legacy_image=draw(st.none() | images),
        )
        for deployment in draw(st.sets(ids))
    }


booted_states = st.builds(
    BootedState,
    ids,
    st.booleans(),
    st.sampled_from(Bootloader),
    staged,
    selinux=st.booleans(),
)
any_facts = st.builds(
    Facts,
    booted=booted_states,
    scheme=st.builds(Scheme, st.sampled_from(Bootloader), st.sampled_from(BootType)),
    active=menus,
    staged=menus,
    states=states(),
    images=st.dictionaries(st.sampled_from(MANIFESTS), st.just(ImageFacts("amd64"))),
    cached_update=st.none() | images,
    findings=st.lists(findings, max_size=2).map(tuple),
)


def entries_of(host: Host) -> list[BootEntry]:
    slots = (host.status.staged, host.status.booted, host.status.rollback)
    return [*(entry for entry in slots if entry is not None), *host.status.other_deployments]


def check(facts: Facts) -> Host:
    host = compose_host(facts)
    assert problems("host", host.to_json()) == []
    shown = [entry.composefs.verity for entry in entries_of(host)]
    assert len(shown) == len(set(shown))
    assert set(shown) == {
        facts.booted.image_id,
        *facts.bootable(),
        *filter(None, [facts.staged_id()]),
    }
    for entry in entries_of(host):
        assert entry.pinned is facts.is_pinned(entry.composefs.verity)
        assert entry.download_only <= (entry is host.status.staged)
    assert host.status.booted is not None
    assert host.status.booted.composefs.verity == facts.booted.image_id
    assert host.status.rollback_queued is (host.spec.boot_order == "rollback")
    if host.status.rollback_queued:
        assert host.status.rollback is not None
        assert facts.bootable()[0] == host.status.rollback.composefs.verity
    render_json(host.to_json()).encode()
    status_text(host, verbose=True).encode()
    return host


@given(any_facts)
def test_any_facts_make_a_host(facts: Facts) -> None:
    check(facts)


#: What can lie in the way of anything.
Litter = Callable[[Path], object]


def _file(data: bytes) -> Litter:
    return lambda path: path.write_bytes(data)


litter = st.one_of(
    st.binary(max_size=64).map(_file),
    st.just(_file(b"x" * (2 << 20))),
    st.just(lambda path: path.mkdir()),
    st.just(os.mkfifo),
    st.just(lambda path: path.symlink_to("/nowhere")),
    st.just(lambda path: path.symlink_to(path.name)),
    st.just(lambda path: path.symlink_to("/etc/passwd")),
)
entry_files = st.builds(
    lambda key, value, options: f"version 1\n{key} {value}\noptions {options}\n".encode(),
    st.sampled_from(["linux", "uki", "efi"]),
    st.sampled_from(["/v", f"/EFI/Linux/bootc/bootc_composefs-{IDS[0]}.efi", "relative"]),
    st.sampled_from([f"composefs={IDS[1]}", f"composefs=?{IDS[2]}", "composefs=x", "rw"]),
)


@st.composite
def litters(draw: st.DrawFn) -> list[tuple[str, Litter]]:
    """Return what is put where, by places relative to where a fake system is."""
    deployment = draw(ids).hex
    state = f"sysroot/state/deploy/{deployment}"
    places = st.one_of(
        st.builds("{}/{}".format, st.sampled_from(["menu", "staged"]), names),
        st.builds("{}/{}.conf".format, st.sampled_from(["menu", "staged"]), names),
        st.builds("sysroot/state/deploy/{}".format, names),
        st.sampled_from(
            [
                "menu/bootc_fedora-43-1.conf",
                "menu",
                "staged",
                "run/staged-deployment",
                "sysroot/state",
                "sysroot/state/deploy",
                state,
                f"{state}/{deployment}.origin",
                f"{state}/{deployment}.imginfo",
                f"{state}/pinned",
                "run/cached-update.json",
                f"{state}/finalize-failure.json",
                "sysroot/composefs/streams",
            ]
        ),
    )
    return draw(st.lists(st.tuples(places, litter | entry_files.map(_file)), max_size=6))


def put(system: FakeSysroot, top: Path, place: str, make: Litter) -> None:
    first, _, rest = place.partition("/")
    menus = {"menu": system.scheme.entries, "staged": system.scheme.staged}
    path = top / place
    if first in menus:
        path = system.menu / menus[first] / rest
    if path.is_symlink() or path.exists():  # what was there before gives way
        aside = top / "aside"
        aside.mkdir(exist_ok=True)
        path.rename(aside / str(len(list(aside.iterdir()))))
    # Something else may lie where a directory above should be.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
    except OSError as exc:
        if exc.errno not in (errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.ELOOP):
            raise


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(Bootloader),
    st.sampled_from(BootType),
    st.lists(ids, unique=True, max_size=3),
    litters(),
)
def test_any_directories_make_a_host(
    loader: Bootloader,
    boot_type: BootType,
    deployments: list[Digest],
    found: list[tuple[str, Litter]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        system = FakeSysroot(top, loader, boot_type)
        for deployment in deployments:
            system.add_state(deployment)
        # ukiboot and Android have no menu of files.
        has_menu = loader is not Bootloader.UKIBOOT and boot_type in MENU_BOOT_TYPES
        if deployments and has_menu:
            system.set_menu(*deployments)
            system.set_menu(*reversed(deployments), staged=True)
            system.announce(deployments[-1])
        for place, make in found:
            put(system, top, place, make)
        with system.open(BootedState(IDS[0], False, LoaderTraces(loader))) as sysroot:
            facts = gather(sysroot)
        host = check(facts)
        assert {entry.composefs.verity for entry in entries_of(host)} <= set(IDS)
        if not found and has_menu:
            assert not facts.findings or IDS[0] not in deployments
            assert set(facts.bootable()) == set(deployments)
