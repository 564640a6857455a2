"""The same object in two places: one wins, always the same one, and the other is reported."""

from __future__ import annotations

from discovery.files.content import Content, read_content
from discovery.files.declared import Declarations, Declared
from discovery.model import ServiceKey
from discovery.source import Deleted, Malformed, Upserted

OBJECT = "---\napiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {ports: [{port: %d}]}\n"


def content(path: str, *services: tuple[str, int]) -> Content:
    text = "".join(OBJECT % service for service in services)
    return read_content(path, text.encode(), Content())


def upserted(events: tuple[Declared, ...]) -> list[tuple[str, str]]:
    return [(e.object.key.name, e.object.origin) for e in events if isinstance(e, Upserted)]


def malformed(events: tuple[Declared, ...]) -> dict[str, list[str]]:
    return {e.origin: [p.reason for p in e.problems] for e in events if isinstance(e, Malformed)}


def test_the_first_path_wins_whatever_came_first() -> None:
    for order in (["a.yaml", "b.yaml"], ["b.yaml", "a.yaml"]):
        declarations = Declarations()
        for path in order:
            declarations.put(path, content(path, ("web", 80)))
        events = declarations.take_events()
        assert upserted(events) == [("web", "a.yaml:2")]
        assert malformed(events) == {"b.yaml": ["is defined twice, at a.yaml:2 and at b.yaml:2"]}


def test_the_second_takes_over_and_is_in_order_then() -> None:
    declarations = Declarations()
    declarations.put("a.yaml", content("a.yaml", ("web", 80)))
    declarations.put("b.yaml", content("b.yaml", ("web", 81)))
    declarations.take_events()
    declarations.remove("a.yaml")
    events = declarations.take_events()
    assert upserted(events) == [("web", "b.yaml:2")]
    assert malformed(events) == {"b.yaml": []}
    declarations.put("a.yaml", content("a.yaml", ("web", 80)))
    assert upserted(declarations.take_events()) == [("web", "a.yaml:2")]


def test_twice_in_one_file_the_first_line_wins() -> None:
    declarations = Declarations()
    declarations.put("a.yaml", content("a.yaml", ("web", 80), ("web", 81)))
    events = declarations.take_events()
    assert upserted(events) == [("web", "a.yaml:2")]
    assert malformed(events) == {"a.yaml": ["is defined twice, at a.yaml:2 and at a.yaml:7"]}


def test_a_duplicate_that_goes_takes_its_problem_along() -> None:
    declarations = Declarations()
    declarations.put("a.yaml", content("a.yaml", ("web", 80)))
    declarations.put("b.yaml", content("b.yaml", ("web", 81), ("x", 1)))
    declarations.take_events()
    declarations.put("b.yaml", content("b.yaml", ("x", 1)))
    events = declarations.take_events()
    assert malformed(events) == {"b.yaml": []}


def test_only_what_changed_is_told() -> None:
    declarations = Declarations()
    declarations.put("a.yaml", content("a.yaml", ("web", 80), ("db", 0)))
    assert len(declarations.take_events()) == 3
    declarations.put("a.yaml", content("a.yaml", ("web", 80), ("db", 0)))
    assert declarations.take_events() == ()
    declarations.put("a.yaml", content("a.yaml", ("web", 81), ("db", 0)))
    assert upserted(declarations.take_events()) == [("web", "a.yaml:2")]
    declarations.remove("a.yaml")
    assert set(declarations.take_events()) == {
        Deleted(ServiceKey("default", "db")),
        Deleted(ServiceKey("default", "web")),
        Malformed("a.yaml"),
    }
