"""The menu entry of a deployment, as a value.

Owns the names which tie a deployment to its files on the ESP. Pure: nothing
here reads or writes a file system. A kernel and its initramfs lie in
``EFI/Linux/bootc_composefs-<image id>/`` as ``vmlinuz`` and ``initrd``, and the
entry in ``loader/entries/bootc_<os id>-<version>-<priority>.conf`` names them.
Several deployments may use one kernel, so a deployment is told from an entry by
its ``composefs=`` argument and never by the path of the kernel.
"""

from __future__ import annotations

from bootc.errors import Error
from bootc.formats import bls, cmdline
from bootc.formats.bls import Entry
from bootc.formats.cmdline import CmdlineError
from bootc.formats.digest import Digest
from bootc.formats.osrelease import OsRelease

ENTRIES = "loader/entries"
#: Entries which finalising the next boot will exchange with :data:`ENTRIES`.
STAGED_ENTRIES = "loader/entries.staged"
VMLINUZ = "vmlinuz"
INITRD = "initrd"

_BINARIES = "EFI/Linux"
_PREFIX = "bootc_composefs-"
#: Who an image is that does not say.
_DEFAULT_OS_ID = "bootc"


class NotOurEntry(Error):
    """A boot entry that starts no deployment of composefs."""


def artifact_dir(deployment: Digest) -> str:
    """Directory of a deployment's kernel and initramfs, below the ESP."""
    return f"{_BINARIES}/{_PREFIX}{deployment.hex}"


def primary_entry(deployment: Digest, os_release: OsRelease, options: str) -> tuple[str, Entry]:
    """Return file name and content of the entry that boots ``deployment`` by default.

    ``options`` is the whole kernel command line, ``composefs=`` included. An image
    without os-release (``OsRelease({})``) is titled by its image id.
    """
    os_id = os_release.id or _DEFAULT_OS_ID
    version = os_release.version or deployment.hex
    directory = artifact_dir(deployment)
    entry = Entry(
        title=os_release.title or deployment.hex,
        version=version,
        linux=f"/{directory}/{VMLINUZ}",
        initrd=(f"/{directory}/{INITRD}",),
        options=options,
        sort_key=bls.sort_key(os_id, 0),
    )
    return bls.entry_file_name(os_id, version, 1), entry


def deployment_of(entry: Entry) -> Digest:
    """Tell which deployment an entry boots.

    Raises:
        NotOurEntry: it boots something else, or something this version cannot read.
    """
    if entry.linux is None:
        raise NotOurEntry("it starts an EFI program and not a kernel")
    try:
        return Digest.from_hex(cmdline.composefs_argument(entry.options or "").hex)
    except CmdlineError as exc:
        raise NotOurEntry(exc.message) from None
