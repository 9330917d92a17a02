"""The frame of the report: one HTML file with all that it needs in it.

Nothing in the page is fetched from anywhere. A browser is told so by a Content-Security-Policy,
which also lets no script run but those that are named here by their hashes: whatever a file or a
symbol is called, it is text. All text is escaped, in HTML by Jinja, in JSON by `embedded`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.reports.report_facts import Facts
from tasks.system import terminal

FOLDER = Path(__file__).with_name("page")


class Section(msgspec.Struct, frozen=True):
    """One part of the page.

    Attributes:
        name: The anchor, and the name under which the page's script finds `data`.
        title: The heading.
        html: The content.
        data: What the script gets for it, as JSON; None for nothing.
    """

    name: str
    title: str
    html: Markup
    data: Any = None


Maker = Callable[[Facts], Section | None]


def part(template: str, **values: Any) -> Markup:
    """Return the HTML of a template of the folder page/.

    Args:
        template: Its name, without .html.
        values: What it names.
    """
    return Markup(_environment().get_template(f"{template}.html").render(values))


def render(facts: Facts, makers: Iterable[Maker]) -> str:
    """Return the page.

    Args:
        facts: What it is about.
        makers: The functions that make its sections, in order; one that returns None has nothing
            to show.
    """
    sections = [section for make in makers if (section := make(facts)) is not None]
    data = {one.name: one.data for one in sections if one.data is not None}
    scripts = [script(_library()), script((FOLDER / "report.js").read_text())]
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none';"
        f" form-action 'none'; script-src {' '.join(hashed(one) for one in scripts)}"
    )
    return part(
        "page",
        title=f"{facts.build.image} of {facts.project.settings.machine}",
        policy=policy,
        style=Markup((FOLDER / "report.css").read_text()),
        sections=sections,
        data=embedded(data),
        scripts=[Markup(one) for one in scripts],
    )


def embedded(value: Any) -> Markup:
    """Return a value as JSON that can stand in a script element of the page.

    No < is left in it, so that nothing ends the element (HTML standard, "Restrictions for contents
    of script elements").
    """
    text = json.dumps(_plain(value), separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _plain(value: Any) -> Any:
    """Return a value of structs and lists, with texts that have no control characters."""
    return _printable(msgspec.to_builtins(value, str_keys=True))


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return terminal.printable(value)
    if isinstance(value, list):
        return [_printable(one) for one in value]
    if isinstance(value, dict):
        return {_printable(name): _printable(one) for name, one in value.items()}
    return value


def script(text: str) -> str:
    """Return a program as the content of a script element."""
    return text.replace("\r\n", "\n").replace("</script", "<\\/script").strip("\n")


def hashed(text: str) -> str:
    """Return the source expression of an inline script (CSP, "hash-source")."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@lru_cache(1)
def _library() -> str:
    """Return plotly.js, which the package plotly brings along."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


@lru_cache(1)
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: (
            terminal.printable(value)
            if isinstance(value, str) and not isinstance(value, Markup)
            else value
        ),
    )
    made.filters |= {
        "bytes": lambda count: f"{count:,}",
        "signed": lambda count: f"{count:+,}",
        "took": terminal.took,
    }
    return made
