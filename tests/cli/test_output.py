"""One answer in the form that `-o` names: every command that has JSON has YAML, and they say the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import yaml
from click.testing import CliRunner

from nodeagent.meshctl.commands.output import print_answer, print_record
from nodeagent.meshctl.main import main


def commands(group: click.Group = main, name: str = "meshctl") -> Iterator[tuple[str, click.Command]]:
    for word, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


ANSWERING = {
    name: command for name, command in commands() if any(one.name == "output" for one in command.params)
}
SILENT = {"meshctl completion", "meshctl dashboard", "meshctl page", "meshctl top"}
"""They print a script, an address, a page as it is, and a screen."""


def test_every_other_command_has_the_option() -> None:
    assert {name for name, _ in commands()} - set(ANSWERING) == SILENT


@pytest.mark.parametrize("name", sorted(ANSWERING))
def test_the_option_is_the_same_everywhere(name: str) -> None:
    (option,) = [one for one in ANSWERING[name].params if one.name == "output"]
    assert option.opts == ["-o", "--output", "--format"]
    assert isinstance(option.type, click.Choice)
    first, *_, last, least = option.type.choices
    assert (first, last, least) == ("text", "json", "yaml")


class Row(msgspec.Struct, frozen=True):
    name: str
    hosts: tuple[str, ...] = ()


DOCUMENT = {"rows": [Row("größe: x", ("a", "b"))], "of": {"true": None, "no": "no", "at": 1.5}}


def test_yaml_is_what_json_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_answer("json", DOCUMENT, ["not this"])
    said = json.loads(capsys.readouterr().out)
    print_answer("yaml", DOCUMENT, ["not this"])
    output = capsys.readouterr().out
    assert yaml.safe_load(output) == said
    assert "größe" in output
    print_answer("text", DOCUMENT, ["this"])
    assert capsys.readouterr().out == "this\n"


def test_records_are_lines_or_documents(capsys: pytest.CaptureFixture[str]) -> None:
    records: list[dict[str, Any]] = [{"status": 200, "path": "/---"}, {"status": 503, "path": "a: b"}]
    for form, read in (
        ("json", lambda text: map(json.loads, text.splitlines())),
        ("yaml", yaml.safe_load_all),
    ):
        for record in records:
            print_record(form, record)
        assert list(read(capsys.readouterr().out)) == records


def test_explain_has_yaml(tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(
        "apiVersion: v1\nkind: Service\n"
        'metadata: {name: web, namespace: shop, annotations: {svc.mesh/enabled: "true"}}\n'
        "spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n",
        encoding="utf-8",
    )
    said = {}
    for form, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        arguments = ["explain", "--files", str(path), "-o", form, "http://web.shop.svc.mesh/"]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        said[form] = read(result.output)
    assert said["yaml"] == said["json"]
    assert said["yaml"]["answer"]["reason"] == "no_endpoint"
