"""How a page looks: on light and dark screens, on phones, and in print."""

from __future__ import annotations

from fenwicks.report.figures import colour_variables

_RULES = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1rem 1rem 4rem; max-width: 68rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1rem 0 .5rem; text-wrap: balance; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; border-top: 1px solid var(--faint);
  padding-top: 1rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
p { margin: .5rem 0; max-width: 42rem; }
a { color: inherit; }
dl.verdict { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem;
  margin: 1rem 0; }
dl.verdict div { border: 1px solid var(--faint); border-radius: .5rem; padding: .5rem .75rem; }
dl.verdict dt { font-size: .85rem; }
dl.verdict dd { margin: 0; font-size: 1.35rem; font-weight: 600; }
dl.verdict dd small { display: block; font-size: .85rem; font-weight: 400; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr));
  gap: 1rem; }
figure { margin: .5rem 0; min-width: 0; }
figure.chart svg { display: block; width: 100%; max-width: 36rem; height: auto; }
figure.wide svg { max-width: 46rem; }
figure.matrix svg { min-width: 30rem; max-width: 38rem; }
figcaption { font-size: .875rem; }
.scroll { overflow-x: auto; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--series0);
  outline-offset: 2px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
caption { text-align: left; font-size: .875rem; padding-bottom: .25rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .9rem .25rem 0;
  border-bottom: 1px solid var(--faint); }
th { font-weight: 600; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
@media (max-width: 30rem) { table { font-size: .875rem; } th, td { padding-right: .6rem; } }
td.bar { width: 12rem; min-width: 6rem; padding-right: 0; }
td.bar span { display: block; height: 1em; margin-top: .25em; background: var(--series3); }
details { margin: .5rem 0; }
summary { cursor: pointer; padding: .25rem 0; }
pre { margin: .5rem 0; padding: .75rem; border: 1px solid var(--faint); border-radius: .5rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
ul.pictures { list-style: none; margin: 1rem 0; padding: 0; display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fill, minmax(5.5rem, 1fr)); }
ul.pictures img { width: 100%; }
ul.rows { list-style: none; margin: 1rem 0; padding: 0; max-width: 42rem; }
ul.rows li { display: grid; gap: 2px; margin-bottom: 2px; grid-auto-flow: column;
  grid-auto-columns: minmax(0, 1fr); }
ul.rows img { width: 100%; }
ul.rows img:first-child { width: calc(100% - .5rem); }
img { display: block; height: auto; image-rendering: pixelated; }
img.smooth { image-rendering: auto; }
footer { margin-top: 3rem; font-size: .875rem; }
@media print { h2, figure { break-inside: avoid; } body { max-width: none; } }
"""


def style_sheet() -> str:
    """The rules for the page's `<style>` element."""
    return (
        f':root {{ color-scheme: light dark; {colour_variables("light")} }}\n'
        f'@media (prefers-color-scheme: dark) {{ :root {{ {colour_variables("dark")} }} }}'
        f'{_RULES}'
    )
