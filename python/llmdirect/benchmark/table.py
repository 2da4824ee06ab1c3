"""Scoreboard as a Markdown table and as an SVG bar chart."""

from html import escape

from llmdirect.common.types import Json

_ROW_HEIGHT, _LABEL_WIDTH, _BAR_WIDTH = 22, 190, 470
"""Pixels of the chart."""


def caption(result: Json, full: bool = True) -> str:
    """Caption of the table: data, protocol, and what its columns mean.

    Parameters
    ----------
    full
        Whether to explain the columns that a terminal has no room for.
    """
    mean = f"mean of {result['splits']} random splits (seeds from 242)"
    protocol = result["protocol"] if result["splits"] == 1 else f"{result['protocol']}, {mean}"
    text = (
        f"{result['num_users']:,} users, {result['num_items']:,} items, full ranking of the test split "
        f"(protocol {protocol}); embeddings of {result['encoder']}; positive: {result['positive']}; "
        f"{'brackets' if full else '± and brackets'}: 95 % intervals over users. "
        "Settings are chosen on the validation of the first split. "
        "valid and train left out: ndcg@10 on validation, and on train pairs each scored as if it did not "
        "exist."
    )
    if full:
        text += (
            " p: that direct differs from the row, signs of paired differences flipped at random, corrected "
            "for the number of rows (Holm). head and tail: ndcg@10 where only the most popular items, with "
            "half of the train positives, are relevant, and only the others. cover: share of items in any "
            "top-10."
        )
    if result["protocol"] == "cold-items":
        text += (
            " A tenth of the items has no interaction in train: they are known by half of their reviews, the "
            "users of the other half are tested, and they alone are ranked, but for those that a user is "
            "known to have."
        )
    if result["detectable"] is not None:
        text += f" Smallest difference to the best other row that would show: {result['detectable']:.1%}."
    return text


def markdown(result: Json) -> str:
    """Markdown table of all columns, with its caption below."""
    names = [
        "model",
        *result["metrics"],
        "direct / row",
        "p",
        "head",
        "tail",
        "cover",
        "valid",
        "train left out",
    ]
    names += ["trials", "seconds", "MB"]
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    for row in result["rows"]:
        if row["failed"]:
            reason = " ".join(row["failed"].split()).replace("|", "\\|")
            lines.append(f"| {row['model']} | failed: {reason} |" + " |" * (len(names) - 2))
            continue
        cells = [f"{row['metrics'][metric]['mean']:.4f}" for metric in result["metrics"]]
        interval, ratio = row["metrics"][result["metrics"][0]], row["ratio_direct"]
        cells[0] += f" ({interval['low']:.4f}-{interval['high']:.4f})"
        cells.append(f"{ratio['mean']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})" if ratio else "")
        cells.append("" if row["p_value_vs_direct"] is None else f"{row['p_value_vs_direct']:.4f}")
        shares = [row[name] for name in ("head", "tail", "coverage", "validation", "train_left_out")]
        cells += ["" if value is None else f"{value:.4f}" for value in shares]
        cells += [str(row["trials"]), f"{row['seconds']:.0f}", f"{row['megabytes']:.1f}"]
        lines.append("| " + " | ".join([row["model"], *cells]) + " |")
    return "\n".join(lines) + f"\n\n{caption(result)}\n"


def plot(result: Json) -> str:
    """SVG bar chart of each row's first metric with its interval, best on top."""
    metric = result["metrics"][0]
    rows = [row for row in result["rows"] if not row["failed"]]
    rows.sort(key=lambda row: -float(row["metrics"][metric]["mean"]))
    widest = max((row["metrics"][metric]["high"] for row in rows), default=1.0) or 1.0
    height = _ROW_HEIGHT * (len(rows) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LABEL_WIDTH + _BAR_WIDTH + 70} {height}" '
        'font-family="sans-serif" font-size="12" role="img">',
        f"<title>{escape(metric)} of every row, 95 % intervals over users</title>",
        f'<rect width="100%" height="{height}" fill="#ffffff"/>',
    ]
    for number, row in enumerate(rows):
        interval = row["metrics"][metric]
        low, mean, high = (
            _LABEL_WIDTH + _BAR_WIDTH * interval[name] / widest for name in ("low", "mean", "high")
        )
        middle = _ROW_HEIGHT * number + _ROW_HEIGHT
        fill = "#0b5fa5" if row["model"].startswith("direct") else "#8a8a8a"
        parts += [
            f'<text x="{_LABEL_WIDTH - 8}" y="{middle + 4}" text-anchor="end">{escape(row["model"])}</text>',
            f'<rect x="{_LABEL_WIDTH}" y="{middle - 7}" width="{mean - _LABEL_WIDTH:.1f}" height="14" '
            f'fill="{fill}"/>',
            f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="#000000" stroke-width="1.5"/>',
            f'<text x="{high + 6:.1f}" y="{middle + 4}">{interval["mean"]:.4f}</text>',
        ]
    axis = f"{escape(metric)}, 95 % intervals over users"
    parts.append(f'<text x="{_LABEL_WIDTH}" y="{height - 6}">{axis}</text></svg>')
    return "\n".join(parts) + "\n"
