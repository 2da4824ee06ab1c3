"""Scoreboard as Markdown tables and as an SVG bar chart."""

from html import escape
from typing import Any

from llmdirect.common.types import Json

_ROW_HEIGHT, _LABEL_WIDTH, _BAR_WIDTH = 22, 190, 470
"""Pixels of the chart."""
_DESCRIPTIONS = {
    "random": "random splits by user, 70/10/20",
    "leave-last-out": "the last event of each user is tested, the one before it is validation",
    "global-time": "five cuts in time; what came after a cut is tested, in windows of a tenth of all events",
    "mmrec": "random splits by user, 80/10/10",
    "alpharec": "random splits by user, 40/30/30, of users with 20 interactions or more",
    "cold-items": "a tenth of the items has no interaction in train; half of their reviews are known, the "
    "users of the other half are tested, and these items alone are ranked",
    "new-users": "a tenth of the users has no interaction in train; their older four fifths are the "
    "history, the newest fifth is tested",
    "own": "the dataset's own split",
}
_IN_TIME = ("leave-last-out", "global-time", "own")
_DETAILS = {
    "head": "head",
    "tail": "tail",
    "coverage": "cover",
    "gini": "Gini",
    "novelty": "novelty",
    "diversity": "diversity",
    "validation": "valid",
    "train_left_out": "train left out",
}


def caption(result: Json) -> str:
    """Caption of the first table: data, protocols, and how it was measured."""
    half = {"report": "the report half of the users", "development": "the development half of the users"}
    parts = [
        f"NDCG@10 with 95 % intervals over users, full ranking of {result['num_items']:,} items; measured on "
        f"{half.get(result['users'], 'all users')}; embeddings of {result['encoder']}; "
        f"positive: {result['positive']}. Settings are chosen on validation, at most {result['minutes']:g} "
        "minutes a row. ratio: the mean of llmdirect over that of the row, of the same users."
    ]
    for protocol, figures in result["protocols"].items():
        parts.append(f"{protocol}: {_describe(protocol, figures)}.")
    if result["query_time"] == "event":
        parts.append("Every query comes at the time of the tested event itself.")
    return " ".join(parts)


def _describe(protocol: str, figures: Json) -> str:
    text = f"{_DESCRIPTIONS[protocol]}; {figures['num_users']:,} users"
    if figures["splits"] > 1:
        text += f", {figures['splits']} splits"
    if figures["tied_share"] and protocol in _IN_TIME:
        text += f"; {figures['tied_share']:.0%} of the tested events have the time of the event before"
    if figures["num_without_history"]:
        text += f"; {figures['num_without_history']:,} users without an earlier event are left out"
    return text


def verdicts(result: Json) -> list[str]:
    """A sentence for each protocol: where our row stands beside the best other one."""
    return [
        f"{protocol}: {figures['verdict']}."
        for protocol, figures in result["protocols"].items()
        if figures["verdict"]
    ]


def markdown(result: Json) -> str:
    """Table of all protocols side by side, verdicts, and a table of details for each protocol."""
    protocols = list(result["protocols"])
    lines = [_line(["model", *(cell for protocol in protocols for cell in (protocol, "ratio"))])]
    lines.append("|---|" + "---:|" * (2 * len(protocols)))
    for row in result["rows"]:
        cells = [cell for protocol in protocols for cell in summary_cells(row["protocols"][protocol])]
        lines.append(_line([label(row), *cells]))
    lines += ["", *(f"- {sentence}" for sentence in verdicts(result)), "", caption(result), ""]
    for protocol in protocols:
        lines += [f"### {protocol}", "", *_details(result, protocol), ""]
    lines.append(_LEGEND)
    return "\n".join(lines) + "\n"


_LEGEND = (
    "p: that llmdirect differs from the row, signs of paired differences flipped at random, corrected for "
    "the number of rows (Holm). head and tail: ndcg@10 where only the most popular items, with half of the "
    "train positives, are relevant, and only the others. Of the top ten: cover, share of the items in any "
    "list; Gini, of how often items are listed; novelty, in bits; diversity, 1 - cosine similarity of the "
    "users of two items. valid and train left out: ndcg@10 on validation, and on train pairs, each scored as "
    "if it did not exist. trials: settings tried; * the best one lies at a border of its range. s: seconds "
    "of tuning, and of fits. Rows in italics are parts or simpler forms of llmdirect."
)


def label(row: Json) -> str:
    """Name of a row; that of an ablation in italics."""
    return f"*{row['model']}*" if row["kind"] == "ablation" else str(row["model"])


def summary_cells(figures: Json) -> tuple[str, str]:
    """NDCG@10 with its interval, and the ratio."""
    if figures["failed"]:
        return "-", ""
    interval, ratio = figures["metrics"]["ndcg@10"], figures["ratio"]
    return (
        f"{interval['mean']:.4f} ({interval['low']:.4f}-{interval['high']:.4f})",
        f"{ratio['mean']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})" if ratio else "",
    )


def _details(result: Json, protocol: str) -> list[str]:
    names = ["model", *result["metrics"], "p", *_DETAILS.values(), "trials", "s"]
    lines = [_line(names), "|---|" + "---:|" * (len(names) - 1)]
    for row in result["rows"]:
        figures: Any = row["protocols"][protocol]
        if figures["failed"]:
            reason = " ".join(figures["failed"].split()).replace("|", "\\|")
            lines.append(_line([label(row), f"failed: {reason}", *[""] * (len(names) - 2)]))
            continue
        cells = [f"{figures['metrics'][metric]['mean']:.4f}" for metric in result["metrics"]]
        cells.append("" if figures["p_value"] is None else f"{figures['p_value']:.4f}")
        cells += ["" if figures[key] is None else f"{figures[key]:.4f}" for key in _DETAILS]
        cells.append(f"{figures['trials']}{'*' if figures['at_border'] else ''}")
        cells.append(f"{figures['tuning_seconds']:.0f} + {figures['seconds']:.0f}")
        lines.append(_line([label(row), *cells]))
    return lines


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def plot(result: Json) -> str:
    """SVG bar chart of each row's first metric in the first protocol with its interval, best on top."""
    metric, protocol = result["metrics"][0], next(iter(result["protocols"]))
    rows = [(row, row["protocols"][protocol]) for row in result["rows"]]
    rows = [(row, figures) for row, figures in rows if not figures["failed"]]
    rows.sort(key=lambda pair: -float(pair[1]["metrics"][metric]["mean"]))
    widest = max((figures["metrics"][metric]["high"] for _, figures in rows), default=1.0) or 1.0
    height = _ROW_HEIGHT * (len(rows) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LABEL_WIDTH + _BAR_WIDTH + 70} {height}" '
        'font-family="sans-serif" font-size="12" role="img">',
        f"<title>{escape(metric)} of every row, 95 % intervals over users, {escape(protocol)}</title>",
        f'<rect width="100%" height="{height}" fill="#ffffff"/>',
    ]
    for number, (row, figures) in enumerate(rows):
        interval = figures["metrics"][metric]
        low, mean, high = (
            _LABEL_WIDTH + _BAR_WIDTH * interval[name] / widest for name in ("low", "mean", "high")
        )
        middle = _ROW_HEIGHT * number + _ROW_HEIGHT
        fill = {"ours": "#0b5fa5", "ablation": "#7fb0d6"}.get(row["kind"], "#8a8a8a")
        parts += [
            f'<text x="{_LABEL_WIDTH - 8}" y="{middle + 4}" text-anchor="end">{escape(row["model"])}</text>',
            f'<rect x="{_LABEL_WIDTH}" y="{middle - 7}" width="{mean - _LABEL_WIDTH:.1f}" height="14" '
            f'fill="{fill}"/>',
            f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="#000000" stroke-width="1.5"/>',
            f'<text x="{high + 6:.1f}" y="{middle + 4}">{interval["mean"]:.4f}</text>',
        ]
    axis = f"{escape(metric)}, 95 % intervals over users, {escape(protocol)}"
    parts.append(f'<text x="{_LABEL_WIDTH}" y="{height - 6}">{axis}</text></svg>')
    return "\n".join(parts) + "\n"
