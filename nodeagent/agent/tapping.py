"""Opens watches of live requests for the admin page `/tap`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from middleware.values import InvalidValue, quote
from nodeagent.admin.tap_page import TapRefused
from nodeagent.control.tap import TooManyWatches, Watchers, Watching, read_filter


class TapDoor:
    """Implements `nodeagent.admin.tap_page.Tap`. `serves` tells whether a Service is in the mesh here."""

    def __init__(self, watchers: Watchers, serves: Callable[[str], bool]) -> None:
        self._watchers = watchers
        self._serves = serves

    def open(self, values: Mapping[str, str]) -> Watching:
        """Begin to watch.

        Raises:
            TapRefused: the parameters say nothing that can be watched, or too many watch already.
        """
        try:
            wanted = read_filter(values)
            if not self._serves(wanted.service):
                raise TapRefused(404, f"no Service {quote(wanted.service)} is in the mesh on this node")
            return self._watchers.open(wanted)
        except InvalidValue as error:
            raise TapRefused(400, str(error)) from error
        except TooManyWatches as error:
            raise TapRefused(503, str(error)) from error
