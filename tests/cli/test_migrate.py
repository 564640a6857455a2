"""`meshctl migrate`: lines for kubectl, comments for what is lost, and a script that is safe to run."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from discovery.files.reading import read_once
from nodeagent.meshctl.check import node_settings, plan_of
from nodeagent.meshctl.main import main
from nodeagent.meshctl.migrate import REMINDER

GOLDEN = Path(__file__).parent.parent / "golden"
CART = """\
apiVersion: v1
kind: Service
metadata:
  name: cart
  namespace: shop
  annotations:
    mesh.traefik.io/traffic-type: http
    mesh.traefik.io/retry-attempts: "3"
    mesh.traefik.io/ratelimit-average: "100"
    mesh.traefik.io/ratelimit-burst: "200"
spec:
  clusterIP: 10.96.0.10
  ports:
    - {name: http, port: 80}
"""


def migrate(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["migrate", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_annotate_and_remove(tmp_path: Path) -> None:
    file = tmp_path / "cart.yaml"
    file.write_text(CART)
    assert migrate(str(file)) == (
        0,
        (
            f"{REMINDER}\n"
            "kubectl annotate service --overwrite -n shop cart svc.mesh/enabled=true svc.mesh/protocol=http "
            "'svc.mesh/rate-limit=100/s burst=200 per=source' svc.mesh/retry-attempts=2\n"
        ),
        "# 1 Service with such annotations, 0 with something that has no equivalent\n",
    )
    code, output, _ = migrate("--remove", str(file))
    assert (code, output) == (
        0,
        (
            "kubectl annotate service -n shop cart mesh.traefik.io/ratelimit-average- "
            "mesh.traefik.io/ratelimit-burst- mesh.traefik.io/retry-attempts- mesh.traefik.io/traffic-type-\n"
        ),
    )


def test_what_has_no_equivalent_is_a_comment(tmp_path: Path) -> None:
    file = tmp_path / "cart.yaml"
    file.write_text(CART.replace("traffic-type: http", "traffic-type: udp"))
    code, output, errors = migrate(str(file))
    assert code == 1
    assert output == (
        f"{REMINDER}\n"
        f"# shop/cart ({file}:7): mesh.traefik.io/traffic-type: udp: has no equivalent: the mesh does not "
        f"carry UDP and SCTP yet\n"
        "# instead: http or tcp, or clients that use the Service's ordinary name\n"
        "# effect: the Service is not meshed\n"
    ).replace("# instead", "#     instead").replace("# effect", "#     effect")
    assert "1 with something that has no equivalent" in errors


def test_a_bad_value_is_not_carried_over(tmp_path: Path) -> None:
    file = tmp_path / "cart.yaml"
    file.write_text(CART.replace('"3"', '"many"'))
    code, output, _ = migrate(str(file))
    assert code == 1
    assert "svc.mesh/retry-attempts" not in output
    assert f"({file}:8): mesh.traefik.io/retry-attempts: many: is not a whole number" in output


def test_nothing_to_migrate(tmp_path: Path) -> None:
    (tmp_path / "cart.yaml").write_text(CART.replace("mesh.traefik.io", "example.com"))
    assert migrate(str(tmp_path))[:2] == (0, "")


def test_the_script_is_safe_to_run(tmp_path: Path) -> None:
    """Values are anybody's: none gets out of its quotes or its comment."""
    document = yaml.safe_load(CART)
    victim = tmp_path / "victim"
    document["metadata"]["annotations"] = {
        "mesh.traefik.io/scheme": f"x\ntouch {victim}",
        "mesh.traefik.io/traffic-type": f"$(touch {victim})",
        "mesh.traefik.io/circuit-breaker-expression": f"NetworkErrorRatio() > 0.5 && `touch {victim}`",
        f"mesh.traefik.io/a\ntouch {victim}": "x",
    }
    (tmp_path / "cart.yaml").write_text(yaml.safe_dump(document))
    for arguments in ((), ("--remove",)):
        script = migrate(*arguments, str(tmp_path))[1]
        assert script
        subprocess.run(["sh", "-c", f"kubectl() {{ :; }}\n{script}"], check=True)
        assert not victim.exists()


TARGET = """\
apiVersion: access.smi-spec.io/v1alpha2
kind: TrafficTarget
metadata: {name: cart, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: cart, namespace: shop}
  rules:
    - {kind: HTTPRouteGroup, name: cart}
  sources:
    - {kind: ServiceAccount, name: web, namespace: front}
"""
SPLIT = """\
apiVersion: split.smi-spec.io/v1alpha3
kind: TrafficSplit
metadata: {name: canary, namespace: shop}
spec:
  service: cart
  backends:
    - {service: cart-v1, weight: 90}
    - {service: cart-v2, weight: 10}
"""
ROUTES = """\
apiVersion: specs.smi-spec.io/v1alpha3
kind: HTTPRouteGroup
metadata: {name: cart, namespace: shop}
spec:
  matches:
    - {name: all, pathRegex: /, methods: ["*"]}
"""


@pytest.mark.parametrize(
    ("documents", "arguments", "code", "said"),
    [
        ((TARGET,), (), 1, ["TrafficTarget shop/cart", "front/web", "open to every client"]),
        ((TARGET,), ("--accept-open",), 0, ["TrafficTarget shop/cart"]),
        ((TARGET,), ("--remove",), 1, ["TrafficTarget shop/cart"]),
        ((SPLIT,), (), 1, ["TrafficSplit shop/canary", "instead: svc.mesh/split: cart-v1=90 cart-v2=10 on"]),
        ((TARGET, SPLIT), ("--accept-open",), 1, ["TrafficSplit shop/canary"]),
        ((ROUTES,), (), 0, ["HTTPRouteGroup shop/cart", "means nothing without"]),
        ((CART, TARGET, SPLIT, ROUTES), (), 1, ["kubectl annotate service", "TrafficTarget", "TrafficSplit"]),
    ],
)
def test_what_limits_or_splits_is_not_lost_in_silence(
    documents: tuple[str, ...], arguments: tuple[str, ...], code: int, said: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "all.yaml"
    file.write_text("---\n".join(documents))
    found, output, _ = migrate(*arguments, str(file))
    assert found == code
    assert all(words in output for words in said)
    assert (REMINDER in output) == (arguments == ())
    lines = [line for line in output.splitlines() if not line.startswith("#")]
    assert all(line.startswith("kubectl annotate service") for line in lines)


def test_objects_of_the_other_mesh_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text("---\n".join((CART, TARGET, SPLIT, ROUTES)))
    assert migrate(str(file))[2] == (
        "# 1 Service with such annotations, 0 with something that has no equivalent; 2 SMI objects without an"
        " equivalent\n"
    )
    assert "; 1 SMI object without" in migrate("--accept-open", str(file))[2]


def test_check_counts_them_too(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text("---\n".join((CART, TARGET, SPLIT, ROUTES)))
    result = CliRunner().invoke(main, ["check", "--compat", "traefik-mesh", str(file)])
    assert result.exit_code == 1
    assert f"{file}:23: error: TrafficTarget shop/cart: spec.sources: front/web\n" in result.output
    assert result.output.splitlines()[-1] == "1 Service checked, 1 in the mesh, 2 problems, 1 warning, 1 note"
    assert CliRunner().invoke(main, ["check", str(file)]).exit_code == 0


@pytest.mark.parametrize("case", ["compat-traefik-mesh", "compat-excluded"])
def test_annotated_as_told_the_plan_is_the_same(case: str, tmp_path: Path) -> None:
    """Without the flag and with the new annotations a node does what it did with the flag and the old."""
    documents = {}
    for document in yaml.safe_load_all((GOLDEN / case / "cluster.yaml").read_text()):
        documents[document["metadata"]["name"]] = document
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(yaml.safe_dump_all(documents.values()))
    for arguments in ((), ("--remove",)):
        for line in migrate(*arguments, str(old))[1].splitlines():
            if line.startswith("#"):
                continue
            words = shlex.split(line)
            at = words.index("-n")
            assert words[at + 1] == "shop"
            annotations = documents[words[at + 2]]["metadata"]["annotations"]
            for word in words[at + 3 :]:
                name, equals, value = word.partition("=")
                if equals:
                    annotations[name] = value
                else:
                    del annotations[name.removesuffix("-")]
    new.write_text(yaml.safe_dump_all(documents.values()))
    before = plan_of(read_once(old, compat="traefik-mesh"), node_settings())
    after = plan_of(read_once(new), node_settings())
    assert {key: (s.listeners, s.effective) for key, s in before.services.items()} == {
        key: (s.listeners, s.effective) for key, s in after.services.items()
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "either PATH... or --cluster"),
        (("--cluster", "x.yaml"), "either PATH... or --cluster"),
        (("--context", "x", "x.yaml"), "need --cluster"),
        (("--cluster", "-n", "Shop!"), "is not the name of a namespace"),
        (("/none",), "/none"),
        (("--cluster", "--kubeconfig", "/none"), "kubeconfig /none does not exist"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], message: str) -> None:
    code, _, errors = migrate(*arguments)
    assert code == 2
    assert message in errors


def test_json_says_what_the_lines_say(tmp_path: Path) -> None:
    file = tmp_path / "cart.yaml"
    file.write_text(CART.replace('"3"', '"many"'))
    code, output, errors = migrate("-o", "json", str(file))
    (cart,) = json.loads(output)["services"]
    assert (code, errors) == (1, "")
    assert (cart["namespace"], cart["name"], cart["lossless"]) == ("shop", "cart", False)
    assert cart["annotate"]["svc.mesh/enabled"] == "true"
    assert "svc.mesh/retry-attempts" not in cart["annotate"]
    assert "mesh.traefik.io/retry-attempts" in cart["remove"]
    (finding,) = [one for one in cart["findings"] if one["severity"] == "error"]
    assert (finding["field"], finding["value"]) == ("mesh.traefik.io/retry-attempts", "many")
    assert finding["file"] == str(file)
    file.write_text(CART)
    code, output, _ = migrate("-o", "json", str(file))
    assert (code, json.loads(output)["services"][0]["lossless"], json.loads(output)["objects"]) == (
        0,
        True,
        [],
    )
