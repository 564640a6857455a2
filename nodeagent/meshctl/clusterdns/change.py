"""Which bytes change where: installing and removing the stub as values, with what undoes them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

import msgspec

from nodeagent.meshctl.clusterdns.corefile import (
    BEGIN,
    END,
    CorefileNotUnderstood,
    find_block,
    insert_block,
    read_address,
    read_corefile,
    remove_block,
)
from nodeagent.meshctl.clusterdns.layout import (
    COREFILE,
    NAMESPACE,
    OWN_KEY,
    ClusterDns,
    LayoutNotUnderstood,
    Place,
    find_places,
)
from nodeagent.meshctl.clusterdns.stub import Stub, answered_zones, stub_block


class Change(msgspec.Struct, frozen=True):
    """One key of one ConfigMap; None is a key that does not exist."""

    configmap: str
    key: str
    before: str | None
    after: str | None
    version: str
    """The resource version that was read; empty if the ConfigMap does not exist."""

    @property
    def title(self) -> str:
        """Which key is meant, for people."""
        return f"ConfigMap {NAMESPACE}/{self.configmap} {self.key}"


class Installation(msgspec.Struct, frozen=True):
    """What installing means for a cluster: `changes` is empty if it is installed."""

    places: tuple[Place, ...]
    changes: tuple[Change, ...]
    by_hand: tuple[str, ...]
    """Where somebody has made a stub of their own that does the same."""


def plan_install(dns: ClusterDns, stub: Stub) -> Installation:
    """Decide what has to change for the stub to be in force.

    Raises:
        LayoutNotUnderstood: it cannot be done safely; nothing may be changed then.
    """
    places = find_places(dns)
    changes: list[Change] = []
    by_hand: list[str] = []
    for place in places:
        try:
            change = _install(dns, place, stub)
        except CorefileNotUnderstood as error:
            raise LayoutNotUnderstood(f"the Corefile of {NAMESPACE}/{place.workload}: {error}") from error
        if change is None:
            by_hand.append(f"{NAMESPACE}/{place.workload}")
        elif change.before != change.after:
            changes.append(change)
    return Installation(places, tuple(changes), tuple(by_hand))


def _install(dns: ClusterDns, place: Place, stub: Stub) -> Change | None:
    """Return the change, which may be none at all, or None where the stub was made by hand."""
    found = dns.configmaps.get(place.configmap)
    present = None if found is None else found.data.get(place.key)
    bare = remove_block(present or "")
    others = _others(dns, place, bare, stub)
    if others:
        if all(others.get(zone) for zone in stub.zones):
            return None
        zones = ", ".join(sorted(others))
        raise LayoutNotUnderstood(
            f"{NAMESPACE}/{place.configmap} has a server block for {zones} that we did not make"
        )
    block = stub_block(place.corefile, stub)
    if place.kind == "block":
        after = insert_block(bare, block)
    elif present is not None and find_block(present) is None:
        raise LayoutNotUnderstood(f"{NAMESPACE}/{place.configmap} has a key {place.key} that we did not make")
    else:
        after = f"{BEGIN}\n{block}{END}\n"
    return Change(place.configmap, place.key, present, after, found.version if found else "")


def _others(dns: ClusterDns, place: Place, bare: str, stub: Stub) -> dict[str, bool]:
    """Return the stub's zones that server blocks of others answer, and whether they forward to our DNS."""
    texts = [bare] if place.kind == "block" else [dns.configmaps[place.workload].data[COREFILE]]
    custom = dns.configmaps.get(place.configmap)
    if place.kind == "file" and custom is not None:
        texts += [text for key, text in custom.data.items() if key.endswith(".server") and key != place.key]
    return {zone: ours for text in texts for zone, ours in answered_zones(read_corefile(text), stub).items()}


def plan_remove(dns: ClusterDns, backup: Mapping[str, str]) -> tuple[Change, ...]:
    """Decide what has to change for no stub to be left; `backup` is as `backup_data` made it.

    Where nobody changed the key since, it gets the bytes of the backup; else only the marked block goes.

    Raises:
        CorefileNotUnderstood: somebody edited the marks.
    """
    changes: list[Change] = []
    for found in dns.configmaps.values():
        for key in (COREFILE, OWN_KEY):
            present = found.data.get(key)
            if present is None or find_block(present) is None:
                continue
            rest = remove_block(present)
            after = None if key == OWN_KEY and not rest else rest
            if backup.get(f"{found.name}.{key}.after") == present:
                after = backup.get(f"{found.name}.{key}.before")
            changes.append(Change(found.name, key, present, after, found.version))
    return tuple(changes)


def stub_zones(text: str) -> tuple[str, ...]:
    """Return the zones of the marked block in a text."""
    servers = read_corefile(find_block(text) or "").servers
    addresses = (read_address(key) for server in servers for key in server.keys)
    return tuple(address.zone for address in addresses if address is not None)


def backup_data(changes: tuple[Change, ...], earlier: Mapping[str, str]) -> dict[str, str]:
    """Return the data of the backup: the bytes before, for good, and those after, to know them again.

    What was backed up `earlier` stays: a stub that is changed twice still goes back to the first bytes.
    """
    data = dict(earlier)
    for change in changes:
        name = f"{change.configmap}.{change.key}"
        if change.after is not None:
            data[f"{name}.after"] = change.after
        original = None if change.before is None else remove_block(change.before)
        if original and earlier.get(f"{name}.after") != change.before:
            data[f"{name}.before"] = original
    return data


def diff_lines(change: Change) -> Iterator[str]:
    """Yield a unified diff without line feeds."""
    before, after = ((text or "").split("\n") for text in (change.before, change.after))
    # A last line without a line feed is told from one with it, as diff does.
    for lines in (before, after):
        if lines[-1]:
            lines.append("\\ No newline at end of file")
        else:
            lines.pop()
    yield from difflib.unified_diff(
        before, after, f"{change.title} (now)", f"{change.title} (then)", lineterm=""
    )
