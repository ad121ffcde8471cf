"""Draws state machines and sequences of messages as SVG: boxes, lines and text, nothing else.

The drawings carry no colours; the site's style sheet gives them those of the reader's theme.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

# Pixels of the drawing's own scale. A letter of 12 px type is some 7.3 px wide.
_LETTER, _LINE = 7.3, 15
_BOX_W, _BOX_H, _LEAST_GAP = 150, 44, 56
_TOP = 58

Edges = Mapping[tuple[str, str], Sequence[str]]


def states(names: Sequence[str], edges: Edges, *, start: str) -> str:
    """Return a diagram of states from top to bottom.

    Args:
        names: the states in their order; the last one is the end.
        edges: for each pair of states, the words on the line between them, one line of text each.
        start: the words at the line into the first state.
    """
    rank = {name: number for number, name in enumerate(names)}
    down = {pair: lines for pair, lines in edges.items() if rank[pair[1]] - rank[pair[0]] == 1}
    right = [pair for pair in edges if rank[pair[1]] - rank[pair[0]] > 1]
    right.sort(key=lambda pair: (rank[pair[1]] - rank[pair[0]], rank[pair[0]]))
    selves = [pair for pair in edges if pair[0] == pair[1]]
    back = [pair for pair in edges if rank[pair[1]] < rank[pair[0]]]
    inner = max((_width(edges[pair]) + 34 for pair in selves), default=0) + 26
    left_x = inner + max((_width(edges[pair]) + 8 for pair in back), default=0) + 10
    middle_x = left_x + _BOX_W / 2
    ys = _heights(names, edges, rank)
    lane = middle_x + max(_BOX_W / 2, max(map(_width, down.values()), default=0) + 10) + 40
    parts = [_text(middle_x + 10, 22, [start], "note"), _arrow(middle_x, 6, _TOP)]
    for pair, lines in down.items():
        y, to = ys[pair[0]] + _BOX_H, ys[pair[1]]
        parts += [_arrow(middle_x, y, to), _text(middle_x + 10, (y + to) / 2 - 2, lines)]
    for pair in selves:
        parts += _loop(edges[pair], ys[pair[0]], left_x)
    for pair in back:
        parts += _back(edges[pair], ys[pair[0]], ys[pair[1]], left_x, left_x - inner)
    for number, pair in enumerate(right, start=1):
        # Where lines leave and reach a box, each has a height of its own.
        part = _BOX_H * number / (len(right) + 1)
        label = ys[pair[0]] + _BOX_H + (ys[names[rank[pair[0]] + 1]] - ys[pair[0]] - _BOX_H) / 2
        parts += _skip(ys[pair[0]] + part, ys[pair[1]] + part, left_x + _BOX_W, lane)
        parts.append(_text(lane + 8, label, edges[pair]))
        lane += _width(edges[pair]) + 26
    parts += [_box(name, left_x, ys[name], is_end=name == names[-1]) for name in names]
    return _svg(parts, lane, ys[names[-1]] + _BOX_H + 12)


def _heights(names: Sequence[str], edges: Edges, rank: Mapping[str, int]) -> dict[str, float]:
    """Return the top of each box: as far below the one before as the words between them need."""
    ys, y = {}, float(_TOP)
    for number, name in enumerate(names):
        ys[name] = y
        beside = [len(lines) for pair, lines in edges.items() if rank[pair[0]] == number]
        y += _BOX_H + max(_LEAST_GAP, max(beside, default=0) * _LINE + 26)
    return ys


def sequence(parties: Sequence[str], messages: Sequence[tuple[str, str, str]]) -> str:
    """Return a diagram of messages from top to bottom.

    Args:
        parties: who takes part, from left to right.
        messages: from, to and words of each; the same party twice is work of its own.
    """
    step, first, apart = 36, 40, 215
    xs = {party: 70 + number * apart for number, party in enumerate(parties)}
    bottom = first + (len(messages) + 1) * step
    parts = []
    for party, x in xs.items():
        parts.append(f'<line class="life" x1="{x}" y1="34" x2="{x}" y2="{bottom}"/>')
        parts.append(_box(party, x - 60, 4, is_end=False, width=120, height=30))
    for number, (sender, receiver, words) in enumerate(messages, start=1):
        y = first + number * step
        parts += _message(xs[sender], xs[receiver], y, words)
    return _svg(parts, 140 + (len(parties) - 1) * apart, bottom + 8)


def _message(x: float, to: float, y: float, words: str) -> Iterator[str]:
    if x == to:
        yield f'<rect class="tip" x="{x - 4}" y="{y - 10}" width="8" height="14"/>'
        yield _plated(x + 12, y + 1, words)
        return
    middle = (x + to) / 2 - len(words) * _LETTER / 2
    yield f'<line class="edge" x1="{x}" y1="{y}" x2="{to - (6 if to > x else -6)}" y2="{y}"/>'
    yield _tip(to, y, "right" if to > x else "left")
    yield _plated(middle, y - 6, words)


def _plated(x: float, y: float, words: str) -> str:
    width = len(words) * _LETTER
    plate = f'<rect class="plate" x="{x - 3:g}" y="{y - 12:g}" width="{width + 6:g}" height="16"/>'
    return plate + f'<text x="{x:g}" y="{y:g}">{escape(words)}</text>'


def _width(lines: Sequence[str]) -> float:
    return max(len(line) for line in lines) * _LETTER


def _skip(y: float, to: float, x: float, lane: float) -> Iterator[str]:
    """Yield a line that passes boxes on the right."""
    yield (
        f'<path class="edge" d="M{x:g},{y:g} H{lane - 10:g} Q{lane:g},{y:g} {lane:g},{y + 10:g}'
        f' V{to - 10:g} Q{lane:g},{to:g} {lane - 10:g},{to:g} H{x + 6:g}"/>'
    )
    yield _tip(x, to, "left")


def _loop(lines: Sequence[str], top: float, x: float) -> Iterator[str]:
    """Yield a line from a box to itself, on its left."""
    yield _left_line(top + _BOX_H * 0.72, top + _BOX_H * 0.28, x, x - 26)
    yield _tip(x, top + _BOX_H * 0.28, "right")
    yield _text(x - 34 - _width(lines), top + _BOX_H / 2, lines)


def _back(lines: Sequence[str], top: float, to_top: float, x: float, lane: float) -> Iterator[str]:
    """Yield a line to an earlier box, on the left."""
    yield _left_line(top + _BOX_H / 2, to_top + _BOX_H / 2, x, lane)
    yield _tip(x, to_top + _BOX_H / 2, "right")
    yield _text(lane - 8 - _width(lines), (top + to_top + _BOX_H) / 2, lines)


def _left_line(y: float, to: float, x: float, lane: float) -> str:
    bend = min(10.0, (y - to) / 2)
    return (
        f'<path class="edge" d="M{x:g},{y:g} H{lane + bend:g} Q{lane:g},{y:g} {lane:g},{y - bend:g}'
        f' V{to + bend:g} Q{lane:g},{to:g} {lane + bend:g},{to:g} H{x - 6:g}"/>'
    )


def _arrow(x: float, y: float, to: float) -> str:
    line = f'<line class="edge" x1="{x:g}" y1="{y:g}" x2="{x:g}" y2="{to - 6:g}"/>'
    return line + _tip(x, to, "down")


def _tip(x: float, y: float, way: str) -> str:
    corners = {
        "down": ((0, 0), (-4.5, -9), (4.5, -9)),
        "left": ((0, 0), (9, -4.5), (9, 4.5)),
        "right": ((0, 0), (-9, -4.5), (-9, 4.5)),
    }[way]
    points = " ".join(f"{x + dx:g},{y + dy:g}" for dx, dy in corners)
    return f'<polygon class="tip" points="{points}"/>'


def _box(
    name: str, x: float, y: float, *, is_end: bool, width: float = _BOX_W, height: float = _BOX_H
) -> str:
    end = "-end" if is_end else ""
    return (
        f'<rect class="box{" box-end" if end else ""}" x="{x:g}" y="{y:g}" width="{width:g}"'
        f' height="{height:g}" rx="6"/>'
        f'<text class="name{" name-end" if end else ""}" x="{x + width / 2:g}" y="{y + height / 2 + 5:g}">'
        f"{escape(name)}</text>"
    )


def _text(x: float, middle: float, lines: Sequence[str], kind: str = "") -> str:
    """Return lines of text around the height *middle*; those that begin with an arrow are notes."""
    top = middle - (len(lines) - 1) * _LINE / 2 + 4
    found = []
    for number, line in enumerate(lines):
        note = kind or ("note" if line.startswith("→") else "")
        found.append(f'<text class="{note}" x="{x:g}" y="{top + number * _LINE:g}">{escape(line)}</text>')
    return "".join(found)


def _svg(parts: Sequence[str], width: float, height: float) -> str:
    return (
        f'<div class="diagram"><svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img"'
        f' xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg></div>\n'
    )
