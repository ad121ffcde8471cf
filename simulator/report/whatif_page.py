"""One's own fleet under other terms, as one page that needs nothing but itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files

from simulator.report.whatif import ABOUT, TERMS, paid, title, verdict, whatif_object
from simulator.whatif import Answer

_PLACE = "/*DATA*/"


def page(answer: Answer) -> Iterator[str]:
    """Yield the page, in pieces of text."""
    told = {
        "title": title(answer),
        "verdict": verdict(answer),
        "paid": paid(answer.prices),
        "about": ABOUT,
        "terms": TERMS,
    }
    data = json.dumps({**whatif_object(answer), **told}, separators=(",", ":"))
    before, _, after = files("simulator.report").joinpath("whatif.html").read_text("utf-8").partition(_PLACE)
    yield from (before, data.replace("<", "\\u003c"), after)
