"""Render: the context as HTML, whole for the first paint and part by part for those who look on.

In: a context. Out: a page; its parts by name, which are exactly what the page holds at these places.
Promise: everything is escaped; a page without JavaScript says the same as one with it.
"""

import json
from collections.abc import Mapping
from functools import cache
from hashlib import blake2s
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from exporter.page import words
from exporter.page.advice import runs_of
from exporter.page.overview import summary
from exporter.page.pictures import Picked, names
from exporter.page.state import SIGNS, level_of, outcome_level

PARTS: Final = (
    "state",
    "flow",
    "completeness",
    "producers",
    "findings",
    "recommendations",
    "schedule",
    "thresholds",
    "components",
)
STATIC: Final = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "uPlot.min.css": "text/css; charset=utf-8",
    "uPlot.iife.min.js": "text/javascript; charset=utf-8",
    "uPlot.LICENSE": "text/plain; charset=utf-8",
}


@cache
def static(name: str) -> bytes:
    """Return a file of the page; KeyError when there is none of that name."""
    assert name in STATIC, "BUG: asked for a file that is not served"
    return files("exporter.page").joinpath("static", name).read_bytes()


@cache
def version(name: str) -> str:
    """Return a name for the content of a file, so that a browser may keep it for ever."""
    return blake2s(static(name), digest_size=6).hexdigest()


def asset(name: str) -> str:
    """Return the address of a file of the page, relative to it."""
    return f"page/{name}?v={version(name)}"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("exporter.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    # jinja2's annotations admit its own functions only.
    filters: dict[str, Any] = made.filters
    filters.update(words.FILTERS)
    globals_: dict[str, Any] = made.globals
    globals_.update(
        asset=asset,
        sign=SIGNS.__getitem__,
        level_of=level_of,
        outcome_level=outcome_level,
        runs_of=runs_of,
        summary=summary,
    )
    return made


def parts(context: Mapping[str, Any]) -> dict[str, str]:
    """Return each part of the page, its title, the numbers of its charts, what may be drawn, and their time."""
    made = {name: _environment().get_template(f"{name}.html").render(context) for name in PARTS}
    rates = context["rates"]
    made["chart"] = json.dumps({"rates": None if rates is None else rates._asdict(), "behind": context["behind"]})
    made["histograms"] = json.dumps(names(context["histograms"]))
    made["title"] = title(context)
    made["at"] = f"as of {words.clock(context['now_s'])} UTC"
    return made


def title(context: Mapping[str, Any]) -> str:
    """Return what a browser's tab shows."""
    state = context["state"]
    return f"{state.sign} streamgauge: {state.headline}"


def picture(picked: Picked) -> str:
    """Return the words below a heat map."""
    return _environment().get_template("picture.html").render(picked=picked)


def page(context: Mapping[str, Any], made: Mapping[str, str]) -> str:
    """Return the page around its parts."""
    return _environment().get_template("page.html").render(context, parts=made, title=title(context))
