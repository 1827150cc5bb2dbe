r"""Key files: sections of ``key = value`` lines.

ostree's configuration and the origins of deployments have this format. Blank lines and
lines that begin with ``#`` or ``;`` are ignored. Of equal keys the last one counts.

>>> parse_keyfile(b"[composefs]\nenabled = yes\n")
{('composefs', 'enabled'): 'yes'}
"""

from __future__ import annotations

from bootc.errors import Error


class KeyfileError(Error):
    """Bytes are not a key file. The message continues a sentence that names the file."""


def parse_keyfile(data: bytes) -> dict[tuple[str, str], str]:
    """Return the values by section and key, in the order of the file.

    Raises:
        KeyfileError: not UTF-8, or a line that is neither section nor key.
    """
    return dict(keyfile_items(data))


def keyfile_items(data: bytes) -> list[tuple[tuple[str, str], str]]:
    """Return ((section, key), value) of each line, equal keys as often as they occur.

    Raises:
        KeyfileError: not UTF-8, or a line that is neither section nor key.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise KeyfileError(f"is not UTF-8 at offset {exc.start}") from None
    section = ""
    items: list[tuple[tuple[str, str], str]] = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[" and line[-1] == "]":
            section = line[1:-1].strip()
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.strip() or not section:
            raise KeyfileError(f"line {number} is no key of a section: {line[:80]!r}")
        items.append(((section, key.strip()), value.strip()))
    return items
