from __future__ import annotations

import pytest

from bootc.boot.entries import NotOurEntry, artifact_dir, deployment_of, primary_entry
from bootc.formats.bls import Entry, serialise_entry
from bootc.formats.digest import Digest
from bootc.formats.osrelease import parse_os_release

ID = "ab" * 64
DEPLOYMENT = Digest.from_hex(ID)


def test_the_entry_of_an_installation_to_the_byte() -> None:
    release = parse_os_release(b'ID=fedora\nVERSION_ID=43\nPRETTY_NAME="Fedora Linux 43"\n')
    name, entry = primary_entry(DEPLOYMENT, release, f"root=UUID=1 rw composefs={ID}")
    assert name == "bootc_fedora-43-1.conf"
    assert serialise_entry(entry).decode() == (
        "title Fedora Linux 43\n"
        "version 43\n"
        f"linux /EFI/Linux/bootc_composefs-{ID}/vmlinuz\n"
        f"initrd /EFI/Linux/bootc_composefs-{ID}/initrd\n"
        f"options root=UUID=1 rw composefs={ID}\n"
        "sort-key bootc-fedora-0\n"
    )
    assert artifact_dir(DEPLOYMENT) == f"EFI/Linux/bootc_composefs-{ID}"


def test_an_image_that_does_not_say_what_it_is() -> None:
    name, entry = primary_entry(DEPLOYMENT, parse_os_release(b"PRETTY_NAME=' '"), "rw")
    assert name == f"bootc_bootc-{ID}-1.conf"
    assert (entry.title, entry.version, entry.sort_key) == (ID, ID, "bootc-bootc-0")


@pytest.mark.parametrize("mark", ["", "?"])
def test_an_entry_tells_its_deployment(mark: str) -> None:
    entry = Entry(version="1", linux="/elsewhere/vmlinuz", options=f"rw composefs={mark}{ID}")
    assert deployment_of(entry) == DEPLOYMENT


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (Entry(version="1", uki="/a.efi"), "it starts an EFI program and not a kernel"),
        (Entry(version="1", linux="/v"), "no composefs image in the kernel command line"),
        (Entry(version="1", linux="/v", options="composefs=zz"), "composefs=zz"),
    ],
)
def test_entries_of_others(entry: Entry, message: str) -> None:
    with pytest.raises(NotOurEntry, match=message):
        deployment_of(entry)
