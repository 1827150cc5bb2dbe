"""Images that can be sealed."""

from __future__ import annotations

from support import images
from support.images import directory, file

KVER = "6.12.0-test"
EFI = "usr/lib/systemd/boot/efi"
UKI = f"boot/EFI/Linux/{KVER}.efi"
LOADER = f"{EFI}/systemd-bootx64.efi"
KERNEL, INITRAMFS = b"kernel" * 1000, b"initramfs" * 1000
OS_RELEASE = b'ID=test\nVERSION_ID=1\nPRETTY_NAME="Test 1"\n' + b"#" * 99


def layers(*more: images.Member, stub: bytes, loader: bytes | None) -> tuple[bytes, bytes]:
    """Return two layers: a bootable system, and the files that sealing needs besides the kernel.

    Args:
        more: Members of the second layer.
        stub: The stub for unified kernel images.
        loader: The program of systemd-boot, or None.
    """
    homes = ("usr/lib/systemd", "usr/lib/systemd/boot", EFI, "usr/lib/bootc")
    return (
        images.bootable(kernel=KERNEL, initramfs=INITRAMFS),
        images.layer(
            *(directory(home) for home in (*homes, "usr/lib/bootc/kargs.d")),
            file(f"{EFI}/linuxx64.efi.stub", stub),
            *([file(LOADER, loader)] if loader else []),
            file("usr/lib/os-release", OS_RELEASE),
            file("usr/lib/bootc/kargs.d/1.toml", b'kargs = ["quiet", "lockdown=integrity"]\n'),
            *more,
        ),
    )
