"""`llmdirect audit`."""

from typing import TYPE_CHECKING, Annotated

import typer

from llmdirect.cli.console import Bars, JsonFlag, emit, print_text, stderr
from llmdirect.cli.flags import with_flags
from llmdirect.cli.options import DatasetArgument

if TYPE_CHECKING:
    from llmdirect.store.audit import AuditReport


def audit(
    dataset: DatasetArgument,
    quick: Annotated[
        bool, typer.Option("--quick", help="Skip the checksums of the stores, which read every byte.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check a dataset for damaged files, wrong indices, damaged stores, and held-out texts copied in train.

    The exit code is 1 if a validation or test text has a copy in train by the same user or about the same
    item, or if anything else is wrong.

    Example:

      llmdirect audit instruments
    """
    from llmdirect.store.audit import audit as work

    report = work(dataset, verify_stores=not quick, progress=Bars())
    if as_json:
        emit(report.to_json())
    else:
        _show_audited(report)
    if not report.ok:
        raise typer.Exit(1)


def _show_audited(report: "AuditReport") -> None:
    for note in report.notes:
        print_text(f"note: {with_flags(note)}")
    for problem in report.problems:
        print_text(f"problem: {with_flags(problem)}")
    for leak in report.leaks:
        print_text(
            f"leak: {leak.split} text of user {leak.user_id} on item {leak.item_id} is in train too "
            f"({leak.relation}: user {leak.train_user_id} on {leak.train_item_id}): {leak.text!r}"
        )
    if report.num_leaks > len(report.leaks):
        print_text(f"and {report.num_leaks - len(report.leaks):,} more leaks")
    if report.ok:
        print_text(f"{report.dataset}: files, indices and splits are sound")
    else:
        stderr().print(
            f"{report.dataset}: {report.num_leaks:,} leaks, {len(report.problems):,} problems",
            highlight=False,
            markup=False,
        )
