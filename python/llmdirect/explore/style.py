"""Style sheet of the pages: that of explanations, and rules for lists, sliders and search."""

from typing import Final

from llmdirect.reports.style import STYLE

_RULES = """
.top{background:var(--card);border-bottom:1px solid var(--border);position:sticky;top:0;z-index:5}
.bar-top{display:flex;align-items:center;gap:.75rem 1.5rem;padding-top:.6rem;padding-bottom:.6rem}
.brand{display:flex;align-items:center;gap:.5rem;font-weight:650;color:var(--text);text-decoration:none}
.logo{width:1.25rem;height:1.25rem}
.top nav{display:flex;gap:1.25rem;margin-left:auto;white-space:nowrap}
.top nav a{color:var(--text);text-decoration:none} .top nav a:hover{text-decoration:underline}
main.wrap{padding-top:1.75rem}
main>.card,main>.halves{margin-bottom:1rem}
h2{font-size:1.15rem;margin:0 0 .75rem}
a.name{font-weight:600;text-decoration:none} a.name:hover{text-decoration:underline}
input[type=search],textarea{width:100%;font:inherit;color:var(--text);background:var(--page);
 border:1px solid var(--border);border-radius:8px;padding:.45rem .75rem}
textarea{display:block;margin-top:.35rem;resize:vertical;line-height:1.5}
input[type=search]::placeholder{color:var(--muted);opacity:1}
:is(input,textarea,button,a,summary):focus-visible{outline:3px solid var(--link);outline-offset:2px;
 border-radius:6px}
input[type=checkbox]{width:1.1rem;height:1.1rem;accent-color:var(--for);margin:0;flex:none}
button{font:inherit;cursor:pointer;border-radius:8px;border:1px solid var(--border);padding:.45rem 1rem;
 background:var(--page);color:var(--text)}
button.primary{background:var(--link);border-color:var(--link);color:var(--card);font-weight:600}
.find{position:relative;flex:1 1 16rem;max-width:26rem}
fieldset .find{max-width:none}
.found{position:absolute;inset:calc(100% + .35rem) 0 auto;background:var(--card);
 border:1px solid var(--border);border-radius:10px;padding:.5rem .75rem;z-index:6;max-height:60vh;
 overflow:auto;box-shadow:0 8px 24px rgb(0 0 0/.16)}
.hero{margin:1rem 0 1.75rem}
.hero h1{font-size:1.9rem;max-width:40rem;text-wrap:balance}
.halves{display:grid;gap:1rem;grid-template-columns:minmax(0,1fr)}
@media (min-width:52rem){.halves{grid-template-columns:repeat(2,minmax(0,1fr))}}
.halves>.card{margin:0}
.stack{display:grid;gap:1rem;align-content:start} .stack>.card{margin:0}
.narrow{max-width:44rem;margin-inline:auto}
ul.links,ul.had,ul.picks,ul.topics,ul.key{list-style:none;margin:0;padding:0}
ul.links li{padding:.5rem 0;border-top:1px solid var(--border);display:flex;flex-wrap:wrap;gap:0 .6rem;
 align-items:baseline}
ul.links li:first-child{border-top:0;padding-top:0}
ul.links li>.num{margin-left:auto}
ul.topics{display:flex;flex-wrap:wrap;gap:.5rem}
ul.topics a{display:block;padding:.3rem .85rem;border:1px solid var(--border);border-radius:999px;
 color:var(--text);text-decoration:none;font-size:.9375rem}
ul.topics a:hover{border-color:var(--link);color:var(--link)}
ul.had{display:flex;flex-wrap:wrap;gap:.4rem}
ul.had>li:not(.more){background:var(--card);border:1px solid var(--border);border-radius:8px;
 padding:.15rem .7rem;font-size:.9375rem}
ul.had .more{flex-basis:100%} ul.had .more summary{padding:0}
ul.picks{display:flex;flex-wrap:wrap;gap:.4rem}
ul.picks label{display:flex;gap:.5rem;align-items:center;border:1px solid var(--border);border-radius:8px;
 padding:.25rem .7rem;cursor:pointer;font-size:.9375rem}
ul.picks label:has(:checked){border-color:var(--link);background:var(--for1)}
.field{display:block;margin-bottom:1rem}
fieldset{border:0;padding:0;margin:0 0 1.25rem;min-width:0}
legend{padding:0;margin-bottom:.4rem}
fieldset .find{margin-bottom:.6rem}
.alert{border:1px solid var(--against);border-left-width:4px;border-radius:8px;padding:.6rem .9rem;
 background:var(--against1)}
blockquote{margin:.5rem 0 1rem;padding:.1rem 0 .1rem 1rem;border-left:3px solid var(--border);
 white-space:pre-line;max-width:48rem}
.who{margin-bottom:1.5rem} .who h1{margin-bottom:.5rem}
.board{display:grid;gap:1.5rem;grid-template-columns:minmax(0,1fr);align-items:start}
@media (min-width:60rem){
 .board{grid-template-columns:minmax(0,1fr) 20rem} .board aside{order:2;position:sticky;top:4.25rem;
  max-height:calc(100vh - 5rem);overflow:auto}
 .fold>summary{pointer-events:none;list-style:none} .fold>summary::-webkit-details-marker{display:none}
}
.what-if{margin:0} .what-if h2{display:inline} .fold>summary{color:var(--text);padding:0}
.what-if details{margin:0}
.slider{display:grid;grid-template-columns:minmax(0,1fr) auto;gap:.15rem .75rem;padding:.55rem 0;
 border-top:1px solid var(--border);font-size:.9375rem;line-height:1.35}
.slider output{color:var(--muted)} .slider.moved output{color:var(--text);font-weight:650}
.slider input{grid-column:1/-1;width:100%;accent-color:var(--for);margin:.15rem 0 0;height:1.25rem}
.checks{border-top:1px solid var(--border);padding:.75rem 0;display:grid;gap:.5rem}
.check{display:flex;gap:.6rem;align-items:center}
.buttons{display:flex;gap:1rem;align-items:center}
.js .apply{display:none}
.list-head{display:flex;flex-wrap:wrap;gap:.25rem 1.5rem;align-items:baseline;justify-content:space-between}
.list-head h2{font-size:1.35rem;margin:0}
ul.key{display:flex;gap:1rem} ul.key li{display:flex;gap:.4rem;align-items:center}
#list>p{margin:.15rem 0 .75rem}
ol.recs{list-style:none;margin:0;padding:0;display:grid;gap:.5rem}
.rec{position:relative;background:var(--card);border:1px solid var(--border);border-radius:12px}
.rec>details{margin:0}
.rec>details>summary{display:grid;grid-template-columns:1.75rem minmax(0,1fr) minmax(9rem,17rem);gap:0 .75rem;
 align-items:center;padding:.7rem 3.25rem .7rem 1rem;color:var(--text);list-style:none;font-size:1rem;
 border-radius:12px}
.rec>details>summary::-webkit-details-marker{display:none}
.rec>details>summary:hover .name{text-decoration:underline}
.rec>details[open]>summary{margin:0;border-bottom:1px solid var(--border);border-radius:12px 12px 0 0}
.place{color:var(--muted);text-align:end}
.what .name{font-weight:600} .what .says{display:block}
.moved{font-size:.8125rem;margin-left:.5rem;white-space:nowrap}
.moved.up{color:var(--for)} .moved.down{color:var(--against)}
.strip{display:grid;grid-template-columns:minmax(0,1fr) 3.5rem;gap:.5rem;align-items:center}
.strip svg{width:100%;height:18px;display:block;overflow:visible} .strip .num{text-align:end}
.zero{stroke:var(--muted)} .usual{stroke:var(--text);stroke-width:2}
.strip rect,.bar rect[class^=part]{stroke:var(--card);stroke-width:1}
.pick{position:absolute;right:0;top:0;padding:1.7rem 1rem;cursor:pointer}
.why{padding:1rem}
.why>.card{border:0;padding:0;margin:0;background:none} .why>.card>h3{display:none}
.reason{max-width:44rem;text-wrap:pretty}
.links.small{margin:.5rem 0 0}
.compare{position:sticky;bottom:0;padding:.75rem 0;display:flex;justify-content:flex-end}
.js .compare{display:none} .js .compare.ready{display:flex}
.crumbs{margin:0 0 1rem}
.lead-in{max-width:44rem}
.versus td{width:4.5rem} .versus .bar{margin-top:.4rem}
.side h2{margin-bottom:.75rem} .side .says{font-weight:400} main>.headline{margin-bottom:1.25rem}
.as-if{border-left:4px solid var(--link);background:var(--card);border-radius:0 8px 8px 0;padding:.5rem .9rem}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
article>header h2{font-size:1.5rem;margin-bottom:.25rem}
 .side .chips:last-child{margin-bottom:0}
.busy{opacity:.6}
main article{margin-top:0}
@media (max-width:44rem){
 .bar-top{flex-wrap:wrap} .bar-top .find{order:3;flex-basis:100%;max-width:none}
 main.wrap{padding-top:1.1rem} .hero h1{font-size:1.5rem}
 .rec>details>summary{grid-template-columns:1.5rem minmax(0,1fr);gap:.3rem .6rem;
  padding:.7rem 2.75rem .7rem .6rem}
 .rec .strip{grid-column:2} .pick{padding:1rem .8rem}
 ul.had{flex-wrap:nowrap;overflow-x:auto;margin-inline:-.75rem;padding:0 .75rem .35rem}
 ul.had>li{flex:none;white-space:nowrap} ul.had .more{flex:none}
 ul.had .more ul{flex-direction:column;overflow:visible}
 .versus td{width:3.4rem;font-size:.8125rem} .versus td.num,.versus th.num{padding-left:.25rem}
 .why{padding:.9rem .75rem}
}
@media (prefers-reduced-motion:no-preference){.rec{transition:transform .3s ease}}
@media (forced-colors:active){.strip rect{forced-color-adjust:none}}
"""

SHEET: Final = STYLE + _RULES
