"""Beam's panes, as named in rows."""

from __future__ import annotations

from apache_beam.utils.windowed_value import PaneInfo, PaneInfoTiming

from schemas.events import Pane

__all__ = ["pane_name"]


def pane_name(pane: PaneInfo) -> Pane:
    """Where there are no panes, in a batch, there is one, and it is on time."""
    match pane.timing:
        case PaneInfoTiming.EARLY:
            return "EARLY"
        case PaneInfoTiming.LATE:
            return "LATE"
        case _:
            return "ON_TIME"
