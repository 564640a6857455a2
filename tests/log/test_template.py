"""Templates of the access log: which texts are some, and that a line made by one is one line."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nodeagent.log.template import KEYS, LONGEST, NAMED, InvalidTemplate, Template, parse_template
from nodeagent.log.template_form import ABSENT, TemplateForm, clf_time, escaped
from nodeagent.worker.request_line import RequestLine

MOMENT = 1795892541.5
STAMP = "2026-11-28T19:02:21.500000Z"
NASTY = '\x1b[2J\r\n{path}%s"\\\u202e\u2028\x7f\udc80\U000e0001'
TEXTS = st.text(st.characters(codec="utf-8") | st.just("\t"), max_size=8).filter(
    lambda text: text.replace("\t", "").isprintable()
)
VALUES = st.one_of(
    st.text(st.characters()),
    st.sampled_from([NASTY, "", "-"]),
    st.integers(),
    st.floats(),
    st.none(),
    st.lists(st.text()),
)
REQUEST_KEYS = RequestLine.__struct_fields__


@st.composite
def templates(draw: st.DrawFn) -> Template:
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=len(KEYS), unique=True))
    return Template(tuple(draw(TEXTS) for _ in range(len(keys) + 1)), tuple(keys))


def written(template: Template) -> str:
    """The template as somebody would write it."""

    def doubled(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    parts = [doubled(template.texts[0])]
    for key, text in zip(template.keys, template.texts[1:], strict=True):
        parts += ["{", key, "}", doubled(text)]
    return "".join(parts)


def form(template: str) -> TemplateForm:
    return TemplateForm(parse_template(template), lambda: MOMENT)


def request(**values: Any) -> RequestLine:
    return RequestLine(**{"time": STAMP, "level": "info", "event": "request", **values})


# -- which texts are templates ----------------------------------------------------------------------------


@given(templates())
def test_what_is_written_is_read(template: Template) -> None:
    assert parse_template(written(template)) == template


def test_braces_as_text() -> None:
    assert parse_template('{{"a":"{path}"}}') == Template(('{"a":"', '"}'), ("path",))
    assert parse_template("{{{path}}}") == Template(("{", "}"), ("path",))
    assert form("{{}}{{path}} {path}")({"path": "/"}) == "{}{path} /"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the template is empty"),
        ("{stauts}", "{stauts} is no key of the access log; did you mean {status}?"),
        ("{time} {Path}", "{Path} is no key of the access log; did you mean {path}?"),
        ("{ path }", "did you mean {path}?"),
        ("{sourceworkload}", "did you mean {source_workload}?"),
        ("{}", "{} is no key of the access log; there are time, clf_time, level, event, service"),
        ("{user_agent_of_the_client_that_asked}", "{user_agent_of_the_cl…} is no key"),
        ("{" + "x" * 1900 + "}", "{" + "x" * 20 + "…} is no key"),
        ("{path!r}", "{path!r} is no key of the access log; did you mean {path}?"),
        ("{path} {", "the { at character 8 has no other brace that belongs to it"),
        (
            "{path",
            "the { at character 1 has no other brace that belongs to it; a brace that is meant as text is",
        ),
        ("{path}}", "the } at character 7 has no other brace"),
        ("{{path}", "the } at character 7 has no other brace"),
        ("{a{path}", "the { at character 1 has no other brace"),
        ("{path} {path}", "{path} stands twice; each key can stand once"),
        (
            "jsn",
            "'jsn' is none of json, console, common, combined, and no template, as it has no key",
        ),
        ("jsn", "did you mean json?"),
        ("Combined", "did you mean combined?"),
        ("$remote_addr - %h %s", "no key in braces, such as {path}"),
        ("x" * LONGEST, "'xxxxxxxxxxxxxxxxxxxx…' is none of"),
        ("{path}" + "x" * LONGEST, f"the template has {LONGEST + 6} characters; {LONGEST} are the most"),
        ("{path}\n{time}", "character 7 is '\\n'; apart from tabs a line has printable characters only"),
        ("{path}\x1b[31m", "character 7 is '\\x1b'"),
        ("{path}\u202e", "character 7 is '\\u202e'"),
        ("{path}\udc80", "character 7 is '\\udc80'"),
    ],
)
def test_what_is_no_template_is_refused_with_a_reason(text: str, message: str) -> None:
    with pytest.raises(InvalidTemplate) as refused:
        parse_template(text)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 600
    assert str(refused.value).isprintable()


def test_the_keys_are_those_of_the_lines() -> None:
    assert {*REQUEST_KEYS, "destination", "clf_time"} == set(KEYS)
    assert len(set(KEYS)) == len(KEYS)


# -- lines ------------------------------------------------------------------------------------------------


def test_a_line() -> None:
    asked = request(
        source="10.1.0.9",
        source_workload="shop/deployment/web",
        method="GET",
        path="/items",
        protocol="HTTP/1.1",
        status=200,
        sent=512,
        took_ms=41.2,
        endpoint="",
    )
    own = form(
        '{time}\t{source_workload} "{method} {path}" {status} {took_ms} {endpoint} {backoff_ms} {destination}'
    )
    assert own.of_struct(asked).decode() == (f'{STAMP}\tshop/deployment/web "GET /items" 200 41.2 - - -')
    assert form("common").of_struct(asked) == (
        b'10.1.0.9 - shop/deployment/web [28/Nov/2026:19:02:21 +0000] "GET /items HTTP/1.1" 200 512'
    )
    assert form("combined").of_struct(asked) == form("common").of_struct(asked) + b' "-" "-"'


def test_a_line_of_keys_has_the_time_of_now() -> None:
    assert (
        form("{time} {clf_time} {event} {reason}")(
            {"level": "warning", "event": "connection_refused", "port": 80, "reason": "no_route"}
        )
        == f"{STAMP} 28/Nov/2026:19:02:21 +0000 connection_refused no_route"
    )


@pytest.mark.parametrize("month", range(1, 13))
def test_months(month: int) -> None:
    name = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month - 1]
    assert clf_time(f"2026-{month:02d}-03T04:05:06.789000Z") == f"03/{name}/2026:04:05:06 +0000"


@given(templates(), st.dictionaries(st.sampled_from(KEYS[2:]), VALUES))
def test_a_line_is_one_line(template: Template, values: dict[str, Any]) -> None:
    """Of any template and any values; both kinds of lines are equal, and all of it can be shown."""
    made = TemplateForm(template, lambda: MOMENT)
    line = made({"event": "e", **values})
    assert line.replace("\t", "").isprintable()
    of_request = {key: value for key, value in values.items() if key in REQUEST_KEYS}
    as_bytes = made.of_struct(RequestLine(**{"event": "e", "time": STAMP, **of_request}))
    assert as_bytes.count(b"\n") == as_bytes.count(b"\r") == 0
    if "destination" not in template.keys:
        assert as_bytes.decode() == line


@given(st.text(max_size=60) | st.text("{}{}path time\n", max_size=20), VALUES)
@example("{path}", NASTY)
def test_a_text_makes_one_line_or_is_no_template(text: str, value: Any) -> None:
    try:
        template = parse_template(text)
    except InvalidTemplate:
        return
    values: dict[str, Any] = dict.fromkeys(KEYS[2:], value)
    assert TemplateForm(template)(values).replace("\t", "").isprintable()


@given(st.text(st.characters()) | st.just(NASTY))
def test_a_value_in_quotes_is_a_string_of_json(value: str) -> None:
    shown = escaped(value)
    assert json.loads(f'"{shown}"') == value
    line = form('{{"path":"{path}"}}')({"path": value})
    assert json.loads(line) == {"path": value or ABSENT}


def test_a_client_cannot_close_quotes_or_end_the_line() -> None:
    line = form('"{method} {path}" {status}').of_struct(request(method="GET", path='/" 200\n"', status=404))
    assert line == b'"GET /\\" 200\\n\\"" 404'


def test_a_named_template_is_one_as_it_stands() -> None:
    assert NAMED
    for name, text in NAMED.items():
        assert parse_template(name) == parse_template(text)


def test_a_struct_of_another_kind_has_its_own_keys() -> None:
    class Other(msgspec.Struct):
        time: str
        destination: str

    assert form("{path} {destination}").of_struct(Other(STAMP, "240.0.0.1:80")) == b"- 240.0.0.1:80"
