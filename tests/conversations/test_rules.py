"""Every rule is shown by a conversation, every conversation shows a rule, and the page is up to date."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conversations.rules import TITLES, cases_of, page, read_rules
from tests.conversations.wire import read_cases

ROOT = Path(__file__).parents[2]
RULES = read_rules()
CASES = list(read_cases())


def test_each_stands_somewhere() -> None:
    assert [rule.name for rule in RULES if not cases_of(rule, CASES) and not rule.elsewhere] == []


def test_what_is_shown_elsewhere_is_there() -> None:
    for rule in RULES:
        if rule.elsewhere:
            path, *names = rule.elsewhere.split("::")
            text = (ROOT / path).read_text()
            assert all(re.search(rf"(?:class|def) {name}\b", text) for name in names), rule.name


def test_no_conversation_names_an_unknown_rule_or_none() -> None:
    known = {rule.name for rule in RULES}
    assert len(known) == len(RULES)
    assert [case.label for case in CASES if not case.rules or not known.issuperset(case.rules)] == []
    assert len({case.label for case in CASES}) == len(CASES)


def test_each_has_a_section_of_the_page() -> None:
    for rule in RULES:
        assert sum(rule.name.startswith(prefix) for prefix in TITLES) == 1, rule.name


def test_every_part_of_both_documents_that_is_about_messages_is_there() -> None:
    """Sections with rules for intermediaries. Another section of the list is as welcome."""
    sections = {"-".join(rule.name.split("-")[:2]) for rule in RULES}
    wanted = (
        "2.2 2.3 3 3.2 3.2.1 3.2.2 3.2.3 3.2.4 4 5 5.1 5.2 6.1 6.3 7.1 7.1.1 7.1.2 7.4 8 "
        "9.2 9.3 9.3.1 9.3.2 9.4 9.5 9.6"
    )
    assert sections >= {f"9112-{one}" for one in wanted.split()}
    wanted = "5.3 5.5 6.5.1 6.6.1 7.6.1 7.6.2 7.6.3 7.7 7.8 10.1.1 15.2"
    assert sections >= {f"9110-{one}" for one in wanted.split()}


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "conformance.md").read_text() == page(), "make docs"
