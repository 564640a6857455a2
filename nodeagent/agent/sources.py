"""The source that the settings name: an API server, or a folder of files."""

from __future__ import annotations

from discovery.notice import Announcer
from discovery.source import Source, SourceError
from nodeagent.settings import Settings


def make_source(settings: Settings) -> tuple[Source, Announcer | None]:
    """Return the source that the settings name, and what reports problems to owners of Services, if anything
    does.

    Raises:
        SourceError: there is no such source.
    """
    if settings.source == "kube":
        from discovery.kube.source import KubeSource

        source = KubeSource(
            node_name=settings.node_name, label_selector=settings.service_selector, compat=settings.compat
        )
        return source, source.announcer()
    kind, _, path = settings.source.partition(":")
    if kind == "file" and path:
        from discovery.files.source import FileSource

        return FileSource(path, settings.compat, settings.overrides), None
    raise SourceError(f"unknown source {settings.source!r}: use `kube` or `file:PATH`")
