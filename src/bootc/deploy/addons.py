"""``bootc addon``: lists, adds and removes the add-ons of unified kernel images (UKIs).

All checks come before the first write. A command takes effect when an add-on gets its name on the
main EFI system partition, or loses it. :mod:`bootc.deploy.installed_addons` carries add-ons over
to later deployments, and the clean-up removes them with their UKI.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bootc.boot.addons import (
    MAX_ADDON_BYTES,
    AddonContent,
    InstalledAddon,
    WrongAddon,
    check_content,
    check_name,
    check_room,
    list_addons,
    read_content,
    why_skipped,
)
from bootc.boot.loader import Bootloader
from bootc.boot.menu_read import program_of
from bootc.boot.scheme import ADDON_SUFFIX, GLOBAL_ADDONS, global_addon, global_addon_file
from bootc.boot.uki import is_sealed, open_installed
from bootc.deploy.execute import run
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.gather import gather
from bootc.deploy.host.selection import PARTS, deployment_as, find_deployment
from bootc.deploy.host.session import HostAccess
from bootc.deploy.host.survey import survey
from bootc.deploy.installed_addons import (
    Owner,
    home_of,
    image_addons,
    next_deployment,
    owner_of,
)
from bootc.deploy.plan.messages import about_addon
from bootc.deploy.plan.steps import Plan, RefreshMenu, RemoveAddon, Step, WriteAddons
from bootc.errors import Error, doing
from bootc.events import Message, Sink
from bootc.formats import cmdline, pe
from bootc.formats.digest import Digest
from bootc.formats.origin import BootType
from bootc.formats.pe import Uki
from bootc.fs.dir import open_regular, read_all
from bootc.printable import printable

#: More files of one command line are a mistake.
_MAX_FILES = 64


class NoAddons(Error):
    """A deployment cannot have add-ons."""


class AddonNotFound(Error):
    """There is no add-on of that name in that place."""


@dataclass(frozen=True, slots=True)
class Addon:
    """One add-on of the machine.

    Attributes:
        installed: The file.
        deployment: The deployment that gets it; None if all get it.
        owner: Who put it there; None if unknown.
    """

    installed: InstalledAddon
    deployment: Digest | None
    owner: Owner | None


@dataclass(frozen=True, slots=True)
class AddonList:
    """The add-ons of the machine.

    Attributes:
        addons: All of them: global ones first, then those of each deployment in boot order.
        roles: What a deployment is, for people: booted, staged or rollback.
    """

    addons: tuple[Addon, ...]
    roles: dict[Digest, str]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command adds or removes add-ons.

    Attributes:
        home: The directory on the boot partition.
        deployment: The deployment that it belongs to; None if it is for all.
        targets: The deployments that get what is there.
    """

    home: str
    deployment: Digest | None
    targets: tuple[Digest, ...]


def read_addons(system: HostAccess) -> AddonList:
    """Return all add-ons of the machine.

    Raises:
        OSError: the boot partition cannot be read.
    """
    facts = gather(system)
    parts = {part: deployment_as(facts, part) for part in PARTS}
    roles = {deployment: part for part, deployment in parts.items() if deployment is not None}
    found = [
        Addon(addon, None, _owner_of_global(addon.name))
        for addon in list_addons(system.boot.binaries, GLOBAL_ADDONS)
    ]
    for deployment in _with_uki(facts):
        installed = list_addons(system.boot.binaries, home_of(facts, deployment))
        image = image_addons(system, facts, deployment) if installed else None
        for addon in installed:
            owner = owner_of(addon, image, system.repository.objects)
            found.append(Addon(addon, deployment, owner))
    return AddonList(tuple(found), roles)


def add_addons(
    system: HostAccess,
    paths: Sequence[str],
    sink: Sink,
    *,
    deployment: str | None = None,
    for_all: bool = False,
    dry_run: bool = False,
) -> None:
    """Add add-ons of the administrator.

    Args:
        system: The host.
        paths: The files.
        sink: Told of the outcome.
        deployment: The deployment that gets them, as
            :func:`~bootc.deploy.host.selection.find_deployment` takes it. None means the staged
            deployment, or the booted one if none is staged.
        for_all: All deployments get them.
        dry_run: Only show the steps.

    Raises:
        WrongAddon, WrongUki, PeError: a file is no add-on that this machine can have.
        NoAddons: the deployment has no UKI, or its boot loader excludes add-ons.
        NoSpaceOnBoot: there is no room. Nothing has been touched.
        DeploymentNotFound, AmbiguousDeployment: there is no such deployment.
        Error, OSError: a file cannot be read, or writing failed.
    """
    files = _read_files(paths)
    facts = survey(system, dry_run=dry_run)
    place = _place(facts, deployment, for_all=for_all)
    present = list_addons(system.boot.binaries, place.home)
    new = []
    for name, data in files:
        with doing(f"add-on {printable(name)}"):
            content = _checked(facts, place, data)
            if not _is_there(system, facts, place, present, name, data):
                new.append((name, data, content))
    for name in sorted({name for name, _ in files} - {name for name, _, _ in new}):
        sink(Message(f"Add-on {printable(name)} is there already."))
    if not new:
        return
    for target in place.targets:
        _check_target(system, facts, place, target, new)
    check_room(system.boot, {name: len(data) for name, data, _ in new})
    written = tuple((name, data) for name, data, _ in new)
    names = [name for name, _ in written]
    artifact = None if place.deployment is None else _artifact(facts, place.deployment)
    plan = Plan(
        commit=WriteAddons(artifact, place.home, written),
        after=_afterwards(facts),
        notes=tuple(_notes(facts, place, {name: content for name, _, content in new})),
    )
    messages = tuple(about_addon(name, place.deployment, added=True) for name in names)
    run(plan, system, sink, dry_run=dry_run, messages=messages)


def remove_addon(
    system: HostAccess,
    name: str,
    sink: Sink,
    *,
    deployment: str | None = None,
    for_all: bool = False,
    dry_run: bool = False,
) -> None:
    """Remove an add-on, also one of the image.

    Args:
        system: The host.
        name: Its file name, with or without ``.addon.efi``.
        sink: Told of the outcome.
        deployment: The deployment that has it, as for :func:`add_addons`.
        for_all: It is one that all deployments have.
        dry_run: Only show the steps.

    Raises:
        AddonNotFound: there is no such add-on.
        NoAddons: the deployment cannot have add-ons.
        Error, OSError: removing failed.
    """
    facts = survey(system, dry_run=dry_run)
    place = _place(facts, deployment, for_all=for_all)
    file_name = name if name.lower().endswith(ADDON_SUFFIX) else f"{name}{ADDON_SUFFIX}"
    names = [file_name, global_addon_file(file_name)] if for_all else [file_name]
    found = list_addons(system.boot.binaries, place.home)
    path = next((a.path for wanted in names for a in found if a.name == wanted), None)
    if path is None:
        raise _not_found(system, facts, place, file_name)
    plan = Plan(
        commit=RemoveAddon(path),
        after=_afterwards(facts),
        notes=(f"Add-on {printable(file_name)} is removed from {_where(facts, place)}.",),
    )
    messages = (about_addon(file_name, place.deployment, added=False),)
    run(plan, system, sink, dry_run=dry_run, messages=messages)


def _read_files(paths: Sequence[str]) -> list[tuple[str, bytes]]:
    """Return the name and the content of each file.

    Raises:
        WrongAddon: a name or a file is not usable.
        OSError: a file cannot be read.
    """
    if len(paths) > _MAX_FILES:
        raise WrongAddon(f"these are {len(paths)} files, more than {_MAX_FILES}")
    files: dict[str, bytes] = {}
    for path in paths:
        name = posixpath.basename(path)
        check_name(name)
        if name.lower() in (known.lower() for known in files):
            raise WrongAddon(
                f"two files are called {printable(name)}", hint="give each a name of its own"
            )
        with doing("Reading the add-on"), open(open_regular(path), "rb", buffering=0) as file:
            files[name] = read_all(file.fileno(), path, MAX_ADDON_BYTES)
    return list(files.items())


def _place(facts: Facts, deployment: str | None, *, for_all: bool) -> Place:
    """Return where the options say.

    Raises:
        NoAddons: nothing there can have add-ons.
    """
    if facts.scheme.in_slots:
        raise NoAddons(
            "ukiboot starts no unified kernel image with add-ons of a deployment",
            hint="change the kernel arguments in the image: bootc container ukify --karg",
        )
    if for_all:
        targets = tuple(_with_uki(facts))
        if not targets:
            raise _boots_by_entry(facts, facts.booted.image_id)
        return Place(GLOBAL_ADDONS, None, targets)
    chosen = next_deployment(facts) if deployment is None else find_deployment(facts, deployment)
    if chosen not in _with_uki(facts):
        raise _boots_by_entry(facts, chosen)
    return Place(home_of(facts, chosen), chosen, (chosen,))


def _with_uki(facts: Facts) -> list[Digest]:
    """Return the deployments whose UKI an entry starts, in boot order."""
    items = (*facts.staged.items, *facts.active.items)
    found = [item.deployment for item in items if program_of(item.entry) is not None]
    staged = facts.staged_id()
    known = [d for d in dict.fromkeys(found) if d == staged or facts.active_item(d) is not None]
    return [d for d in known if _boot_type(facts, d) is BootType.UKI]


def _boot_type(facts: Facts, deployment: Digest) -> BootType | None:
    origin = facts.origin(deployment)
    return None if origin is None else origin.boot_type


def _boots_by_entry(facts: Facts, deployment: Digest) -> NoAddons:
    text = f"deployment {deployment} has no unified kernel image that could have add-ons"
    if _boot_type(facts, deployment) is not BootType.BLS:
        return NoAddons(text, hint="bootc status --verbose shows what boots")
    return NoAddons(
        text,
        hint="its kernel arguments are in its boot entry: edit the line options of the file in "
        f"{facts.scheme.entries}; updates carry the change over",
    )


def _checked(facts: Facts, place: Place, data: bytes) -> AddonContent:
    """Return the content of a new add-on, unless this machine must not have it.

    Raises:
        WrongAddon, WrongUki, PeError: it must not.
    """
    content = read_content(io.BytesIO(data))
    check_content(content, sealed=_gets_sealed(facts, place))
    if facts.booted.secure_boot.enabled and not content.signed:
        raise WrongAddon(
            "it has no signature, and Secure Boot is on: the stub would skip it",
            hint="sign it with a key that the firmware knows: sbsign --key KEY --cert CERT FILE",
        )
    return content


def _gets_sealed(facts: Facts, place: Place) -> bool:
    images = (facts.ukis.get(target) for target in place.targets)
    # A UKI that cannot be read may be sealed.
    return any(found is None or is_sealed(found) for found in images)


def _is_there(
    system: HostAccess,
    facts: Facts,
    place: Place,
    present: Sequence[InstalledAddon],
    name: str,
    data: bytes,
) -> bool:
    """Tell whether the same add-on is there already.

    Raises:
        WrongAddon: another one has the name, and must not be replaced.
    """
    if place.deployment is None and global_addon(name) is not None:
        raise WrongAddon("such names are for the add-ons of images", hint="give it another name")
    same = next((addon for addon in present if addon.name.lower() == name.lower()), None)
    if same is None:
        return False
    if same.data == data:
        return True
    if same.name != name:
        raise WrongAddon(
            f"the ESP takes its name for that of {printable(same.name)}",
            hint="give it another name",
        )
    if place.deployment is not None:
        image = image_addons(system, facts, place.deployment)
        if owner_of(same, image, system.repository.objects) is Owner.IMAGE:
            raise WrongAddon(
                "the image has another add-on of this name, which is installed",
                hint=f"give it another name, or first: bootc addon remove {printable(name)}",
            )
    return False


def _check_target(
    system: HostAccess,
    facts: Facts,
    place: Place,
    target: Digest,
    new: Sequence[tuple[str, bytes, AddonContent]],
) -> None:
    """Ensure that a UKI uses new add-ons, and that the kernel takes the arguments of all.

    Raises:
        WrongAddon: it does not use one of them.
        CmdlineError: there are too many arguments.
        PeError, OSError: the UKI cannot be read.
    """
    item = facts.active_item(target) or facts.staged_item(target)
    path = None if item is None else program_of(item.entry)
    if path is None:
        return
    contents = [content for _, _, content in new]
    replaced = {name for name, _, _ in new}
    for home in (GLOBAL_ADDONS, home_of(facts, target)):
        for addon in list_addons(system.boot.binaries, home):
            if addon.content is not None and (home != place.home or addon.name not in replaced):
                contents.append(addon.content)
    with open_installed(system.boot, path.lstrip("/")) as file:
        uki = Uki.read(file).first_profile()
        line = uki.text(pe.CMDLINE) if pe.CMDLINE in uki.sections else ""
        for name, _, content in new:
            why = why_skipped(uki, content)
            # Of several deployments one may use a global add-on, and another one skip it.
            if why is not None and place.deployment is not None:
                raise WrongAddon(
                    f"the stub of deployment {target} would skip add-on {name}: {why}",
                    hint="build the add-on, or the image, in another way",
                )
        used = [content for content in contents if why_skipped(uki, content) is None]
    cmdline.check_length(" ".join((line, *(c.arguments for c in used if c.arguments))))


def _artifact(facts: Facts, deployment: Digest) -> Digest:
    """Return the name of the UKI of a deployment, which mirrors know it by."""
    item = facts.active_item(deployment) or facts.staged_item(deployment)
    if item is None or item.artifact is None:
        return deployment
    return Digest.from_hex(item.artifact)


def _afterwards(facts: Facts) -> tuple[Step, ...]:
    """Return the steps that bring a copy of a UKI up to date, where the firmware starts one."""
    return (RefreshMenu(),) if facts.scheme.bootloader is Bootloader.NONE else ()


def _notes(facts: Facts, place: Place, contents: Mapping[str, AddonContent]) -> Iterator[str]:
    where = _where(facts, place)
    for name, content in contents.items():
        yield f"Add-on {printable(name)} is added to {where}."
        if not content.signed:
            yield f"Add-on {printable(name)} has no signature: with Secure Boot stubs skip it."
    if place.deployment is None:
        yield (
            "It changes the boot of all deployments, so a rollback does not undo it: "
            "bootc addon remove --global NAME does."
        )
    elif place.deployment == next_deployment(facts):
        yield "Updates carry it over. Deployments that are there already do not get it."
    else:
        yield "Updates do not carry it over: this is not the deployment that boots next."


def _where(facts: Facts, place: Place) -> str:
    if place.deployment is None:
        return "all deployments"
    if place.deployment == facts.staged_id():
        return f"the staged deployment {place.deployment}"
    if place.deployment == facts.booted.image_id:
        return f"the booted deployment {place.deployment}"
    return f"deployment {place.deployment}"


def _not_found(system: HostAccess, facts: Facts, place: Place, name: str) -> AddonNotFound:
    elsewhere = []
    if place.deployment is not None:
        found = list_addons(system.boot.binaries, GLOBAL_ADDONS)
        if any(addon.name in (name, global_addon_file(name)) for addon in found):
            elsewhere.append("--global")
    for deployment in _with_uki(facts):
        if deployment != place.deployment:
            found = list_addons(system.boot.binaries, home_of(facts, deployment))
            if any(addon.name == name for addon in found):
                elsewhere.append(f"--deployment {deployment.hex[:12]}")
    hint = f"there is one with {' and '.join(elsewhere)}" if elsewhere else "bootc addon list"
    return AddonNotFound(f"{_where(facts, place)}: no add-on {printable(name)}", hint=hint)


def _owner_of_global(name: str) -> Owner:
    return Owner.ADMINISTRATOR if global_addon(name) is None else Owner.IMAGE
