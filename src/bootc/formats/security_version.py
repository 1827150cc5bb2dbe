"""The security version of an image, and the oldest one that a machine goes back to.

Two kernel arguments state them (ADR 19):

- ``bootc.security-version=N``: the security version of the image; 0 if it is not stated.
- ``bootc.minimum-security-version=M``: a machine that runs the image goes back to no image with a
  security version below M; 0 if it is not stated.

Both are decimal numbers of at most :data:`MAX`, without sign and without leading zeros. A build
refuses anything else, and M above N (:func:`check`). A boot takes what it gets (:func:`stated`): of
several security versions the lowest counts, of several minimums the highest, and a malformed number
is 0. So an argument that somebody appends cannot weaken a line that states its security version.

The initramfs imports this module.
"""

from __future__ import annotations

from bootc.formats.cmdline import CmdlineError, find_all, key_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = "bootc.security-version"
MINIMUM = "bootc.minimum-security-version"
MAX = 2**31 - 1
_MAX_DIGITS = len(str(MAX))
_HINT = f"a security version is a number from 0 to {MAX}"


class SecurityVersion:
    """What a kernel command line states.

    Attributes:
        version: The security version of the image, from 0 to :data:`MAX`.
        minimum: The lowest security version that a machine goes back to, from 0 to :data:`MAX`.
        stated: The command line states at least one of them.
    """

    __slots__ = ("minimum", "stated", "version")

    def __init__(self, version: int = 0, minimum: int = 0, *, stated: bool = True) -> None:
        self.version = version
        self.minimum = minimum
        self.stated = stated

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecurityVersion) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"SecurityVersion({self.version}, {self.minimum}, stated={self.stated})"

    @property
    def raises_to(self) -> int:
        """Return the value that a counter may rise to while the image runs.

        The machine must be able to boot the image again, so it is not above the image's version.
        """
        return min(self.version, self.minimum)

    def kargs(self) -> list[str]:
        """Return the kernel arguments that state this.

        >>> SecurityVersion(3, 2).kargs()
        ['bootc.security-version=3', 'bootc.minimum-security-version=2']
        """
        minimum = [f"{MINIMUM}={self.minimum}"] if self.minimum else []
        return [f"{VERSION}={self.version}", *minimum]

    def _key(self) -> tuple[int, int, bool]:
        return (self.version, self.minimum, self.stated)


def parse_number(text: str) -> int | None:
    """Return the number of an argument, or None if it is malformed."""
    if not (text.isascii() and text.isdigit()) or len(text) > _MAX_DIGITS:
        return None
    if text.startswith("0") and text != "0":
        return None
    number = int(text)
    return number if number <= MAX else None


def stated(params: Sequence[str]) -> SecurityVersion:
    """Return what a kernel command line states; there is nothing that this raises for.

    >>> stated(["bootc.security-version=3", "bootc.security-version=2"])
    SecurityVersion(2, 0, stated=True)
    """
    versions = [parse_number(value) or 0 for value in find_all(params, VERSION)]
    minimums = [parse_number(value) or 0 for value in find_all(params, MINIMUM)]
    return SecurityVersion(
        min(versions, default=0), max(minimums, default=0), stated=bool(versions or minimums)
    )


def is_statement(param: str) -> bool:
    """Tell whether a kernel argument is one of the two."""
    return key_of(param) in (key_of(VERSION), key_of(MINIMUM))


def check(params: Sequence[str]) -> SecurityVersion:
    """Return what the command line of an image states, if it is well-formed.

    Raises:
        CmdlineError: a number is malformed, an argument has several values, or the minimum is above
            the security version.
    """
    found: dict[str, str] = {}
    for key in (VERSION, MINIMUM):
        values = dict.fromkeys(find_all(params, key))
        for value in values:
            if parse_number(value) is None:
                raise CmdlineError(f"kernel argument {f'{key}={value}'!r:.80} is wrong", hint=_HINT)
        if len(values) > 1:
            listed = ", ".join(list(values)[:4])
            raise CmdlineError(f"{key} has several values: {listed}", hint="state it once")
        found |= dict.fromkeys([key] if values else [], next(iter(values), ""))
    numbers = (int(found.get(key, "0")) for key in (VERSION, MINIMUM))
    result = SecurityVersion(*numbers, stated=bool(found))
    if result.minimum > result.version:
        raise CmdlineError(
            f"the minimum security version {result.minimum} is above the security version "
            f"{result.version} of the image itself",
            hint=f"raise {VERSION}, or lower {MINIMUM}",
        )
    return result


def check_addon(params: Sequence[str]) -> None:
    """Refuse the command line of an add-on that states a security version, or a malformed minimum.

    Without a security version of its own, an old image would get that of the add-on.

    Raises:
        CmdlineError: it does.
    """
    if find_all(params, VERSION):
        raise CmdlineError(
            f"an add-on states {VERSION}", hint="only the UKI may state its security version"
        )
    for value in find_all(params, MINIMUM):
        if parse_number(value) is None:
            raise CmdlineError(f"kernel argument {f'{MINIMUM}={value}'!r:.80} is wrong", hint=_HINT)
