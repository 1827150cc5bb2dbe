"""Reports that a sealed image was started by a firmware that checks no signature.

The initramfs checks the image by a digest in the kernel command line. Only Secure Boot checks
the unified kernel image (UKI) that holds the command line. The report does not stop the boot: a
firmware that checks nothing could as well start a UKI without it. The journal keeps it.

A boot entry without UKI is not reported, because no signature covers its command line anyway. Nor
is a command line that tolerates missing fs-verity, because its image is not sealed.

Sources: UEFI specification 2.10, "Globally Defined Variables"; systemd-stub(7), ``StubInfo``.
"""

from __future__ import annotations

from bootc.kernel import efivars

UNCHECKED = (
    "Secure Boot is {state}, so the firmware did not check the unified kernel image that starts "
    "this sealed image; bootc status tells what protects this machine"
)


def unchecked_uki(*, root: str = efivars.EFIVARS) -> str | None:
    """Return the report if a stub started the kernel and the firmware did not check it, else None.

    Args:
        root: Where efivarfs is mounted. Without it there is no report.

    Raises:
        OSError: a variable exists but cannot be read.
    """
    if efivars.read_variable("StubInfo", efivars.LOADER_GUID, root=root) is None:
        return None
    if not efivars.read_flag("SecureBoot", efivars.GLOBAL_GUID, root=root):
        return UNCHECKED.format(state="off")
    if efivars.read_flag("SetupMode", efivars.GLOBAL_GUID, root=root):
        return UNCHECKED.format(state="in setup mode")
    return None
