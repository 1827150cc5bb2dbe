r"""GRUB's menu of boot entries, generated as a script, for a GRUB that does not read the entries.

Debian's signed GRUB has no command ``blscfg``. It runs the script that this module writes.

All words are in single quotes, in which GRUB gives nothing a meaning. GRUB puts a parameter with
a blank in double quotes for the kernel, and a backslash before each backslash and quote, which
the kernel does not remove. Therefore parameters are written without their own quotes, and a
parameter with a backslash or an inner quote is refused. Source: ``grub-core/lib/cmdline.c``.

>>> print(quoted("it's"))
'it'\''s'
>>> kernel_parameters('rw dyndbg="file a.c +p"')
['rw', 'dyndbg=file a.c +p']
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bootc.formats import cmdline
from bootc.formats.bls import Entry
from bootc.formats.cmdline import CmdlineError
from bootc.formats.grubcfg import GrubCfgError

#: What GRUB would change within a parameter. The kernel splits parameters at other blanks, too.
_UNFIT = re.compile(r"[\\'\"\t\n\r\f\v\0]")
_LINE_END = re.compile(r"[\n\r\0]")
_DEVICETREE = "devicetree"


@dataclass(frozen=True, slots=True)
class MenuItem:
    """One entry of the menu.

    Attributes:
        name: The name by which GRUB's ``default`` and ``next_entry`` select it (``--id``).
        entry: The boot entry; it starts a kernel.
    """

    name: str
    entry: Entry


def serialise(first: str, items: Sequence[MenuItem]) -> bytes:
    """Write a menu.

    Args:
        first: The deployment that boots by default.
        items: The entries in their order.

    Raises:
        GrubCfgError: GRUB cannot start an entry as it is.
    """
    return "".join([f"set bootc_first={quoted(first)}\n", *map(_menu_entry, items)]).encode()


def check_entry(entry: Entry) -> None:
    """Check that a menu can have an entry.

    Raises:
        GrubCfgError: GRUB cannot start it as it is.
    """
    _menu_entry(MenuItem("", entry))


def kernel_parameters(options: str) -> list[str]:
    """Return the parameters of a kernel command line as words of GRUB's command ``linux``.

    Raises:
        GrubCfgError: GRUB would change a parameter.
    """
    words = []
    for parameter in cmdline.parse(options):
        word = cmdline.without_quotes(parameter)
        if _UNFIT.search(word):
            raise GrubCfgError(
                f"GRUB cannot pass on the kernel argument {parameter!r:.160}",
                hint="leave out backslashes, single quotes and quotes within the argument",
            )
        words.append(word)
    return words


def quoted(word: str) -> str:
    """Return a word as GRUB's scripts quote it.

    Raises:
        GrubCfgError: it has a line end.
    """
    if _LINE_END.search(word):
        raise GrubCfgError(f"a menu of GRUB cannot hold {word!r:.160}")
    return "'" + word.replace("'", "'\\''") + "'"


def _menu_entry(item: MenuItem) -> str:
    entry = item.entry
    if entry.linux is None:
        raise GrubCfgError(f"the boot entry {item.name!r:.160} starts no kernel")
    options = entry.options or ""
    try:
        # GRUB puts the path of the kernel in front of the arguments.
        cmdline.check_length(f"BOOT_IMAGE={entry.linux} {options}")
    except CmdlineError as exc:
        raise GrubCfgError(f"with GRUB's own, {exc.message}", hint=exc.hint) from None
    commands = [("linux", entry.linux, *kernel_parameters(options))]
    if entry.initrd:
        commands.append(("initrd", *entry.initrd))
    commands += [(key, value) for key, value in entry.extra if key == _DEVICETREE]
    lines = "".join(f"\t{command} {' '.join(map(quoted, words))}\n" for command, *words in commands)
    return f"menuentry {quoted(entry.title or item.name)} --id {quoted(item.name)} {{\n{lines}}}\n"
