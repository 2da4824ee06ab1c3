"""HTML page of a run report."""

from collections.abc import Mapping, Sequence
from typing import Final

from llmdirect.benchmark.table import caption, verdicts
from llmdirect.common.types import Json
from llmdirect.config import TrainConfig
from llmdirect.explanation.explainer import Explainer
from llmdirect.reports.catalogue import Catalogue
from llmdirect.reports.explanation_page import article, legend
from llmdirect.reports.html import policy, safe
from llmdirect.reports.plots import STYLE as PLOT_STYLE
from llmdirect.reports.plots import Line, intervals, lines
from llmdirect.reports.style import STYLE
from llmdirect.reports.wording import item_name, lead_sentence, rank_sentence

_RULES: Final = """
.grid2{display:grid;gap:1rem;grid-template-columns:minmax(0,1fr)}
@media (min-width:56rem){.grid2{grid-template-columns:repeat(2,minmax(0,1fr))}}
.grid2>.card{margin:0} main>section,main>.grid2,main>details{margin-bottom:1rem}
h2{margin:2rem 0 .75rem} .card h3{margin-top:0}
.key-figures{display:flex;flex-wrap:wrap;gap:.5rem 2.5rem;margin:1rem 0 1.5rem}
.key-figures div{display:grid} .key-figures strong{font-size:1.6rem;line-height:1.2}
pre{overflow-x:auto;background:var(--page);border:1px solid var(--border);border-radius:8px;
 padding:.75rem 1rem;font-size:.875rem;line-height:1.6;margin:0}
details.one{background:var(--card);border:1px solid var(--border);border-radius:12px;padding:.25rem 1.25rem}
details.one>summary{color:var(--text);padding:.6rem 0;font-size:1rem} details.one article{margin:1rem 0}
details.one .card .card{border:0}
.grid2+*{margin-top:1rem} details.one+details.one{margin-top:.5rem}
nav.contents{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem}
"""


def render(
    explainer: Explainer,
    *,
    history: Sequence[Json],
    explanations: Sequence[Json],
    scoreboard: Json | None,
    faithfulness: Json | None,
    commands: Sequence[str],
    environment: Mapping[str, str],
) -> str:
    """HTML of the report; see `run_report.report`.

    Parameters
    ----------
    explainer
        The opened run.
    history
        One record an epoch, as in history.jsonl.
    explanations
        Explanations of one item for each of some users.
    scoreboard, faithfulness
        Results of these commands; None leaves the section out.
    commands
        Shell commands that reproduce the run.
    environment
        Versions of the system and of packages.
    """
    name = f"{explainer.texts.dataset.path.name}: {explainer.trained.run.path.name}"
    sections = {
        "Data": _data(explainer),
        "Training": _training(explainer, history),
        "Scoreboard": _scoreboard(scoreboard),
        "Aspects": _aspects(Catalogue(explainer)),
        "Recommendations": _recommendations(explanations),
        "Faithfulness": _faithfulness(faithfulness),
        "Reproduce": _reproduce(commands, environment),
    }
    shown = {title: content for title, content in sections.items() if content}
    links = "".join(f'<a href="#{title.lower()}">{title}</a>' for title in shown)
    body = "".join(
        f'<section id="{title.lower()}"><h2>{title}</h2>{content}</section>\n'
        for title, content in shown.items()
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{policy(explanations)}"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(name)}</title>\n<style>{STYLE}{PLOT_STYLE}{_RULES}</style>\n</head>\n<body>\n"
        f'<div class="wrap"><header><h1><bdi>{safe(name)}</bdi></h1>{_headline(explainer, history)}'
        f'<nav class="contents" aria-label="Contents">{links}</nav></header>\n'
        f"<main>\n{body}</main></div>\n</body>\n</html>\n"
    )


def _headline(explainer: Explainer, history: Sequence[Json]) -> str:
    trained = explainer.trained
    training = trained.run.train_config
    figures = [(f"{len(trained.users.ids):,}", "users"), (f"{len(trained.item_ids):,}", "items")]
    figures.append((f"{explainer.texts.store.num_rows:,}", "token embeddings"))
    if history:
        best = _best(training, history)["valid"][training.watched]
        term = "" if training.lower_is_better else " of the text term"
        figures.append((f"{best:.4f}", f"{training.watched}{term} on validation, best epoch"))
    return (
        '<div class="key-figures">'
        + "".join(
            f'<div><strong class="num">{value}</strong><span class="muted small">{safe(what)}</span></div>'
            for value, what in figures
        )
        + "</div>"
    )


def _facts(title: str, facts: Mapping[str, object]) -> str:
    entries = "".join(
        f"<dt>{safe(name.replace('_', ' '))}</dt><dd><bdi>{safe(value)}</bdi></dd>"
        for name, value in facts.items()
    )
    return f'<div class="card"><h3>{safe(title)}</h3><dl class="facts small">{entries}</dl></div>'


def _data(explainer: Explainer) -> str:
    dataset, store, run = explainer.texts.dataset, explainer.texts.store, explainer.trained.run
    counts, options = dataset.manifest["counts"], dataset.manifest["options"]
    split = ", ".join(f"{name} {count:,}" for name, count in counts["per_split"].items())
    data = {
        "users": f"{counts['users']:,}",
        "items": f"{counts['items']:,}",
        "interactions": f"{counts['interactions']:,}",
        "density": f"{counts['density']:.3%}",
        "split": f"{options['split']}, seed {options['seed']}: {split}",
        "positive": options["positive"] or "every interaction",
        "words of a text, median": counts["median_words"],
        "rows dropped": f"{counts['duplicates_dropped']:,} repeated, {counts['bad_lines']:,} unreadable",
        "copies of a text kept in one split": counts["copies_kept_together"]["interactions"],
        "hash": dataset.hash,
    }
    encoder = store.encoder
    limit = encoder.get("max_length")
    embeddings = {
        "encoder": encoder.get("id", "unnamed"),
        "revision": encoder.get("revision") or "",
        **({"longest text": f"{limit} tokens, longer ones in windows"} if limit else {}),
        "passages": f"{store.num_passages:,}",
        "tokens": f"{store.num_rows:,}",
        "embedding": f"{store.dim} numbers, {store.dtype}",
        "hash": store.hash,
    }
    shape = {**run.manifest["config"]["model"], "weight of collaboration": ""}
    shape["weight of collaboration"] = f"{float(explainer.trained.model.collaboration):.3g}"
    return (
        f'<div class="grid2">{_facts("Reviews", data)}{_facts("Token embeddings", embeddings)}</div>'
        '<details class="one"><summary>All settings of the model and its training</summary>'
        '<div class="grid2">'
        f"{_facts('Model', shape)}{_facts('Training', run.manifest['config']['training'])}</div></details>"
    )


def _training(explainer: Explainer, history: Sequence[Json]) -> str:
    if not history:
        return ""
    training = explainer.trained.run.train_config
    metric = training.watched
    epochs = [entry["epoch"] for entry in history]
    names = sorted({name for entry in history for name in entry["losses"]} - {"loss"})
    shown = ["loss"] if len(names) < 2 else ["loss", *names]
    losses = [
        Line(name, *_points(epochs, [entry["losses"].get(name) for entry in history])) for name in shown
    ]
    curves = [
        Line(title, *_points(epochs, [entry.get(key, {}).get(metric) for entry in history]))
        for key, title in (("valid", "validation"), ("train_left_out", "train, each pair left out"))
    ]
    curves = [curve for curve in curves if curve.x]
    best = _best(training, history)["epoch"]
    plots = f'<div class="card">{lines("Loss", "epoch", "loss", losses)}</div>'
    title = f"{metric} (dashed: best epoch, {best})"
    plots += f'<div class="card">{lines(title, "epoch", metric, curves, best)}</div>'
    seconds = sum(entry["seconds"] for entry in history)
    return (
        f'<div class="grid2">{plots}</div><p class="muted small">{len(history)} epochs in {seconds:,.0f} s. '
        "Full ranking; each train pair is scored as if it were not in the data. The collaborative term is "
        "added after these epochs.</p>"
    )


def _best(training: TrainConfig, history: Sequence[Json]) -> Json:
    """The first of the best epochs."""
    sign = -1 if training.lower_is_better else 1
    return max(history, key=lambda entry: sign * float(entry["valid"][training.watched]))


def _points(x: Sequence[float], y: Sequence[float | None]) -> tuple[list[float], list[float]]:
    points = [(position, value) for position, value in zip(x, y, strict=True) if value is not None]
    return [position for position, _ in points], [value for _, value in points]


def _scoreboard(result: Json | None) -> str:
    if result is None:
        return ""
    cards = "".join(_protocol_card(result, protocol) for protocol in result["protocols"])
    sentences = "".join(f"<p>{safe(sentence)}</p>" for sentence in verdicts(result))
    return f'{cards}{sentences}<p class="muted small">{safe(caption(result))}</p>'


def _protocol_card(result: Json, protocol: str) -> str:
    metric = result["metrics"][0]
    figures = [(row["model"], row["protocols"][protocol]) for row in result["rows"]]
    rows = [
        (name, *(float(values["metrics"][metric][end]) for end in ("low", "mean", "high")))
        for name, values in figures
        if not values["failed"]
    ]
    rows.sort(key=lambda row: -row[2])
    plot = intervals(
        f"{metric} on the test split, {protocol}", f"{metric}, 95 % intervals over users", rows, "llmdirect"
    )
    failed = "".join(
        f'<p class="small"><bdi>{safe(name)}</bdi>: {safe(values["failed"])}</p>'
        for name, values in figures
        if values["failed"]
    )
    return f'<div class="card">{plot}{failed}</div>'


def _aspects(catalogue: Catalogue) -> str:
    names = catalogue.explainer.trained.aspect_names
    items, users = catalogue.item_shares.mean(0), catalogue.user_shares.mean(0)
    widest = max(float(items.max()), float(users.max()), 1e-12)
    rows = "".join(
        f'<tr><th scope="row"><bdi>{safe(names[aspect])}</bdi><svg class="bar" aria-hidden="true"><rect '
        f'class="for" width="{users[aspect] / widest * 100:.2f}%" height="10" rx="2"/></svg></th>'
        f'<td class="num">{users[aspect]:.1%}</td><td class="num">{items[aspect]:.1%}</td></tr>'
        for aspect in sorted(catalogue.aspects, key=lambda aspect: -users[aspect])
    )
    return (
        '<div class="card"><table><thead><tr><th scope="col">Aspect, by its top words</th>'
        '<th scope="col" class="num">of interest</th><th scope="col" class="num">of texts</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _recommendations(explanations: Sequence[Json]) -> str:
    if not explanations:
        return ""
    shown = "".join(
        f'<details class="one"><summary><strong><bdi>{safe(item_name(entry))}</bdi></strong> '
        f'<span class="muted">{safe(rank_sentence(entry))} {safe(lead_sentence(entry["lead"]))}</span>'
        "</summary>"
        f"{article(number, entry)}</details>\n"
        for number, entry in enumerate(explanations, 1)
    )
    return (
        '<p class="muted">The best item of users evenly spread over the data, without selection; open an '
        f"item to see the words.</p>{shown}{legend()}"
    )


def _faithfulness(result: Json | None) -> str:
    if result is None:
        return ""
    plots = "".join(
        '<div class="card">'
        + lines(
            title,
            "words, % of the text",
            "score after encoding again",
            [
                Line(
                    method.replace("_", " "),
                    [100 * share for share in curve["share"]],
                    curve["score"],
                )
                for method, curve in result[name].items()
            ],
        )
        + "</div>"
        for name, title in (
            ("deletion", "Strongest words removed first: lower is better"),
            ("insertion", "Strongest words inserted first: higher is better"),
        )
    )
    rows = "".join(
        f'<tr><th scope="row">{safe(method.replace("_", " "))}</th>'
        + "".join(
            f'<td class="num">{interval["mean"]:.3f} ({interval["low"]:.3f} to {interval["high"]:.3f})</td>'
            for interval in (result["comprehensiveness"][method], result["sufficiency"][method])
        )
        + "</tr>"
        for method in result["comprehensiveness"]
    )
    return (
        f'<div class="grid2">{plots}</div><div class="card"><table><thead><tr>'
        '<th scope="col">Words by</th>'
        '<th scope="col" class="num">comprehensiveness: decrease of the score without them</th>'
        '<th scope="col" class="num">sufficiency: decrease with them alone</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        '<p class="muted small">The words are removed from the texts, which are encoded again. '
        f"{result['pairs']:,} recommendations; figures are means over the shares of words, with 95 % "
        "intervals.</p>"
    )


def _reproduce(commands: Sequence[str], environment: Mapping[str, str]) -> str:
    return (
        '<div class="card"><h3>The commands</h3><pre tabindex="0">'
        f"{safe(chr(10).join(commands))}</pre></div>{_facts('Environment of this report', environment)}"
    )
