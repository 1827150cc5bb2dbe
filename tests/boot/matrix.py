"""The boot matrix: each way in which bootc boots a machine, its test, and the table of results.

A cell is one test, which installs, boots, updates and rolls back a machine. To add a cell, write
its test and a line in ``CELLS``. Everything else follows from the line: ``make boot-all`` runs the
test, ``make test`` leaves it out unless the cell is ``often``, and README must show the cell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum


class Column(StrEnum):
    """What the image boots: a kernel with an initramfs, or a unified kernel image."""

    TYPE1 = "Type 1"
    UKI = "UKI"


@dataclass(frozen=True, slots=True)
class Row:
    """The way from the firmware to the kernel.

    Attributes:
        title: The head of the row; ``-k`` finds its words, too.
        tree: Where the loader is installed (``versions.status``).
        packages: The Debian packages of the loader there.
    """

    title: str
    tree: str
    packages: tuple[str, ...]


SYSTEMD_BOOT = Row("systemd-boot, UEFI", "demo", ("systemd-boot-efi",))
GRUB_UEFI = Row("GRUB, UEFI", "grub", ("grub-efi-amd64-signed", "shim-signed"))
GRUB_214_UEFI = Row("GRUB 2.14, UEFI", "grub-sid", ("grub-efi-amd64-signed", "shim-signed"))
GRUB_BIOS = Row("GRUB, BIOS", "grub", ("grub-pc-bin",))
GRUB_214_BIOS = Row("GRUB 2.14, BIOS", "grub-sid", ("grub-pc-bin",))
TAKEN_APART = Row("UKI taken apart, GRUB, BIOS", "grub", ("grub-pc-bin",))
NO_LOADER = Row("no loader, UEFI", "qemu", ("ovmf",))
UKIBOOT = Row("ukiboot, UEFI", "ukiboot", ("ukiboot",))


@dataclass(frozen=True, slots=True)
class Cell:
    """A boot path and the test that installs, boots, updates and rolls back a machine with it.

    Attributes:
        row: The way from the firmware to the kernel.
        column: What the image boots.
        test: The test's node id, without its directory.
        often: ``make test`` runs it, too.
    """

    row: Row
    column: Column
    test: str
    often: bool = False

    @property
    def node(self) -> str:
        """The test's node id."""
        return f"tests/boot/{self.test}"

    @property
    def keywords(self) -> set[str]:
        """What ``-k`` finds it by, beside the words of the node id."""
        return {*self.row.title.replace(",", "").split(), self.column.replace(" ", "")}

    def __str__(self) -> str:
        return f"{self.row.title}, {self.column}"


#: In the order of the table.
CELLS = (
    Cell(SYSTEMD_BOOT, Column.TYPE1, "test_updates.py::test_a_life_of_updates[type1]", often=True),
    Cell(SYSTEMD_BOOT, Column.UKI, "test_updates.py::test_a_life_of_updates[uki]", often=True),
    Cell(
        GRUB_UEFI,
        Column.TYPE1,
        "test_grub.py::test_a_machine_is_installed_updated_and_rolled_back[uefi]",
        often=True,
    ),
    Cell(
        GRUB_UEFI,
        Column.UKI,
        "test_grub.py::test_a_machine_is_installed_updated_and_rolled_back[uefi_uki]",
    ),
    Cell(
        GRUB_214_UEFI,
        Column.TYPE1,
        "test_grub.py::test_a_machine_is_installed_updated_and_rolled_back[uefi_sid]",
    ),
    Cell(
        GRUB_BIOS,
        Column.TYPE1,
        "test_grub.py::test_a_machine_is_installed_updated_and_rolled_back[bios]",
        often=True,
    ),
    Cell(
        GRUB_214_BIOS,
        Column.TYPE1,
        "test_grub.py::test_a_machine_is_installed_updated_and_rolled_back[bios_sid]",
    ),
    Cell(
        TAKEN_APART,
        Column.TYPE1,
        "test_uki_in_parts.py::test_a_life_of_a_kernel_taken_apart",
    ),
    Cell(NO_LOADER, Column.UKI, "test_no_loader.py::test_a_life_without_a_boot_loader[uki]"),
    Cell(UKIBOOT, Column.UKI, "test_ukiboot.py::test_a_life_with_two_partitions"),
)
#: In a column where no cell is declared.
IMPOSSIBLE = "\N{EN DASH}"


class Word(StrEnum):
    """How a cell ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a cell ended, and how long that took."""

    word: Word = Word.NOT_RUN
    seconds: float = 0.0

    def __str__(self) -> str:
        return self.word if self.word is Word.NOT_RUN else f"{self.word}, {self.seconds:.0f} s"


@dataclass(frozen=True, slots=True)
class Results:
    """The outcomes of cells at one commit.

    Attributes:
        commit: The commit, with a remark if the tree had changes.
        date: The day of the last run, ``YYYY-MM-DD``.
        machines: The kernel, the emulator and the accelerator, as a text.
        loaders: The version of each package, by the tree and the name of the package.
        outcomes: By node id.
    """

    commit: str
    date: str
    machines: str
    loaders: Mapping[str, Mapping[str, str]]
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)

    def with_outcome(self, cell: Cell, outcome: Outcome) -> Results:
        """Return these results with one cell's outcome replaced."""
        return replace(self, outcomes={**self.outcomes, cell.node: outcome})

    def continuing(self, earlier: Results | None) -> Results:
        """Return these results with the outcomes of an earlier run, if that ran the same.

        The same is the same commit without changes, with the same versions of everything.
        """
        if earlier is None or " " in self.commit:
            return self
        same = replace(earlier, date=self.date, outcomes=self.outcomes) == self
        return replace(self, outcomes=earlier.outcomes) if same else self

    def to_json(self) -> str:
        """Return the results as a document that :meth:`from_json` reads."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Results | None:
        """Return the results of a document, or None if it is no such document."""
        try:
            read = json.loads(text)
            outcomes = {
                node: Outcome(Word(outcome["word"]), float(outcome["seconds"]))
                for node, outcome in read.pop("outcomes").items()
            }
            return cls(**read, outcomes=outcomes)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


def table(results: Results, cells: Sequence[Cell] = CELLS) -> str:
    """Return the table of a run in Markdown, below a line that says what was run."""
    rows = list(dict.fromkeys(cell.row for cell in cells))
    head = ["", *Column, "loader's packages"]
    lines = [
        f"Run at commit {results.commit} on {results.date}, with {results.machines}.",
        "",
        _line(head),
        "|---" * len(head) + "|",
    ]
    for row in rows:
        found = {cell.column: cell for cell in cells if cell.row == row}
        words = [
            str(results.outcomes.get(found[column].node, Outcome()))
            if column in found
            else IMPOSSIBLE
            for column in Column
        ]
        versions = results.loaders[row.tree]
        packages = ", ".join(f"{name} {versions[name]}" for name in row.packages)
        lines.append(_line([row.title, *words, packages]))
    return "\n".join(lines) + "\n"


def _line(fields: Sequence[str]) -> str:
    return f"| {' | '.join(fields)} |".replace("|  |", "| |")
