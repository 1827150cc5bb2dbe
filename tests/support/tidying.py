"""Machines that need a clean-up: what is on them, and steps that fail."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from bootc.deploy import cleanup, execute
from bootc.deploy.plan.steps import (
    Step,
)
from support.bench import Bench

TRIED_AGAIN = "bootc internals composefs-gc"


def collect(bench: Bench, **more: Any) -> None:
    bench.machine.command(lambda system, sink: cleanup.collect_garbage(system, sink, **more))


def objects(bench: Bench) -> int:
    return len(list((bench.machine.physical / "composefs/objects").glob("*/*")))


def tags(bench: Bench) -> int:
    return len(os.listdir(bench.machine.physical / "composefs/streams/refs/oci"))


def kernels(bench: Bench) -> int:
    return len(list((bench.machine.esp / "EFI/Linux").glob("bootc_composefs-*")))


def kinds(bench: Bench) -> list[str]:
    findings = bench.machine.status()["status"].get("findings", [])
    return [finding["kind"] for finding in findings]


def left_over(bench: Bench) -> list[str]:
    """Return what status says of things that could not be removed."""
    findings = bench.machine.status()["status"].get("findings", [])
    return [finding["text"] for finding in findings if finding["kind"] == "leftover"]


#: How many states, kernels, tags and objects there are, and whether there is a staged menu.
Counts = tuple[int, int, int, int, bool]


def counts(bench: Bench) -> Counts:
    staged = (bench.machine.esp / "loader/entries.staged").exists()
    return len(bench.machine.states()), kernels(bench), tags(bench), objects(bench), staged


def tidy_counts(bench: Bench) -> Counts:
    collect(bench)
    return counts(bench)


def fail_step(patch: pytest.MonkeyPatch, fails: Callable[[Step], bool]) -> list[Step]:
    """Let some steps of plans fail; return the list that those are added to."""
    failed: list[Step] = []
    carry_out = execute._carry_out

    def failing(step: Step, *args: Any) -> None:
        if fails(step):
            failed.append(step)
            raise OSError(errno.EIO, os.strerror(errno.EIO), "/the/thing")
        carry_out(step, *args)

    patch.setattr(execute, "_carry_out", failing)
    return failed
