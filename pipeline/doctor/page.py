"""docs/failures.md, written from failures.yaml: ``python -m pipeline.doctor.page``."""

from __future__ import annotations

from pathlib import Path

from pipeline.doctor.findings import Failure, failures

_HEAD = """# Known failures: what `marquee doctor` says beforehand, and what Google says afterwards

Written by `python -m pipeline.doctor.page` from `pipeline/doctor/failures.yaml` and
`pipeline/rules/rules.yaml`; change those, not this page. Text in braces stands for a value.
"Text not verified" means that the wording is ours. Nothing here has been run against Google itself; it was
read in Google's documentation, in its SDK and in the threads that quote its service.

| fault | reported in | `marquee doctor` says | cure | Google says |
|---|---|---|---|---|
"""


def failures_page() -> str:
    """The whole page."""
    return _HEAD + "".join(_row(failure) for failure in failures().values())


def _row(failure: Failure) -> str:
    cells = (
        failure.fault,
        ", ".join(failure.threads) or "-",
        f"({failure.level}) {failure.doctor}",
        failure.cure,
        failure.google + ("" if failure.google_verified else " (text not verified)"),
    )
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


if __name__ == "__main__":
    (Path(__file__).parents[2] / "docs" / "failures.md").write_text(failures_page(), encoding="utf-8")
