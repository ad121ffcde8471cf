"""Writes what the code knows: a hook of MkDocs, run at every build.

Two things are generated, and neither is kept in the repository:

* whole pages and downloads (`PAGES`, and the schemas and vectors of the contract);
* parts of hand-written pages: `{{ name }}` there stands for an entry of `PARTS`.

A name without an entry, and an entry that no page uses, fail a strict build: the first is a typing
error, the second a number that somebody has written down by hand again.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# The pages describe the code beside them, whatever is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import contract_pages
import library_pages
import own_agent_pages
import protocol_pages
import scenario_pages
import simulator_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

logger = logging.getLogger("mkdocs.hooks.generate")

PAGES: Mapping[str, Callable[[], str]] = {
    "contract/messages.md": contract_pages.messages_page,
    "reference/properties.md": simulator_pages.properties_page,
    "reference/protocol.md": protocol_pages.protocol_page,
    "reference/scenarios.md": scenario_pages.scenarios_page,
    "reference/faults.md": simulator_pages.faults_page,
    "reference/command-line.md": simulator_pages.command_line_page,
    "reference/errors.md": library_pages.errors_page,
}
PARTS: Mapping[str, Callable[[], str]] = {
    **contract_pages.PARTS,
    **library_pages.PARTS,
    **own_agent_pages.PARTS,
    **protocol_pages.PARTS,
    **scenario_pages.PARTS,
    **simulator_pages.PARTS,
}

_NAME = re.compile(r"\{\{ ([a-zA-Z0-9_-]+) \}\}")
_used: set[str] = set()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and downloads to the site."""
    _used.clear()
    contents = {path: page() for path, page in PAGES.items()}
    for module in (contract_pages, simulator_pages, own_agent_pages, scenario_pages):
        contents |= module.downloads()
    for path, content in contents.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what a hand-written page asks for."""

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name not in PARTS:
            logger.warning("there is no part %r to fill in", name)
            return match[0]
        _used.add(name)
        return PARTS[name]()

    return _NAME.sub(fill, markdown)


def on_env(env: Any, **_: Any) -> Any:
    """Complain of parts that no page uses; by now every page has been read."""
    for name in sorted(PARTS.keys() - _used):
        logger.warning("no page uses the part %r", name)
    return env
