"""Print docs/nodeagent.md: the agent's command line, from the commands themselves (`make docs`).

What the page says of a bad value is what the command says when it is given that value.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import click
from click.testing import CliRunner

from hack.annotations import cell
from nodeagent.cli.main import main, run
from nodeagent.cli.parsed import Parsed

HEADER: Final = """\
# The agent's command line

`nodeagent run` runs the agent of one node. You can give each setting as a flag or as an environment variable;
if you give both, the flag counts. A variable that is empty counts as not set. The Helm chart and
`manifests/base` set the variables ([install](install.md)). Generated from the code by `make docs`.

```console
$ nodeagent run --source file:DIR --capture loopback
```

The agent reads its settings once, when it starts. If a value cannot be used, the agent does not start: it
prints which flag or variable is wrong and what would be right, and ends with status 2.
"""

TOGETHER: Final = """\
## Settings that do not go together

Each of these ends with status 2 too.
"""

VARIABLES: Final[Mapping[str, str]] = {
    "`KUBECONFIG`": "With `--source kube`: the path of the kubeconfig to use. It takes precedence over the "
    "ServiceAccount of the pod. If the file does not exist, the agent logs `agent_failed` and ends with "
    "status 1.",
    "`KUBERNETES_SERVICE_HOST`, `KUBERNETES_SERVICE_PORT`": "Kubernetes sets them in each pod. If they are "
    "set and `KUBECONFIG` is not, the agent uses the ServiceAccount of its pod. If none of the three is set, "
    "it uses `~/.kube/config`.",
    "`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`": "With a kubeconfig that names no proxy, the agent reaches the "
    "API server through this one. With the ServiceAccount of a pod they have no effect.",
    "`SSL_CERT_FILE`": "If the URL of `--traces` is one with TLS: a file with the CAs that the collector's "
    "certificate is checked with, in place of the system's. It is read anew when it has changed "
    "([tracing](tracing.md#set-it-up)).",
    "`PATH`": "Where the agent looks for `nft`.",
}
"""Variables that are not the mesh's own."""

STATUSES: Final[Mapping[str, str]] = {
    "0": "The agent was told to end (SIGTERM or SIGINT) and has drained.",
    "1": "The agent could not start, or cannot use its source. The event `agent_failed` says why "
    "([logs](logs.md)).",
    "2": "A flag or a variable is wrong.",
    "above 128": "The agent was killed by a signal: the status is 128 and the number of the signal.",
}

FOOTER: Final = """\
As process 1 of a container, `nodeagent run` starts another agent when one is killed or hangs. After five
deaths within a minute it ends with the last status, so that Kubernetes sees the container restart.

## Other commands

`nodeagent version` (or `nodeagent --version`) prints the version of svc.mesh, of Python and of the kernel.
`nodeagent node-check` prints as JSON what an agent would find on this node, and changes nothing.
`nodeagent --help` and `nodeagent run --help` print a summary of this page. The command for people is
[meshctl](meshctl.md).

Variables that only tests and `make` read are in [testing](testing.md#variables).
"""

WRONG: Final[Mapping[str, str]] = {
    "--source": "shop",
    "--endpoints": "web=localhost:8080",
    "--default": "timeout=soon",
    "--limit": "retry-attempts=many",
    "--capture": "iptables",
    "--mesh-range": "10.0.0.0/24",
    "--zone": "my_mesh",
    "--alias-zone": "my_mesh",
    "--compat": "istio",
    "--dns-listen": "localhost:53",
    "--admin-listen": "15000",
    "--workers": "0",
    "--worker-memory": "1Mi",
    "--node-name": "Node_1",
    "--node-zone": "eu 1a",
    "--middleware-path": "/nowhere",
    "--token-store": "redis.shop:6379",
    "--traces": "http://collector:4318",
    "--drain-timeout": "30",
    "--log-level": "verbose",
    "--log-format": "text",
    "--access-log": "none",
    "--max-series": "100",
}
"""A bad value for each flag whose values are checked when the agent starts."""

LATER: Final[Mapping[str, str]] = {
    "--service-selector": "The API server refuses a selector that is malformed. The agent logs "
    "`agent_failed` with the server's reason and ends with status 1.",
    "--ready-file": "If the agent cannot make the file, it logs `ready_file_failed`. Traffic is not "
    "affected, but a probe that looks for the file fails.",
    "--state-dir": "If the agent cannot write to the folder, it logs `snapshot_not_written` and serves "
    "without a snapshot.",
    "--traces-headers-file": "If the file cannot be read, or has a line that cannot be used, the agent logs "
    "`traces_not_sent` with the number of the line, keeps spans for a while, and tries again.",
    "--token-store-password-file": "Workers that cannot read the file log `token_store_lost` and go on "
    "without the store.",
}
"""What a bad value gets whose harm shows only when the agent runs."""

CONFLICTS: Final[Sequence[str]] = (
    "--source file:shop --service-selector svc.mesh/watch=true",
    "--source kube --endpoints web=127.0.0.1:8080",
    "--capture loopback --mesh-range 240.0.0.0/4",
    "--capture nftables --mesh-range 127.64.0.0/10",
    "--capture loopback --alias-zone svc.mesh",
    "--traces-headers-file /etc/svcmesh/token",
)


_REFUSED: Final = re.compile(
    r"^Error: (?:Invalid value for .*?\(env var: \S+\): )?(.*)\Z", re.MULTILINE | re.DOTALL
)


def render() -> str:
    """Return the page."""
    flags = [parameter for parameter in run.params if isinstance(parameter, click.Option)]
    overview = [(f"[`{name(flag)}`](#{name(flag)})", f"`{flag.envvar}`", default(flag)) for flag in flags]
    conflicts = [(f"`{words}`", refusal(words.split())) for words in CONFLICTS]
    parts = [
        HEADER,
        table(("flag", "variable", "default"), overview),
        "## Settings\n",
        *(section(flag) for flag in flags),
        TOGETHER,
        table(("flags", "what the agent says"), conflicts),
        "## Other variables\n",
        table(("variable", "what the agent does with it"), VARIABLES.items()),
        "## Exit status\n",
        table(("status", "meaning"), STATUSES.items()),
        FOOTER,
    ]
    return "\n".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of a page."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def section(flag: click.Option) -> str:
    """Return what the page says of one flag."""
    lines = [
        f"### `{name(flag)}`",
        "",
        prose(flag.help or ""),
        "",
        f"- Variable: `{flag.envvar}`",
        f"- Values: {values(flag)}",
        f"- Default: {default(flag)}",
        f"- A bad value: {bad_value(flag)}",
        "",
    ]
    return "\n".join(lines)


def name(flag: click.Option) -> str:
    """Return the flag as it is given."""
    return flag.opts[0]


def prose(text: str) -> str:
    """Return a help text as a paragraph of the page: what stands for a name is code, not an HTML element."""
    coded = re.sub(r"(<\S+>)", r"`\1`", text)
    return textwrap.fill(coded, 115, break_long_words=False, break_on_hyphens=False)


def values(flag: click.Option) -> str:
    """Return what may be given."""
    if isinstance(flag.type, click.Choice):
        return ", ".join(f"`{choice}`" for choice in flag.type.choices)
    if isinstance(flag.type, Parsed):
        return flag.type.values
    if isinstance(flag.type, click.Path):
        return "the path of a file" if flag.type.file_okay else "the path of a folder"
    return "a label selector, as `kubectl get --selector` takes it"


def default(flag: click.Option) -> str:
    """Return the default: a value, or words where it depends on the machine."""
    return flag.show_default if isinstance(flag.show_default, str) else f"`{flag.default}`"


def bad_value(flag: click.Option) -> str:
    """Return what a bad value gets: the message, or what happens later."""
    if name(flag) in LATER:
        return LATER[name(flag)]
    value = WRONG[name(flag)]
    return f"`{name(flag)} {value}` gets {refusal([name(flag), value])}"


def refusal(words: Sequence[str]) -> str:
    """Return what `nodeagent run` says when it does not start with these words."""
    result = CliRunner().invoke(main, ["run", *words], env={"COLUMNS": "110"})
    (error,) = _REFUSED.findall(result.output)
    if result.exit_code != 2:
        raise ValueError(f"nodeagent run {' '.join(words)} did not end with status 2")
    return f"“{cell(' '.join(error.split()))}”"


if __name__ == "__main__":
    print(render(), end="")
