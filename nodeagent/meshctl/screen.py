"""What `meshctl top` shows and what its keys do. Pure: the terminal is the command's."""

from __future__ import annotations

from typing import Final

import click
import msgspec

from nodeagent.meshctl.stat import SortBy, cut, summary_lines, table_lines
from nodeagent.stats.overview import Live, ServiceName

KEYS: Final[dict[str, SortBy]] = {
    "n": "name",
    "r": "rate",
    "s": "success",
    "5": "p50",
    "9": "p95",
    "p": "p99",
}
HELP: Final = "[q]uit [/]filter [space]hold  by: [n]ame [r]ate [s]uccess p[5]0 p[9]5 [p]99"
FRAME: Final = 3
"""Lines above and below the rows: the title, the header and the keys."""
LONGEST_FILTER: Final = 60


class View(msgspec.Struct, frozen=True):
    """How somebody looks at the table."""

    sort: SortBy = "rate"
    wanted: str = ""
    """Only Services whose `name.namespace` has this in it are shown."""
    typing: bool = False
    """Whether keys are letters of `wanted`."""
    held: bool = False
    """Whether the table stays as it is."""
    ended: bool = False


def press(view: View, key: str) -> View:
    """Return the view after a key."""
    if view.typing:
        return _type(view, key)
    change = msgspec.structs.replace
    if key in ("q", "\x03", "\x04"):
        return change(view, ended=True)
    if key == "/":
        return change(view, typing=True)
    if key == " ":
        return change(view, held=not view.held)
    if key == "\x1b":
        return change(view, wanted="")
    return change(view, sort=KEYS.get(key, view.sort))


def _type(view: View, key: str) -> View:
    change = msgspec.structs.replace
    if key == "\x03":
        return change(view, ended=True)
    if key in ("\r", "\n"):
        return change(view, typing=False)
    if key == "\x1b":
        return change(view, typing=False, wanted="")
    if key in ("\x7f", "\b"):
        return change(view, wanted=view.wanted[:-1])
    if key.isprintable() and len(view.wanted) < LONGEST_FILTER:
        return change(view, wanted=view.wanted + key.lower())
    return view


def filtered(live: Live, wanted: str) -> Live:
    """Return the Services whose `name.namespace` has `wanted` in it."""
    overview = live.overview
    services = [one for one in overview.services if wanted in str(ServiceName(one.namespace, one.service))]
    return msgspec.structs.replace(live, overview=msgspec.structs.replace(overview, services=services))


def screen_lines(live: Live, view: View, width: int, height: int, colour: bool) -> list[str]:
    """Return what fits on a terminal of this size; no line is longer than `width`."""
    shown = filtered(live, view.wanted)
    notes = [cut(line, width) for line in summary_lines(shown)]
    room = max(height - FRAME, 0)
    notes = notes[-max(room // 2, 1) :]  # the last line is the summary; reasons may be many
    most = max(room - len(notes), 0)
    state = "held" if view.held else f"by {view.sort}"
    title = f"svc.mesh  {state}" + (f"  filter: {view.wanted}" if view.wanted or view.typing else "")
    title += "_" if view.typing else ""
    lines = [
        cut(title, width),
        *table_lines(shown, view.sort, width, colour, most),
        *notes,
        cut("[Enter] keep the filter  [Esc] no filter" if view.typing else HELP, width),
    ]
    if colour:
        lines[-1] = click.style(lines[-1], dim=True)
    return lines[:height]
