"""What the generated pages have in common: Markdown, and the reading of docstrings."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any


def first_line(thing: object) -> str:
    """Return the first sentence of a docstring: its first line."""
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def prose(thing: object) -> str:
    """Return a docstring up to its sections, such as `Attributes:`."""
    text = inspect.getdoc(thing) or ""
    return re.split(r"\n\n(?=(?:Attributes|Args|Returns|Raises|Yields|Source):)", text)[0]


def attributes_of(thing: object) -> dict[str, str]:
    """Return what the `Attributes:` section of a docstring says of each name, on one line each."""
    _, _, section = (inspect.getdoc(thing) or "").partition("Attributes:\n")
    section = section.partition("\n\n")[0]
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if match := re.match(r"    (\w+): (.*)", line):
            name = match[1]
            found[name] = match[2]
        elif name:
            found[name] += " " + line.strip()
    return found


def sentence(text: str) -> str:
    """Return *text* with a capital letter and a full stop."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def code(value: object) -> str:
    """Return *value* as it stands, in code type; safe in a table."""
    text = str(value).replace("|", "&#124;").replace("\n", " ")
    if "&#124;" in text or "`" in text:
        return f"<code>{text.replace('<', '&lt;')}</code>"
    return f"`{text}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in cells) + " |"


def block(text: str, language: str = "text") -> str:
    """Return a fenced block of code."""
    return f"```{language}\n{text.rstrip()}\n```\n"


def as_json(value: Any) -> str:
    """Return *value* as JSON for a person to read."""
    return json.dumps(value, indent=2)


def folded(title: str, content: str) -> str:
    """Return a block that opens with a click."""
    indented = "\n".join(f"    {line}".rstrip() for line in content.splitlines())
    return f'??? note "{title}"\n\n{indented}\n'


def slug(text: str) -> str:
    """Return the anchor that a heading *text* gets."""
    kept = re.sub(r"[^\w\s-]", "", text).strip().lower()
    return re.sub(r"[-\s]+", "-", kept)


def badges(*texts: str) -> str:
    """Return small labels for one line."""
    return " ".join(f'<span class="badge">{text}</span>' for text in texts if text)


def incident_links(ids: Iterable[str], *, up: str) -> str:
    """Return links to incidents from a page that lies *up* from the first one, such as `../`."""
    return ", ".join(f"[{each}]({up}incidents.md#{each.lower()})" for each in ids)
