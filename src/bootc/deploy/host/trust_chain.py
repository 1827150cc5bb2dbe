"""The chain of trust of the booted deployment: firmware, loader, UKI, image, files.

Each link verifies the next one. So the chain is as strong as its first weak link: whoever controls
that controls all later ones. ``docs/reference/sealed-images.md`` says what each link must have.
The machine is protected only if every link is, and the first link demands Secure Boot with keys
that nobody can replace. All functions are pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from bootc.boot.loader import Bootloader
from bootc.boot.secure_boot import BootPrograms, Program
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.model import LinkState, TrustChain, TrustLink
from bootc.printable import listed, printable

_SHOWN_DIGITS = 12


def compose_chain(facts: Facts) -> TrustChain:
    """Return the chain of trust of the booted deployment."""
    return TrustChain((_firmware(facts), _loader(facts), _uki(facts), _image(facts), _files(facts)))


def _firmware(facts: Facts) -> TrustLink:
    found = facts.booted.secure_boot
    details = {"secureBoot": found.enabled, "setupMode": found.setup_mode}
    if found.enforced:
        state, text = LinkState.OK, "Secure Boot is on"
    elif found.setup_mode:
        state, text = LinkState.WEAK, "it is in setup mode: anybody can enrol keys"
    elif found.enabled is None:
        state, text = LinkState.WEAK, "it has no Secure Boot, or does not say so"
    elif found.enabled:
        state, text = LinkState.WEAK, "it does not say whether it is in setup mode"
    else:
        state, text = LinkState.WEAK, "Secure Boot is off"
    return TrustLink("firmware", state, text, details)


def _loader(facts: Facts) -> TrustLink:
    name = facts.scheme.bootloader
    programs = () if facts.programs is None else facts.programs.loaders
    details = {"bootloader": name.value, "programs": _programs(programs)}
    if name is Bootloader.NONE:
        return TrustLink("loader", LinkState.OK, "none: the firmware starts the UKI", details)
    if not programs:
        why = "its program was not found"
        if facts.programs is None:
            why = "the boot partition cannot be read"
        text = f"{name.value}: {why}"
        return TrustLink("loader", LinkState.UNKNOWN, text, details)
    state, text = _signatures(programs)
    return TrustLink("loader", state, f"{name.value}: {text}", details)


def _uki(facts: Facts) -> TrustLink:
    found = facts.programs or BootPrograms()
    embedded = facts.booted.image_id in facts.ukis
    details = {
        "commandLine": "embedded" if facts.scheme.boot_type.is_unified else "file",
        "program": None if found.uki is None else _programs([found.uki])[0],
        "addons": _programs(found.addons),
    }
    if not facts.scheme.boot_type.is_unified:
        text = (
            "none: kernel, initramfs and kernel arguments are files, and no signature covers them"
        )
        return TrustLink("uki", LinkState.WEAK, text, details)
    if found.uki is None or found.uki.signed is None:
        return TrustLink("uki", LinkState.UNKNOWN, "it cannot be read", details)
    state, text = _signatures([found.uki])
    if not embedded:
        state = LinkState.UNKNOWN if state is LinkState.OK else state
        text += "; its command line names no image of this deployment"
    if found.addons:
        text += f"; add-ons: {listed(addon.path.rpartition('/')[2] for addon in found.addons)}"
    return TrustLink("uki", state, text, details)


def _image(facts: Facts) -> TrustLink:
    optional = facts.booted.missing_verity_allowed
    details = {"digest": "optional" if optional else "strict"}
    if optional:
        text = "the command line tolerates an image without fs-verity (composefs=?)"
        return TrustLink("image", LinkState.WEAK, text, details)
    text = f"the command line demands {facts.booted.image_id.hex[:_SHOWN_DIGITS]}…"
    return TrustLink("image", LinkState.OK, text, details)


def _files(facts: Facts) -> TrustLink:
    verified, filesystem = facts.booted.files_verified, printable(facts.filesystem)
    details = {"filesystem": filesystem or None, "enforced": verified}
    on = f" on {filesystem}" if filesystem else ""
    if verified is None:
        return TrustLink("files", LinkState.UNKNOWN, "the mount of the root does not tell", details)
    if verified:
        text = f"the kernel verifies every file it reads{on}"
        return TrustLink("files", LinkState.OK, text, details)
    text = f"the kernel does not demand fs-verity of files{on}"
    return TrustLink("files", LinkState.WEAK, text, details)


def _signatures(programs: Sequence[Program]) -> tuple[LinkState, str]:
    for program in programs:
        if program.signed is False:
            return LinkState.WEAK, f"{printable(program.path)} has no signature"
    for program in programs:
        if program.signed is None:
            return LinkState.UNKNOWN, f"{printable(program.path)} cannot be read"
    return LinkState.OK, f"{listed(printable(program.path) for program in programs)}, signed"


def _programs(programs: Sequence[Program]) -> list[dict[str, object]]:
    return [{"path": printable(p.path), "signed": p.signed} for p in programs]
