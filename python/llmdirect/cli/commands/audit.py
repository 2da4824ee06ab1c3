"""`llmdirect audit`."""

from typing import Annotated, Any

import typer

from llmdirect.cli.console import Bars, JsonFlag, emit, stderr, stdout
from llmdirect.cli.options import DatasetArgument


def audit(
    dataset: DatasetArgument,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read every byte of the stores.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check a dataset: file hashes, indices, copies of held-out texts in train, its stores.

    Exit code 1 where a held-out text has a copy in train by the same user or about the same item, or
    anything else is wrong.

    Example:

      llmdirect audit instruments
    """
    from llmdirect.store.audit import audit as work

    result = work(dataset, verify_stores=not quick, progress=Bars())
    if as_json:
        emit(result)
    else:
        _show_audited(result)
    if not result["ok"]:
        raise typer.Exit(1)


def _show_audited(result: dict[str, Any]) -> None:
    def say(text: str) -> None:
        stdout.print(text, highlight=False, markup=False, soft_wrap=True)

    for note in result["notes"]:
        say(f"note: {note}")
    for problem in result["problems"]:
        say(f"problem: {problem}")
    for leak in result["leaks"]:
        say(
            f"leak: {leak['split']} text of user {leak['user_id']} on item {leak['item_id']} is in train too "
            f"({leak['relation']}: user {leak['train_user_id']} on {leak['train_item_id']}): {leak['text']!r}"
        )
    if result["num_leaks"] > len(result["leaks"]):
        say(f"and {result['num_leaks'] - len(result['leaks']):,} more leaks")
    if result["ok"]:
        say(f"{result['dataset']}: files, indices and splits are sound")
    else:
        stderr.print(
            f"{result['dataset']}: {result['num_leaks']:,} leaks, {len(result['problems']):,} problems",
            highlight=False,
            markup=False,
        )
