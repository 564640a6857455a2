"""The form of a line: what renders the keys of an event, and JSON, the form for programs."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from nodeagent.log.stamps import Stamps

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class Form(Protocol):
    """Renders the keys of an event, `level` and `event` among them, as a line without its end."""

    def __call__(self, event: Mapping[str, Any]) -> str:
        """Return the line of these keys."""
        ...

    def of_struct(self, line: msgspec.Struct) -> bytes:
        """Return the line of a struct, which has `time`, too."""
        ...


class JsonForm:
    """One JSON object; time, level and event in front."""

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder(enc_hook=repr).encode
        self._stamp = Stamps()

    def __call__(self, event: Mapping[str, Any]) -> str:
        """Return the line; what JSON has no form for is shown by its `repr`."""
        whole = {
            "time": self._stamp.at(time.time()),
            "level": event["level"],
            "event": event["event"],
            **event,
        }
        try:
            return self._encode(whole).decode()
        except (UnicodeEncodeError, OverflowError, TypeError):  # half a surrogate in a file's name, say
            return json.dumps(whole, default=repr, separators=(",", ":"))

    def of_struct(self, line: msgspec.Struct) -> bytes:
        """Return the line of what has its keys in order already."""
        try:
            return self._encode(line)
        except UnicodeEncodeError:
            return self(msgspec.to_builtins(line)).encode("utf-8", "backslashreplace")
