"""`llmdirect aspects`."""

from typing import Annotated, Any

import typer
from rich.table import Table

from llmdirect.cli.console import JsonFlag, emit, literal, print_text, stdout
from llmdirect.cli.options import RunArgument


def aspects(
    run: RunArgument,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="ASPECT=NAME", help="Rename an aspect. An empty NAME restores its top words."),
    ] = None,
    merge: Annotated[
        list[str] | None, typer.Option(metavar="ASPECT,ASPECT", help="Merge these aspects into one.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="ASPECT,…", help="Undo the merge of these aspects.")
    ] = None,
    off: Annotated[
        str | None, typer.Option(metavar="ASPECT,…", help="Switch these aspects off: rankings ignore them.")
    ] = None,
    on: Annotated[str | None, typer.Option(metavar="ASPECT,…", help="Switch these aspects on again.")] = None,
    examples: Annotated[
        bool, typer.Option("--examples", help="Show an example sentence of each aspect.")
    ] = False,
    quality: Annotated[
        bool,
        typer.Option(
            "--quality",
            help=(
                "Measure the quality of aspects: coherence, uniqueness, usage entropy, "
                "agreement with star ratings (AUC)."
            ),
        ),
    ] = False,
    other_runs: Annotated[
        str | None,
        typer.Option(
            metavar="RUN,…",
            help="Also measure stability, the overlap of top words with these runs.",
        ),
    ] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Delete all earlier edits (names, merges, aspects switched off).")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the aspects of a run; rename, merge or switch them off for every ranking.

    Examples:

      llmdirect aspects run

      llmdirect aspects run --examples --quality --other-runs run-seed-1,run-seed-2

      llmdirect aspects run --rename 3=strings --merge 4,7 --off 2
    """
    from llmdirect.aspects.overview import aspect_overview, edit_aspects
    from llmdirect.common.conditions import check_conditions

    check_conditions("aspects", {"other_runs": other_runs, "quality": quality or None})
    if rename or merge or split or off or on or reset:
        names = {}
        for option in rename or []:
            aspect, equals, name = option.partition("=")
            if not equals:
                raise typer.BadParameter(f"--rename {option}: expected ASPECT=NAME")
            [number] = _numbers("--rename", aspect)
            if number in names:
                raise typer.BadParameter(f"--rename {option}: aspect {number} is renamed twice; name it once")
            names[number] = name
        edit_aspects(
            run,
            rename=names,
            merge=[_numbers("--merge", group) for group in merge or []],
            split=_numbers("--split", split),
            off=_numbers("--off", off),
            on=_numbers("--on", on),
            reset=reset,
        )
    result = aspect_overview(run, examples)
    if quality:
        from llmdirect.aspects.evidence import run_quality

        result["quality"] = run_quality(run, other_runs.split(",") if other_runs else [])
    if as_json:
        emit(result)
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right", style="dim")
    table.add_column("aspect", style="bold")
    table.add_column("share", justify="right")
    table.add_column("highest in", style="dim")
    for entry in result["aspects"]:
        name = f"{entry['name']} (off)" if entry["off"] else entry["name"]
        items = ", ".join(item["title"] or item["item_id"] for item in entry["items"])
        table.add_row(
            "+".join(map(str, entry["merged"])), literal(name), f"{entry['share']:.1%}", literal(items)
        )
        if entry.get("example"):
            table.add_row("", literal(entry["example"], style="dim italic"), "", "")
    stdout().print(table)
    if quality:
        print_text(_quality(result["quality"]))


def _quality(quality: dict[str, Any]) -> str:
    lines = [
        f"coherence {quality['coherence']:.3f} (NPMI of top words), uniqueness {quality['uniqueness']:.3f}, "
        f"entropy of usage {quality['usage_entropy']:.3f}"
    ]
    if quality["stability"] is not None:
        lines.append(f"stability {quality['stability']:.3f} (Jaccard with the other runs)")
    stars = quality["stars"]
    if stars is not None:
        lines.append(
            f"stars: AUC {stars['auc']:.3f} of summed words, "
            f"{stars['liked']:,} rated {stars['liked_from']:g} or more against "
            f"{stars['disliked']:,} rated {stars['disliked_to']:g} or less"
        )
    else:
        lines.append("stars: not measured; needs reviews with high and with low ratings")
    return "\n".join(lines)


def _numbers(option: str, text: str | None) -> list[int]:
    """Numbers of a comma-separated list: [4, 7] for "4,7"."""
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise typer.BadParameter(f"{option} {text}: expected numbers of aspects, such as 4,7") from None
