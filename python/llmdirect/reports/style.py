"""Style sheet of explanation pages, light and dark.

The shade of a marked word shows the size of its contribution, the hue its sign. The underline (solid for,
dashed against) shows the sign without colour.
"""

from typing import Final

LIGHT: Final = {
    "page": "#f4f6f8",
    "card": "#ffffff",
    "text": "#1b2128",
    "muted": "#56616d",
    "border": "#d7dde3",
    "link": "#0a58a6",
    "for": "#0a58a6",
    "for1": "#e8f2fb",
    "for2": "#cde3f7",
    "for3": "#a6cef0",
    "for4": "#79b6e8",
    "against": "#9a4a00",
    "against1": "#fdf0e1",
    "against2": "#fbdcb8",
    "against3": "#f8c283",
    "against4": "#f3a64f",
    "words": "#0e5f6b",
    "on-words": "#ffffff",
    "popularity": "#7a55b0",
    "on-popularity": "#ffffff",
    "collaboration": "#a3afb9",
    "on-collaboration": "#1b2128",
}

DARK: Final = {
    "page": "#0f1318",
    "card": "#181d24",
    "text": "#e7edf3",
    "muted": "#9eabb8",
    "border": "#303843",
    "link": "#74b9ff",
    "for": "#74b9ff",
    "for1": "#14283c",
    "for2": "#163858",
    "for3": "#194b79",
    "for4": "#1d5f9a",
    "against": "#ffb35c",
    "against1": "#33240f",
    "against2": "#4a3110",
    "against3": "#664211",
    "against4": "#825212",
    "words": "#5fc3d0",
    "on-words": "#0f1318",
    "popularity": "#b194e0",
    "on-popularity": "#0f1318",
    "collaboration": "#687480",
    "on-collaboration": "#ffffff",
}


def _variables(palette: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in palette.items())


_SHADES = "".join(
    f".{sign}{level}{{background:var(--{sign}{level})}}"
    for sign in ("for", "against")
    for level in range(1, 5)
)
_PARTS = "".join(
    f".part-{part}{{fill:var(--{part});background:var(--{part})}}.lead .on-{part}{{fill:var(--on-{part})}}"
    for part in ("words", "popularity", "collaboration")
)

_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--text);
 font:1rem/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;overflow-wrap:anywhere}
.wrap{max-width:72rem;margin:0 auto;padding:1.5rem 1rem 3rem}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .25rem}
h2{font-size:1.35rem;line-height:1.3;margin:0}
h3{font-size:1.05rem;line-height:1.3;margin:0 0 .75rem}
h4{font-size:1rem;margin:0}
#how-to-read h2{margin-bottom:.75rem}
p{margin:0 0 .75rem}
a{color:var(--link)}
a:focus-visible,summary:focus-visible{outline:3px solid var(--link);outline-offset:2px;border-radius:3px}
.muted{color:var(--muted)}
.small{font-size:.875rem}
.note{color:var(--muted);font-size:.8125rem;font-weight:400}
.num{font-variant-numeric:tabular-nums;white-space:nowrap}
.skip{position:absolute;left:-999rem}
.skip:focus{left:1rem;top:.5rem;background:var(--card);padding:.25rem .75rem}
.card{background:var(--card);border:1px solid var(--border);border-radius:12px;
 padding:1.25rem;margin:0 0 1rem;min-width:0}
article{margin:2rem 0 3rem}
article>header{margin-bottom:1rem}
.item{display:flow-root} .item>:is(h1,h2){margin-top:0}
.product{float:inline-end;margin:0 0 .5rem 1rem;width:7rem;height:7rem;object-fit:contain;background:#fff;
 color:#56616d;border:1px solid var(--border);border-radius:10px;font-size:.75rem;overflow:hidden}
.headline{font-size:1.15rem;line-height:1.5;margin:.5rem 0 0;max-width:48rem;text-wrap:pretty}
.index{list-style:none;margin:.75rem 0 0;padding:0;display:grid;gap:.5rem}
.index li{background:var(--card);border:1px solid var(--border);border-radius:10px;padding:.65rem 1rem}
.index a{font-weight:600}
.columns{display:grid;gap:1rem;grid-template-columns:minmax(0,1fr);align-items:start}
@media (min-width:60rem){.columns{grid-template-columns:minmax(0,1fr) 22rem}}
.lead svg{display:block;overflow:visible;margin:0 0 .5rem}
.lead text{font-size:13px;fill:var(--text);font-variant-numeric:tabular-nums}
.lead .inside{font-weight:600}
.lead .axis{stroke:var(--muted);stroke-width:1.5}
.lead .caption{fill:var(--muted)}
figure{margin:0}
.under{margin:.75rem 0 0}
.parts{list-style:none;margin:0;padding:0;display:grid;gap:.5rem 1.5rem}
@media (min-width:48rem){.parts{grid-template-columns:repeat(3,1fr)}}
.parts li{display:grid;grid-template-columns:auto 1fr;column-gap:.6rem;align-content:start}
.parts .what{grid-column:2}
.swatch{width:.85rem;height:.85rem;border-radius:3px;align-self:center}
.label{margin:0 0 .35rem}
.chips{list-style:none;display:flex;flex-wrap:wrap;gap:.4rem;margin:0 0 1rem;padding:0}
.chips li{padding:.15rem .6rem;border-radius:999px;border:1px solid var(--border)}
.chips .for{border:1.5px solid var(--for)}
.chips .against{border:1.5px dashed var(--against)}
mark{color:inherit;background:none;text-decoration-line:underline;text-decoration-thickness:2px;
 text-underline-offset:.22em;text-decoration-skip-ink:none;border-radius:2px;
 -webkit-box-decoration-break:clone;box-decoration-break:clone;cursor:help}
mark.for{text-decoration-color:var(--for);text-decoration-style:solid}
mark.against{text-decoration-color:var(--against);text-decoration-style:dashed}
.passage{border-top:1px solid var(--border);padding:1rem 0 .25rem}
.passage header{display:flex;flex-wrap:wrap;gap:0 1rem;justify-content:space-between;margin-bottom:.4rem}
.text{line-height:1.85;white-space:pre-line;margin:0 0 .6rem;max-width:44rem}
.excerpt{white-space:normal}
.passage:has(>details[open])>.text{display:none}
.gap{color:var(--muted)}
details{margin:0 0 .5rem}
summary{cursor:pointer;color:var(--link);padding:.35rem 0;font-size:.9375rem}
details[open]>summary{margin-bottom:.5rem}
table{width:100%;border-collapse:collapse;font-size:.9375rem}
caption{text-align:start;color:var(--muted);font-size:.875rem;padding-bottom:.35rem}
th,td{padding:.4rem .5rem .4rem 0;text-align:start;vertical-align:top;border-bottom:1px solid var(--border)}
tbody tr:last-child>*{border-bottom:0}
th{font-weight:500}
thead th{font-size:.8125rem;color:var(--muted)}
td.num,th.num{text-align:end;padding-right:0;padding-left:.5rem}
.bar{display:block;width:100%;height:10px;margin-top:.3rem;overflow:visible}
.bar .zero{stroke:var(--muted)}
.bar .for{fill:var(--for)} .bar .against{fill:var(--against)}
.total>*{border-top:2px solid var(--border);font-weight:600}
ol.history{margin:0;padding:0;list-style:none;display:grid;gap:.6rem}
ol.history .row{display:flex;gap:.75rem;justify-content:space-between}
dl{margin:0;display:grid;gap:.35rem 1rem}
dt{font-weight:600} dd{margin:0 0 .5rem}
.facts{grid-template-columns:auto minmax(0,1fr)} .facts dd{margin:0}
.scale{display:flex;flex-wrap:wrap;gap:.35rem 1.25rem;margin:0 0 .75rem}
@media (max-width:30rem){.wrap{padding:1rem .75rem 2rem}.card{padding:1rem}.headline{font-size:1.05rem}}
@media (forced-colors:active){.swatch,.lead rect,.bar rect{forced-color-adjust:none}}
@media print{body{background:none}.card{break-inside:auto}}
"""

STYLE: Final = (
    f":root{{color-scheme:light dark;{_variables(LIGHT)}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}{_RULES}{_SHADES}{_PARTS}"
)
