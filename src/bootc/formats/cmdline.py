"""Kernel arguments, and the argument that names the image to boot.

A command line is split on ASCII whitespace outside double quotes; there are no
escapes. A parameter is ``key`` or ``key=value``, and in keys ``-`` and ``_`` are the
same character. Quotes around a value or around the whole parameter belong to neither,
as for the kernel. Parameters keep their text, quotes included.
Splitting and joining with single spaces therefore loses only blanks.

An image to boot is named ``composefs=[?]<hex>`` or ``composefs.digest=[?]v1-sha512-12:<hex>``;
``?`` says that missing fs-verity is tolerated. A command line may name several images
(:class:`ComposefsImages`): the same tree in several versions of the image format, of which the
repository of a machine has at least one.

The initramfs imports this module, so it imports only ``errors``, which imports nothing.
"""

from __future__ import annotations

from bootc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COMPOSEFS = "composefs"
COMPOSEFS_DIGEST = "composefs.digest"

#: What the kernel takes on x86 and arm64, less the zero byte at the end; it cuts off the rest.
MAX_BYTES = 2047

_BLANKS = " \t\n\r\f"
_HEX = frozenset("0123456789abcdef")
_HEX_LENGTHS = {"sha256": 64, "sha512": 128}
#: The forms a repository's digests come in: 4 KiB blocks.
_LG_BLOCK_SIZE = "12"
_LG_BLOCK_SIZES = ("12", "16")
_VERSIONS = ("v1", "v2")
#: Digits of a digest in a message about several.
_SHOWN_DIGITS = 12
#: What a command line without an image lacks.
NO_IMAGE = "no composefs image in the kernel command line"


class CmdlineError(Error):
    """A kernel command line names no image to boot, or names it wrongly."""


class NoImageNamed(CmdlineError):
    """A kernel command line names no image. The message ends in :data:`NO_IMAGE`."""


class ComposefsArgument:
    """One argument that names an image to boot.

    Attributes:
        hex: The digest of the image.
        optional: Missing fs-verity is tolerated.
        version: ``v1`` or ``v2``, the version of the image format that ``composefs.digest=``
            states; empty for ``composefs=``, which says nothing about the format.
    """

    __slots__ = ("hex", "optional", "version")

    def __init__(self, hex_digest: str, *, optional: bool, version: str = "") -> None:
        self.hex = hex_digest
        self.optional = optional
        self.version = version

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ComposefsArgument) and self.karg == other.karg

    def __hash__(self) -> int:
        return hash(self.karg)

    @property
    def karg(self) -> str:
        """Return the argument as a command line has it."""
        return composefs_karg(self.hex, optional=self.optional, version=self.version)

    @property
    def short(self) -> str:
        """Return the argument with the first digits of its digest only, for messages."""
        return _shortened(self.karg)

    def __repr__(self) -> str:
        return f"ComposefsArgument({self.karg!r})"


class ComposefsImages:
    """The images that a command line names, in its order. All arguments agree on ``?``.

    The images are one tree in several versions of the image format. Whoever boots tries them in
    this order, and takes the next one only if the repository does not have the image at all.

    Attributes:
        arguments: At least one argument; each argument once.
    """

    __slots__ = ("arguments",)

    def __init__(self, arguments: Iterable[ComposefsArgument]) -> None:
        self.arguments = tuple(dict.fromkeys(arguments))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ComposefsImages) and self.arguments == other.arguments

    def __hash__(self) -> int:
        return hash(self.arguments)

    def __repr__(self) -> str:
        return f"ComposefsImages({self.line!r})"

    @property
    def line(self) -> str:
        """Return the arguments as a command line has them."""
        return join(argument.karg for argument in self.arguments)

    @property
    def optional(self) -> bool:
        """Return whether missing fs-verity is tolerated."""
        return self.arguments[0].optional

    @property
    def hexes(self) -> tuple[str, ...]:
        """Return the digests, each once, in the order in which a boot tries them."""
        return tuple(dict.fromkeys(argument.hex for argument in self.arguments))

    @property
    def deployment(self) -> str:
        """Return the id of the deployment: the digest that is called ``v1``, else the first."""
        named = [argument.hex for argument in self.arguments if argument.version == "v1"]
        return (named or self.hexes)[0]

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the digests, that of the deployment first: the order to look for its state in."""
        return tuple(dict.fromkeys((self.deployment, *self.hexes)))

    def agrees_with(self, other: ComposefsImages) -> bool:
        """Tell whether both boot the same deployment, whatever the order of further images."""
        return (self.optional, self.deployment, set(self.hexes)) == (
            other.optional,
            other.deployment,
            set(other.hexes),
        )


def parse(text: str) -> list[str]:
    """Split a command line into parameters.

    >>> parse('root=UUID=1  rw dyndbg="file a.c +p"')
    ['root=UUID=1', 'rw', 'dyndbg="file a.c +p"']
    """
    params = []
    current = ""
    quoted = False
    for char in text:
        if char in _BLANKS and not quoted:
            if current:
                params.append(current)
            current = ""
            continue
        if char == '"':
            quoted = not quoted
        current += char
    if current:
        params.append(current)
    return params


def join(params: Iterable[str]) -> str:
    """Return the command line of these parameters."""
    return " ".join(params)


def find(params: Iterable[str], key: str) -> str | None:
    """Return the value of the first parameter with this key, without its quotes.

    A parameter without a value gives the empty string; no such parameter gives None.
    """
    return next(iter(find_all(params, key)), None)


def find_all(params: Iterable[str], key: str) -> list[str]:
    """Return the values of all parameters with this key, in their order, without quotes."""
    wanted = _folded(key)
    parts = (_parts(param) for param in params)
    return [value for name, _, value in parts if name == wanted]


def key_of(param: str) -> str:
    """Return the key of a parameter, with ``_`` for each ``-``.

    >>> key_of('"my-key=some text"')
    'my_key'
    """
    return _parts(param)[0]


def without_quotes(param: str) -> str:
    """Return a parameter without the quotes around it or around its value.

    >>> without_quotes('a="b c"')
    'a=b c'
    """
    key, equals, value = _unquoted(param).partition("=")
    return f"{key}{equals}{_unquoted(value)}"


def check(text: str) -> None:
    """Refuse arguments that somebody asks for and that no boot entry may get.

    An open quote would swallow what is appended later, a control character ends the line in
    an entry, and which image boots is for bootc to say. (All that begins with ``composefs`` is
    kept for that: other versions know other names.)

    Raises:
        CmdlineError: one of the arguments is such.
    """
    check_text(text)
    for param in parse(text):
        # Programs disagree about quotes within a key.
        name = _folded(param.replace('"', "")).partition("=")[0]
        rest = name.removeprefix(COMPOSEFS)
        if name.startswith(COMPOSEFS) and (not rest or rest[0] in "._"):
            raise CmdlineError(f"the kernel argument {param!r:.160} is not yours to set")


def check_text(text: str) -> None:
    """Refuse a command line that something cannot be appended to, or that is no line.

    Raises:
        CmdlineError: it holds an open quote or a control character.
    """
    if not text.isprintable() or text.count('"') % 2:
        raise CmdlineError(
            f"bad kernel argument {text!r:.160}",
            hint="it holds an open quote or a control character",
        )


def check_length(text: str) -> None:
    """Refuse a command line of which the kernel would cut off the end.

    Raises:
        CmdlineError: it is too long.
    """
    size = len(text.encode("utf-8", "surrogateescape"))
    if size > MAX_BYTES:
        raise CmdlineError(
            f"the kernel arguments have {size} bytes, and the kernel takes {MAX_BYTES}",
            hint="ask for fewer: in the image's kargs.d, at the installation, in the boot entry",
        )


def add(params: Sequence[str], param: str) -> list[str]:
    """Append a parameter unless an identical one is there."""
    if any(_same(existing, param) for existing in params):
        return list(params)
    return [*params, param]


def extend(params: Sequence[str], more: Iterable[str]) -> list[str]:
    """Add each parameter in turn."""
    result = list(params)
    for param in more:
        result = add(result, param)
    return result


def add_or_modify(params: Sequence[str], param: str) -> list[str]:
    """Put a parameter in the place of the first with its key, and drop the later ones."""
    wanted = key_of(param)
    result: list[str] = []
    placed = False
    for existing in params:
        if key_of(existing) != wanted:
            result.append(existing)
        elif not placed:
            result.append(param)
            placed = True
    return result if placed else [*result, param]


def remove_exact(params: Iterable[str], param: str) -> list[str]:
    """Drop every parameter identical to this one."""
    return [existing for existing in params if not _same(existing, param)]


def without(params: Iterable[str], deletes: Iterable[str]) -> list[str]:
    """Drop parameters as ``--karg-delete`` does.

    Args:
        params: The parameters.
        deletes: Command lines. ``key=value`` drops identical parameters, ``key`` all parameters
            with this key.

    >>> without(["quiet", "console=tty0", "console=ttyS0"], ["quiet console=tty0"])
    ['console=ttyS0']
    """
    result = list(params)
    for text in deletes:
        for name in parse(text):
            key, equals, _ = _parts(name)
            if equals:
                result = remove_exact(result, name)
            else:
                result = [existing for existing in result if key_of(existing) != key]
    return result


def composefs_karg(hex_digest: str, *, optional: bool, version: str = "") -> str:
    """Return the argument that boots an image.

    Args:
        hex_digest: The digest of the image.
        optional: Tolerate missing fs-verity.
        version: ``v1`` or ``v2`` for ``composefs.digest=``. Without it the argument is
            ``composefs=``, the only one that upstream's programs before 1.17 know.

    >>> composefs_karg("ab" * 64, optional=True)[:14]
    'composefs=?aba'
    >>> composefs_karg("ab" * 64, optional=False, version="v1")[:33]
    'composefs.digest=v1-sha512-12:aba'
    """
    mark = "?" if optional else ""
    if not version:
        return f"{COMPOSEFS}={mark}{hex_digest}"
    (hash_name,) = (name for name, size in _HEX_LENGTHS.items() if size == len(hex_digest))
    return f"{COMPOSEFS_DIGEST}={mark}{version}-{hash_name}-{_LG_BLOCK_SIZE}:{hex_digest}"


def names_image(param: str) -> bool:
    """Tell whether a parameter names an image to boot, rightly or wrongly."""
    return key_of(param) in (COMPOSEFS, COMPOSEFS_DIGEST)


def with_image(params: Iterable[str], argument: str) -> list[str]:
    """Return parameters of which only ``argument`` names an image.

    It takes the place of the first that names one, and otherwise the last place.
    """
    result: list[str] = []
    for param in params:
        if not names_image(param):
            result.append(param)
        elif argument not in result:
            result.append(argument)
    return result if argument in result else [*result, argument]


def composefs_images(text: str) -> ComposefsImages:
    """Return the images that a command line names.

    An argument that somebody appends cannot weaken the others: it comes last, and it must agree
    with them on ``?``. Images of a kind that no repository of bootc has (SHA-256 in
    ``composefs.digest=``, or blocks of 64 KiB) are left out, but must agree as well.

    Raises:
        NoImageNamed: there is none.
        CmdlineError: one is malformed, or only some tolerate missing fs-verity.
    """
    found: list[ComposefsArgument] = []
    optional: dict[bool, str] = {}
    for param in parse(text):
        key, _, value = _parts(param)
        if key not in (COMPOSEFS, COMPOSEFS_DIGEST):
            continue
        # All of them are checked: a malformed one means a broken boot entry, not a spare.
        argument = _digest_form(value) if key == COMPOSEFS_DIGEST else _bare_form(value)
        optional.setdefault(value.startswith("?"), param)
        if argument is not None:
            found.append(argument)
    if len(optional) > 1:
        raise CmdlineError(
            f"the arguments {_shortened(optional[False])} and {_shortened(optional[True])} "
            "disagree: only one of them tolerates missing fs-verity",
            hint="remove the argument that was added, or write the ? in all of them or in none",
        )
    if not found:
        raise NoImageNamed(NO_IMAGE)
    return ComposefsImages(found)


def _bare_form(value: str) -> ComposefsArgument:
    """Parse ``[?]<hex>``; the length of the digest tells the algorithm."""
    optional, hex_digest = _optional(value)
    if not _is_hex(hex_digest) or len(hex_digest) not in _HEX_LENGTHS.values():
        raise CmdlineError(
            f"kernel argument {f'{COMPOSEFS}={value}'!r:.160} is not an image digest"
        )
    return ComposefsArgument(hex_digest, optional=optional)


def _digest_form(value: str) -> ComposefsArgument | None:
    """Parse ``[?]v1-sha512-12:<hex>``; None when well-formed but not an image of our kind."""
    optional, rest = _optional(value)
    kind, colon, hex_digest = rest.partition(":")
    version, _, hash_and_size = kind.partition("-")
    hash_name, _, lg_block_size = hash_and_size.partition("-")
    if (
        not colon
        or version not in _VERSIONS
        or lg_block_size not in _LG_BLOCK_SIZES
        or len(hex_digest) != _HEX_LENGTHS.get(hash_name)
        or not _is_hex(hex_digest)
    ):
        raise CmdlineError(f"kernel argument {f'{COMPOSEFS_DIGEST}={value}'!r:.180} is malformed")
    if hash_name != "sha512" or lg_block_size != _LG_BLOCK_SIZE:
        return None
    return ComposefsArgument(hex_digest, optional=optional, version=version)


def _shortened(argument: str) -> str:
    """Return a well-formed argument with the first digits of its digest only."""
    key, _, value = _parts(argument)
    kind, colon, hex_digest = value.rpartition(":")
    if not colon:
        kind, hex_digest = ("?", value[1:]) if value.startswith("?") else ("", value)
    return f"{key}={kind}{colon}{hex_digest[:_SHOWN_DIGITS]}…"


def _optional(value: str) -> tuple[bool, str]:
    return value.startswith("?"), value.removeprefix("?")


def _is_hex(text: str) -> bool:
    return _HEX.issuperset(text)


def _folded(key: str) -> str:
    return key.replace("-", "_")


def _parts(param: str) -> tuple[str, str, str]:
    """Return key, equals sign and value, as :meth:`str.partition` does, without quotes."""
    key, equals, value = _unquoted(param).partition("=")
    return _folded(key), equals, _unquoted(value)


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value


def _same(a: str, b: str) -> bool:
    return _parts(a) == _parts(b)
