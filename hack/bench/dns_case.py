"""DNS: A queries for names that exist, over UDP, of the whole agent and of dnsmasq, one core each."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator

from hack.bench.accounting import cpu_time
from hack.bench.agent import NAMESPACE, ZONE, Agent, many_specs, write_folder
from hack.bench.figures import AGENT, Sample
from hack.bench.load import dnsperf_command, run_dnsperf
from hack.bench.machine import Cores, program
from hack.bench.processes import ProcessGroup
from hack.kit.ports import LOCALHOST, free_port, listens
from hack.kit.proc import family
from hack.kit.processes import Process, wait_until

NAMES = 100


def measure(
    group: ProcessGroup, cores: Cores, rounds: int, seconds: float, progress: Callable[[str], None]
) -> Iterator[Sample]:
    """Ask both for the same names in turn, `rounds` times; yield a sample for each."""
    specs = many_specs(NAMES)
    folder = group.directory / "dns-cluster"
    write_folder(folder, specs)
    hosts = group.directory / "hosts"
    hosts.write_text("".join(f"{spec.address} {spec.name}.{NAMESPACE}.{ZONE}\n" for spec in specs))
    names = group.directory / "names"
    names.write_text("".join(f"{spec.name}.{NAMESPACE}.{ZONE} A\n" for spec in specs))
    agent = Agent(group, folder, cores.proxy, "agent-dns")
    agent.wait_ready()
    servers: list[tuple[str, Process, int]] = []
    if program("dnsmasq"):
        servers.append(_start_dnsmasq(group, cores.proxy, str(hosts)))
    servers.append((AGENT, agent.process, agent.dns_port))
    group.commands["dnsperf"] = " ".join(dnsperf_command(names, agent.dns_port, seconds))
    for number in range(rounds):
        for name, process, port in servers:
            pids = family(process.pid)
            before = cpu_time(pids)
            load = run_dnsperf(names, port, seconds, cores.load)
            used = cpu_time(pids) - before
            values = {
                "per_second": load.queries / load.seconds,
                "cpu_us_per_query": used * 1e6 / load.queries,
                "core_share": used / load.seconds,
                "lost": float(load.lost),
            }
            shown = f"{values['per_second']:,.0f}/s, {values['cpu_us_per_query']:.2f} us CPU"
            progress(f"round {number + 1} of {rounds}: dns, {name}: {shown}")
            yield Sample("dns", name, number, values)


def _start_dnsmasq(group: ProcessGroup, core: int, hosts: str) -> tuple[str, Process, int]:
    port = free_port()
    command = [program("dnsmasq") or "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null"]
    command += ["--no-resolv", "--no-hosts", f"--addn-hosts={hosts}", f"--port={port}"]
    command += [f"--listen-address={LOCALHOST}", "--bind-interfaces", "--pid-file="]
    command += [f"--user={pwd.getpwuid(os.geteuid()).pw_name}"]
    process = group.start("dnsmasq", command, core)
    wait_until(lambda: listens(LOCALHOST, port), process)
    return "dnsmasq", process, port
