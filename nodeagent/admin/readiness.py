"""Readiness as tokens: each component that must be up before the agent is ready holds one, and releases it
once it is up.

A component that is down again holds its token again.

The agent is ready when no token is held and it is not draining. Nothing here knows what the components are.
"""

from __future__ import annotations

from typing import Self


class ReadinessToken:
    """Held by a component that is not up yet; also a context manager that releases at its end."""

    def __init__(self, readiness: Readiness, name: str) -> None:
        self._readiness = readiness
        self.name = name

    def release(self) -> None:
        """Say that the component is up; to say it again changes nothing."""
        self._readiness._release(self)

    def hold(self) -> None:
        """Say that the component is down again; to say it again changes nothing."""
        self._readiness._hold(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Readiness:
    """Keeps track of the components that the agent still waits for before it is ready."""

    def __init__(self) -> None:
        self._held: list[ReadinessToken] = []
        self._released: dict[str, None] = {}
        self.draining = False

    def register(self, name: str) -> ReadinessToken:
        """Make the agent unready until the returned token is released. `name` is for people: `workers`."""
        token = ReadinessToken(self, name)
        self._held.append(token)
        return token

    def drain(self) -> None:
        """Make the agent unready for good: it is about to leave."""
        self.draining = True

    @property
    def ready(self) -> bool:
        """Whether traffic may be sent here."""
        return not self._held and not self.draining

    @property
    def pending(self) -> tuple[str, ...]:
        """The components that the agent still waits for, in the order in which they registered."""
        return tuple(token.name for token in self._held)

    @property
    def released(self) -> tuple[str, ...]:
        """The components that are up."""
        return tuple(name for name in self._released if name not in self.pending)

    def _hold(self, token: ReadinessToken) -> None:
        if token not in self._held:
            self._held.append(token)
            self._released.pop(token.name, None)

    def _release(self, token: ReadinessToken) -> None:
        if token in self._held:
            self._held.remove(token)
            self._released[token.name] = None
