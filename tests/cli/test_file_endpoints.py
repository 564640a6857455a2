"""`meshctl check` on files: Services without endpoints, standard input, folders with nothing in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from nodeagent.meshctl.main import main

PLAIN = """\
apiVersion: v1
kind: Service
metadata:
  name: shop
  namespace: front
  annotations:
    svc.mesh/enabled: "true"
spec:
  selector: {app: shop}
  ports:
    - {name: http, port: 80, targetPort: 8080}
    - {name: admin, port: 81}
    - {name: dns, port: 53, protocol: UDP}
"""


def meshctl(*arguments: str | Path, text: str | bytes | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(main, [*map(str, arguments)], input=text)
    return result.exit_code, result.output


def findings(*arguments: str | Path, text: str | bytes | None = None) -> list[dict[str, Any]]:
    _, output = meshctl("check", "--format", "json", *arguments, text=text)
    found: list[dict[str, Any]] = json.loads(output)["problems"]
    return found


def test_a_service_without_endpoints_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(PLAIN)
    code, output = meshctl("check", file)
    assert code == 0
    assert output.startswith(
        f"{file}:1: warning: Service front/shop: endpoints\n"
        "    wrong:  has no endpoints: the files hold no EndpointSlice, Endpoints or Pod for it\n"
        "    right:  the annotation svc.mesh/endpoints.http: 127.0.0.1:8080, say; or an EndpointSlice\n"
        "    effect: without a cluster nobody serves port http (80/TCP), admin (81/TCP): 503, or refused for"
        " tcp\n"
        "    paste:  this behind the Service, with the real addresses\n"
        "---\n"
    )
    assert output.splitlines()[-1].startswith("1 Service checked, 1 in the mesh, 0 problems, 1 warning")


def test_what_it_prints_can_be_pasted(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(PLAIN)
    (warning, _) = findings(file)
    pasted: str = warning["paste"]
    assert pasted in meshctl("check", file)[1]
    slice_ = yaml.safe_load(pasted)
    assert [(port["name"], port["port"]) for port in slice_["ports"]] == [("http", 8080), ("admin", 81)]
    file.write_text(PLAIN.replace("    - {name: dns, port: 53, protocol: UDP}\n", "") + pasted)
    assert findings(file) == []


@pytest.mark.parametrize("name", ["y", "on", "1", ""])
def test_what_it_prints_can_be_pasted_whatever_the_port_is_called(name: str, tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    text = PLAIN[: PLAIN.index("    - {name")] + f'    - {{name: "{name}", port: 80, targetPort: web}}\n'
    file.write_text(text)
    file.write_text(text + findings(file)[0]["paste"])
    assert findings(file) == []


def test_the_shorter_form_that_it_names_is_right(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    annotations = "    svc.mesh/endpoints.http: 127.0.0.1:8080\n    svc.mesh/endpoints.admin: 127.0.0.1:81\n"
    file.write_text(PLAIN.replace("spec:\n", f"{annotations}spec:\n"))
    assert [one["severity"] for one in findings(file)] == ["info"], "UDP is not carried, and that is all"


def test_of_many_the_slices_of_the_first_are_printed(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.yaml").write_text(PLAIN.replace("name: shop", f"name: shop-{number}"))
    _, output = meshctl("check", tmp_path)
    assert output.count("kind: EndpointSlice") == 3
    assert output.count("--format json has the EndpointSlice") == 2
    assert all(one["paste"] for one in findings(tmp_path) if one["severity"] == "warning")


def test_flags_of_the_agent_count(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(PLAIN)
    given = ("--endpoints", "shop.front:http=127.0.0.1:8080", "--endpoints", "shop.front:81=127.0.0.1:81")
    assert [one["severity"] for one in findings(*given, tmp_path)] == ["info"]
    code, output = meshctl("check", "--endpoints", "shop=127.0.0.1:1", tmp_path)
    assert code == 1
    assert "error: Flag --endpoints: shop.default=127.0.0.1:1\n" in output
    code, output = meshctl("check", "--endpoints", "shop=localhost:1", tmp_path)
    assert (code, "'localhost' is a name" in output) == (2, True)
    code, output = meshctl("check", "--cluster", "--endpoints", "shop=127.0.0.1:1")
    assert (code, "--endpoints has no meaning with --cluster" in output) == (2, True)


# -- standard input ------------------------------------------------------------------------------------

SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: shop-1, namespace: front, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: admin, port: 81}, {name: dns, port: 53, protocol: UDP}]
endpoints: [{addresses: [10.1.0.1]}]
"""
BAD = PLAIN.replace("spec:\n", '    svc.mesh/retry-attempts: "99"\nspec:\n')


def as_list(indent: int | None) -> str:
    items = [yaml.safe_load(BAD), yaml.safe_load(SLICE)]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=indent)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{BAD}---\n{SLICE}", 8),
        (f"---\n{SLICE}---\n{BAD}", 16),
        (yaml.safe_dump(json.loads(as_list(None))), 8),
        (as_list(None), 1),
        (as_list(4), 5),
        (f"\n\n{as_list(4)}", 7),
    ],
    ids=["yaml", "the slice first", "a List", "JSON", "JSON as kubectl writes it", "JSON after lines"],
)
def test_standard_input(text: str, line: int) -> None:
    found = [one for one in findings("-", text=text) if one["severity"] != "info"]
    assert [(one["file"], one["line"], one["field"]) for one in found] == [
        ("<stdin>", line, "svc.mesh/retry-attempts")
    ]
    assert meshctl("check", "-", text=text)[0] == 1


def test_standard_input_beside_files(tmp_path: Path) -> None:
    (tmp_path / "slice.yaml").write_text(SLICE)
    assert [one["severity"] for one in findings("-", tmp_path, "-", text=PLAIN)] == ["info"]


def test_a_mapping_in_braces_is_yaml_all_the_same() -> None:
    text = "{apiVersion: v1, kind: Service, metadata: {name: shop, annotations: {svc.mesh/enabled: 'true'}}}"
    assert [one["field"] for one in findings("-", text=text)] == ["spec.ports"]


@pytest.mark.parametrize(("text", "line"), [('{"kind": "Service",\n "a": [}', 2), ("a: [\nb: 1\n", 3)])
def test_what_is_neither_is_told(text: str, line: int) -> None:
    code, output = meshctl("check", "-", text=text)
    assert code == 1
    assert output.startswith(f"<stdin>:{line}: error: line {line}, column ")


@pytest.mark.parametrize("text", [b"", b"  \n\n"])
def test_standard_input_that_is_empty(text: bytes) -> None:
    code, output = meshctl("check", "-", text=text)
    assert code == 2
    assert "Error: <stdin> is empty" in output


def test_standard_input_of_bytes_that_are_no_text() -> None:
    code, output = meshctl("check", "-", text=b"\0\xff")
    assert code == 1
    assert "<stdin>:1: error" in output
    assert "is not text: it holds zero bytes" in output


def test_migrate_reads_it_too() -> None:
    text = PLAIN.replace('svc.mesh/enabled: "true"', 'mesh.traefik.io/retry-attempts: "2"')
    code, output = meshctl("migrate", "-", text=text)
    assert code == 0
    assert "kubectl annotate service --overwrite -n front shop svc.mesh/enabled=true" in output


# -- nothing to check ----------------------------------------------------------------------------------


@pytest.mark.parametrize("beside", ["", "shop.yml.bak", ".shop.yaml", "README.md"])
def test_a_folder_without_such_files(beside: str, tmp_path: Path) -> None:
    if beside:
        (tmp_path / beside).write_text(PLAIN)
    code, output = meshctl("check", tmp_path)
    assert code == 2
    assert (
        f"Error: {tmp_path} holds no file named *.yaml, *.yml or *.json (hidden files and folders do not"
        " count)"
    ) in output
    full = tmp_path / "full"
    full.mkdir()
    (full / "shop.yaml").write_text(PLAIN)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert meshctl("check", full, empty)[0] == 2, "one of two is still a mistake"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\n", "There is no Service: "),
        ("", "There is no Service: "),
        (PLAIN.replace("true", "false").replace("    svc.mesh/enabled", "    example.com/x"),
         "No Service asks for the mesh: "),
    ],
)  # fmt: skip
def test_files_without_a_service_in_the_mesh(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    code, output = meshctl("check", tmp_path)
    assert code == 0
    first, summary = output.splitlines()
    assert first.startswith(said)
    assert 'svc.mesh/enabled: "true"' in first
    assert summary.endswith("0 in the mesh, 0 problems")
