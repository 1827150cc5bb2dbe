"""Files of ``*.d`` directories, as systemd reads them."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

from bootc.fs.imageroot import ImageRoot

_SUFFIX = ".conf"
_MAX_BYTES = 1 << 24


def drop_ins(root: ImageRoot, homes: Iterable[str], *, suffix: str = _SUFFIX) -> Iterator[bytes]:
    """Yield the content of all files, by name.

    Args:
        root: The image.
        homes: The directories. A file replaces the file of the same name in an earlier one.
        suffix: The end of the names of the files.

    Raises:
        OSError: a file cannot be read, or is too large.
    """
    files: dict[str, str] = {}
    for home in homes:
        directory = root.open_dir(home)
        if directory is None:
            continue
        with directory:
            files |= {n: f"{home}/{n}" for n in directory.names() if n.endswith(suffix)}
    for _, path in sorted(files.items()):
        try:
            data = root.read(path, _MAX_BYTES)
        except OSError as exc:
            if exc.errno not in (errno.EINVAL, errno.EISDIR):
                raise
            # A link to /dev/null masks the file of this name in an earlier directory.
            continue
        if data is not None:
            yield data
