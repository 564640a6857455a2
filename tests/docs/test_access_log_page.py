"""The page of the access log says what is so, and its examples are played."""

from __future__ import annotations

import json
import re

import msgspec
import yaml

from nodeagent.log.template import COMMON, KEYS, LONGEST, NAMED, OTHER_FORMS, parse_template
from nodeagent.log.template_form import TemplateForm
from nodeagent.worker.request_line import RequestLine
from tests.middleware.pages import DOCS, blocks, rows

PAGE = (DOCS / "access-log.md").read_text()
FORMS = dict(rows(PAGE, "| `--access-log-format` | a line |"))


def line() -> RequestLine:
    (example,) = blocks(PAGE, "json")
    return msgspec.json.decode(example, type=RequestLine, strict=True)


def test_the_line_of_json_is_one_that_a_worker_writes() -> None:
    (example,) = blocks(PAGE, "json")
    assert msgspec.json.encode(line()).decode() == example.rstrip()


def test_the_template_makes_the_line_below_it() -> None:
    values = yaml.safe_load(blocks(PAGE, "yaml")[-1])
    (made,) = blocks(PAGE, "text")
    template = parse_template(values["agent"]["accessLogFormat"])
    assert TemplateForm(template).of_struct(line()).decode() == made.rstrip()


def test_the_forms_with_a_name() -> None:
    assert list(FORMS) == [*(f"`{name}`" for name in (*OTHER_FORMS, *NAMED)), "other text"]
    assert f"`{COMMON}`" in FORMS["`common`"]
    assert NAMED["combined"] == COMMON + ' "-" "-"'


def test_the_keys_are_all_there() -> None:
    (told,) = re.findall(r"^- The keys are .*?(?=^- )", PAGE, re.MULTILINE | re.DOTALL)
    named = re.findall(r"`(\w+)`", told)
    assert sorted([*named, "time"]) == sorted([*KEYS, "time", "time"])  # `time` explains `clf_time`


def test_what_else_it_says_of_templates() -> None:
    words = " ".join(PAGE.split())
    assert f"and {LONGEST} characters at most" in words
    tcp = TemplateForm(parse_template("{method} {path} {protocol} {status}"))({"protocol": "tcp"})
    assert f"`{{method}} {{path}} {{protocol}} {{status}}` is `{tcp}`" in words
    (as_json,) = re.findall(r"`(\{\{\".*?\}\})`", PAGE)
    made = TemplateForm(parse_template(as_json)).of_struct(line())
    assert json.loads(made) == {"path": "/items", "status": "200"}
