"""The report as one page that needs nothing else: no network, no file beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from psgd.analysis.numbers import tied
from psgd.analysis.page.contents import page_contents
from psgd.analysis.page.plots import Runs, plot_data

PAGE_NAME = "report.html"
UNSAFE_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def write_page(report: Mapping[str, Any], runs: Runs, out: Path) -> Path:
    """Write ``report.html``.

    Args:
        report: as ``report.json`` has it; what is None or missing there is left out of the page.
        runs: of the report's modes; a mode without any has no curves.
        out: the folder.

    Returns:
        The file.

    Raises:
        OSError: if the disk does not take it.
    """
    page = out / PAGE_NAME
    page.write_text(render(report, runs), encoding="utf-8")
    return page


def render(report: Mapping[str, Any], runs: Runs) -> str:
    """The page's text; the arguments are those of `write_page`."""
    files = Environment(
        loader=PackageLoader(__name__, "web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    files.filters["tied"] = tied
    plots = plot_data(report, runs)
    return files.get_template("page.html.jinja").render(
        page_contents(report, runs, plots),
        style=_source(files, "page.css"),
        scripts=[
            Markup(get_plotlyjs()),
            *(_source(files, name) for name in ("theme.js", "figures.js", "timeline.js", "page.js")),
        ],
        data=Markup(as_script(plots)),
    )


def as_script(value: Any) -> str:
    r"""JSON that may stand in a ``script`` element: nothing in it can end the element.

    >>> as_script(["</script>"])
    '["\\u003c/script\\u003e"]'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for character, escape in UNSAFE_IN_SCRIPT.items():
        text = text.replace(character, escape)
    return text


def _source(files: Environment, name: str) -> Markup:
    """A file of the package, which is ours and as safe as the template."""
    if files.loader is None:
        raise AssertionError("the environment was made with a loader")
    return Markup(files.loader.get_source(files, name)[0])
