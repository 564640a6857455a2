"""SERVICE of all commands: what one command prints as a name, every other one takes."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from nodeagent.meshctl.commands.cluster import (
    parse_service_namespace,
    service_argument,
    service_namespace_option,
)
from tests.cli.test_output import commands


@click.command()
@service_namespace_option
@service_argument(required=False)
def show(service: str, namespace: str) -> None:
    """Print what the command has got."""
    click.echo(f"{namespace} {service}".strip())


@pytest.mark.parametrize(
    ("arguments", "got"),
    [
        (["catalog"], "default catalog"),
        (["catalog", "-n", "shop"], "shop catalog"),
        (["shop/catalog"], "shop catalog"),
        (["catalog.shop"], "shop catalog"),
        (["-n", "shop", "shop/catalog"], "shop catalog"),
        (["default/catalog", "-n", "default"], "default catalog"),
        ([], "default"),
        (["-n", "shop"], "shop"),
    ],
)
def test_a_service_with_its_namespace_or_without(arguments: list[str], got: str) -> None:
    result = CliRunner().invoke(show, arguments)
    assert (result.exit_code, result.output.strip()) == (0, got)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("named", ["shop/catalog", "catalog.shop"])
def test_two_namespaces_contradict_each_other(named: str, order: int) -> None:
    first, last = [[named], ["-n", "office"]][::order]
    result = CliRunner().invoke(show, [*first, *last])
    assert result.exit_code == 2
    assert "'office' is another namespace than that of SERVICE, 'shop'" in result.output


@pytest.mark.parametrize(
    "name", ["Cart", "shop/", "/cart", "a/b/c", "cart.", ".shop", "cart.shop.svc", "a b", "\x1b[2J", "a/b.c"]
)
def test_no_name_of_a_service(name: str) -> None:
    result = CliRunner().invoke(show, [name])
    assert result.exit_code == 2
    assert "is not the name of a Service, such as catalog, shop/catalog or catalog.shop" in " ".join(
        result.output.split()
    )
    assert "\x1b" not in result.output


def test_all_commands_read_it_in_the_same_way() -> None:
    with_service = 0
    for name, command in commands():
        parameters = {parameter.name: parameter for parameter in command.params}
        if "service" in parameters:
            with_service += 1
            assert parameters["service"].is_eager, name
            assert parameters["namespace"].callback is parse_service_namespace, name
    assert with_service >= 9
