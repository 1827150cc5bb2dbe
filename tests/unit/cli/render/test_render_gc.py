from __future__ import annotations

from bootc.cli.render.gc import collection_text
from bootc.repository.gc import GcReport


def test_a_report_in_words() -> None:
    assert collection_text(GcReport(0, 0, 0, 0, 0, ())) == "Objects: 0 removed (0 bytes)\n"
    assert collection_text(GcReport(12, 3400, 1, 3, 0, ())) == (
        "Objects: 12 removed (3400 bytes)\nPruned symlinks: 1 images, 3 streams\n"
    )
