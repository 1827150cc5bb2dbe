"""Sizes as text, for messages and tables.

- :func:`human_size`: every size that bootc shows of its own accord, in powers of 1024.
- :func:`exact_size`: the same, and the number of bytes.
- :func:`glib_size`: a size in a text of upstream that has GLib's form, in powers of 1000.
"""

from __future__ import annotations


def human_size(size_bytes: int, *, decimals: int = 1) -> str:
    """Return a size with a binary unit.

    >>> human_size(1000), human_size(1536), human_size(9_952, decimals=2)
    ('1000 B', '1.5 KiB', '9.72 KiB')
    """
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.{decimals}f} {unit}"
        value /= 1024
    return f"{value:.{decimals}f} GiB"


def exact_size(size_bytes: int) -> str:
    """Return a size in bytes; from 1 KiB on with its human form in front.

    >>> exact_size(1023), exact_size(3 << 20)
    ('1023 bytes', '3.0 MiB, 3145728 bytes')
    """
    text = f"{size_bytes} bytes"
    return text if size_bytes < 1024 else f"{human_size(size_bytes)}, {text}"


def glib_size(size_bytes: int) -> str:
    """Return a size as GLib's ``g_format_size`` does.

    >>> glib_size(1), glib_size(1536), glib_size(2_000_000_000)
    ('1 byte', '1.5 kB', '2.0 GB')
    """
    if size_bytes < 1000:
        return f"{size_bytes} {'byte' if size_bytes == 1 else 'bytes'}"
    value = float(size_bytes)
    for unit in ("kB", "MB"):
        value /= 1000
        if value < 1000:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} GB"
