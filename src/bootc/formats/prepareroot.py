r"""``prepare-root.conf`` of ostree: how the root file system is put together.

This module reads only whether the file enables composefs. The value of ``[composefs]
enabled`` is ``yes``, ``no`` or ``maybe`` in ostree's spellings, or ``verity`` or
``signed``, which demand more. Any other value enables nothing. A transient root needs
composefs, too.

Source: ostree-prepare-root(1).

>>> composefs_enabled(b"[composefs]\nenabled = verity\n")
True
"""

from __future__ import annotations

from bootc.formats.keyfile import parse_keyfile

_ENABLED = ("yes", "true", "1", "maybe", "verity", "signed")
_TRUE = ("true", "1")


def composefs_enabled(data: bytes) -> bool:
    """Tell whether the file enables composefs.

    Raises:
        KeyfileError: it is not a key file.
    """
    values = parse_keyfile(data)
    if values.get(("root", "transient")) in _TRUE:
        return True
    return values.get(("composefs", "enabled")) in _ENABLED
