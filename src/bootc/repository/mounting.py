"""From an image id to a mounted file tree (composefs, "Mounting").

An image is an EROFS file whose inodes name objects; overlayfs joins the two. Promises,
whatever is on the disk:

- The kernel has measured an image opened with ``require_verity``, the digest is the one
  asked for, and every byte was read through fs-verity once. Damage therefore stops the
  caller now, with the name of the image, and not some program later. A later read error can
  only come from the disk.
- If mounted with ``verity``, overlayfs checks each object against the digest that the image
  has for it, and refuses objects without fs-verity.

The caller decides whether fs-verity is required; the repository's own files are not asked.
Mounting needs Linux 6.12, which mounts EROFS from a file. Callers should use a private mount
namespace, since layers appear under /run for a moment. The initramfs loads this file.
"""

from __future__ import annotations

import errno
import os
import stat

from bootc.errors import Error, doing
from bootc.kernel import fsverity
from bootc.kernel.libc import AT_FDCWD
from bootc.kernel.mount import (
    MNT_DETACH,
    MOUNT_ATTR_RDONLY,
    UMOUNT_NOFOLLOW,
    fsconfig_create,
    fsconfig_set_flag,
    fsconfig_set_string,
    fsmount,
    fsopen,
    move_mount,
    umount2,
)
from bootc.repository.layout import image_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_READ_SIZE = 1 << 20
#: Only root can write there, in the initramfs as on the running host.
_SCRATCH = "/run"
_NO_VERITY = (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS)
_DIGEST_LENGTHS = {
    fsverity.FS_VERITY_HASH_ALG_SHA256: 64,
    fsverity.FS_VERITY_HASH_ALG_SHA512: 128,
}


class ImageNotFound(Error):
    """The repository has no such image."""


class ImageNotTrusted(Error):
    """The image has no fs-verity, or another digest than its name says."""


def open_verified_image(
    repo_fd: int,
    image_hex: str,
    *,
    require_verity: bool,
    measure: Callable[[int], tuple[int, bytes]] = fsverity.measure,
) -> int:
    """Open an image for reading and prove that it has the digest in its name.

    Without ``require_verity``, an image without fs-verity is accepted unchecked; an image
    with fs-verity must still have the right digest. ``measure`` asks the kernel; tests pass
    another function.

    Raises:
        ImageNotFound: there is no such image.
        ImageNotTrusted: no fs-verity where it is required, or another digest.
        OSError: EIO with a note when the content is damaged; whatever opening raises.
    """
    with doing(f"image {image_hex}"):
        try:
            # O_NONBLOCK: a FIFO in the image's place must not hang the boot.
            fd = os.open(
                image_path(image_hex), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=repo_fd
            )
        except FileNotFoundError:
            raise ImageNotFound("not in the repository") from None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ImageNotTrusted("not a regular file")
            measured = _measured(fd, measure)
            if measured is not None:
                _check_digest(*measured, image_hex)
                _read_through(fd)
            elif require_verity:
                raise ImageNotTrusted("not protected by fs-verity")
        except BaseException:
            os.close(fd)
            raise
        return fd


def mount_composefs(
    image_fd: int,
    objects_fd: int,
    *,
    name: str,
    verity: bool,
    upper_fds: tuple[int, int] | None = None,
    read_only: bool = True,
) -> int:
    """Mount an image over a directory of objects; return a detached mount.

    Its source is ``composefs:<name>``. ``upper_fds`` are the directories that overlayfs calls
    upper and work: changes are written there, unless the mount is ``read_only``.

    Raises:
        OSError: the kernel refused; its own words are in the notes.
    """
    with doing(f"mounting image {name}"):
        erofs_fd = _mount_erofs(image_fd)
        upper = zip(("upperdir", "workdir"), map(_path_of, upper_fds or ()), strict=False)
        try:
            with _Attached(erofs_fd):
                return _mount_overlay(
                    source=f"composefs:{name}",
                    options=[
                        ("metacopy", "on"),
                        ("redirect_dir", "on"),
                        *([("verity", "require")] if verity else []),
                        *upper,
                        ("lowerdir+", _path_of(erofs_fd)),
                        ("datadir+", _path_of(objects_fd)),
                    ],
                    attrs=MOUNT_ATTR_RDONLY if read_only else 0,
                )
        finally:
            os.close(erofs_fd)


def mount_transient(lower_fd: int, *, source: str) -> int:
    """Mount a writable view of a tree, kept in memory; return a detached mount.

    ``lower_fd`` is a directory on an attached mount (any mount since Linux 6.15).

    Raises:
        OSError: the kernel refused; its own words are in the notes.
    """
    with doing(f"mounting {source}"):
        memory_fd = _mount_tmpfs()
        try:
            os.mkdir("upper", dir_fd=memory_fd)
            # The view has this mode, and the umask must not take it from everybody but root.
            os.chmod("upper", 0o755, dir_fd=memory_fd)
            os.mkdir("work", 0o700, dir_fd=memory_fd)
            with _Attached(memory_fd):
                memory = _path_of(memory_fd)
                return _mount_overlay(
                    source=source,
                    options=[
                        ("lowerdir+", _path_of(lower_fd)),
                        ("upperdir", f"{memory}/upper"),
                        ("workdir", f"{memory}/work"),
                    ],
                )
        finally:
            os.close(memory_fd)


def _measured(fd: int, measure: Callable[[int], tuple[int, bytes]]) -> tuple[int, bytes] | None:
    try:
        return measure(fd)
    except OSError as exc:
        if exc.errno in _NO_VERITY:
            return None
        exc.add_note("fs-verity")
        raise


def _check_digest(algorithm: int, digest: bytes, image_hex: str) -> None:
    if digest.hex() != image_hex or _DIGEST_LENGTHS.get(algorithm) != len(image_hex):
        raise ImageNotTrusted(f"fs-verity: digest mismatch: the file measures {digest.hex()}")


def _read_through(fd: int) -> None:
    buffer = bytearray(_READ_SIZE)
    offset = 0
    try:
        while count := os.preadv(fd, [buffer], offset):
            offset += count
    except OSError as exc:
        if exc.errno == errno.EIO:
            exc.add_note("fs-verity: data corrupted")
        raise


def _mount_erofs(image_fd: int) -> int:
    fs_fd = fsopen("erofs")
    try:
        fsconfig_set_flag(fs_fd, "ro")
        # EROFS takes no file descriptor; the kernel opens this one again, same inode.
        fsconfig_set_string(fs_fd, "source", _path_of(image_fd))
        fsconfig_create(fs_fd)
        return fsmount(fs_fd, attrs=MOUNT_ATTR_RDONLY)
    finally:
        os.close(fs_fd)


def _mount_tmpfs() -> int:
    fs_fd = fsopen("tmpfs")
    try:
        fsconfig_set_string(fs_fd, "mode", "0755")
        fsconfig_create(fs_fd)
        return fsmount(fs_fd)
    finally:
        os.close(fs_fd)


def _mount_overlay(*, source: str, options: list[tuple[str, str]], attrs: int = 0) -> int:
    # Layers go in as paths: file descriptors are taken only since Linux 6.13.
    fs_fd = fsopen("overlay")
    try:
        fsconfig_set_string(fs_fd, "source", source)
        for key, value in options:
            fsconfig_set_string(fs_fd, key, value)
        fsconfig_create(fs_fd)
        return fsmount(fs_fd, attrs=attrs)
    finally:
        os.close(fs_fd)


def _path_of(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


class _Attached:
    """Give a detached mount a place in the file tree while the block runs.

    Before Linux 6.15 overlayfs refuses layers on detached mounts. It keeps private
    copies of its layers, so the place can be removed as soon as the overlay exists.
    """

    # A plain class: contextlib is not in the initramfs.
    def __init__(self, mount_fd: int) -> None:
        self._mount_fd = mount_fd
        self._path = f"{_SCRATCH}/bootc-layer-{os.urandom(8).hex()}"

    def __enter__(self) -> None:
        os.mkdir(self._path, 0o700)
        try:
            move_mount(self._mount_fd, "", AT_FDCWD, self._path)
        except OSError:
            os.rmdir(self._path)
            raise

    def __exit__(self, *exc: object) -> None:
        umount2(self._path, MNT_DETACH | UMOUNT_NOFOLLOW)
        os.rmdir(self._path)
