"""A large cluster: 10,000 Services, 100,000 endpoints, a real API server, one agent with nftables capture.

Everything runs in a network namespace of its own (`python -m hack.bench.cluster_case`, started by `measure`),
where nothing else uses nftables and routes, and endpoints may have addresses that an API server accepts.
Agent and worker share one core; once everything is created, etcd, the API server and the program that changes
it have the other.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from discovery.model import ServiceKey
from hack.bench.accounting import cpu_time, memory
from hack.bench.figures import AGENT, Sample, quantile
from hack.bench.machine import Cores, move_to
from hack.bench.peers import start_backend
from hack.bench.processes import BenchError, ProcessGroup
from hack.bench.scale_case import QUIET, Prober
from hack.kit.manifests import Document, Port, endpoint_slice, service
from hack.kit.proc import family
from hack.kit.processes import Process, wait_until
from hack.kube.assets import AssetsMissing, find_assets
from hack.kube.client import Client, path_of
from hack.kube.control_plane import ControlPlane
from nodeagent.plan.addresses import address_range
from nodeagent.settings import NFTABLES_RANGE

SERVICES = 10_000
ENDPOINTS = 10
NAMESPACES = 20
WRITERS = 8
PROBED = 5000
TARGETS = tuple(f"10.254.0.{number}" for number in range(1, ENDPOINTS + 2))
"""Where the probed Service's endpoints really are: ten, and the one that is added."""
ADMIN = ("127.0.0.1", 15000)
CHANGES_PER_SECOND = 100
START_TIME = 120.0
REACH_TIME = 10.0


def measure(cores: Cores, changes: int, seconds: float, progress: Callable[[str], None]) -> Iterator[Sample]:
    """Run the case in a namespace of its own; yield its samples.

    Raises:
        BenchError: there is no API server to run, or the kernel grants no namespace.
    """
    try:
        find_assets()
    except AssetsMissing as error:
        raise BenchError(f"no API server to measure with: {error}") from error
    unshare = ["unshare", "--net", "--mount"]
    if os.geteuid():
        unshare += ["--user", "--map-root-user"]
    words = map(str, (cores.proxy, cores.load, changes, seconds))
    inside = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, "-m", __name__, *words]
    # In memory: etcd waits for the disk with every write, and the disk is not what is measured.
    environment = {**os.environ, **({"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {})}
    with subprocess.Popen([*unshare, *inside], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                yield msgspec.json.decode(line, type=Sample)
            else:
                progress(line.rstrip())
    if process.returncode:
        raise BenchError(f"the case of a large cluster ended with status {process.returncode}")


def namespace_of(number: int) -> str:
    """Return the namespace of a Service."""
    return f"team-{number % NAMESPACES:02}"


def addresses_of(number: int, more: int = 0) -> list[str]:
    """Return the endpoints of a Service: nobody is there, but for the one that is probed."""
    if number == PROBED:
        return list(TARGETS[: ENDPOINTS + more])
    first = int(ipaddress.IPv4Address("10.128.0.0")) + number * 16
    return [str(ipaddress.IPv4Address(first + offset)) for offset in range(1, ENDPOINTS + 1 + more)]


def service_of(number: int, port: int) -> Document:
    """Return a Service."""
    return service(f"service-{number}", [Port(80, port, "http")], namespace=namespace_of(number))


def slice_of(number: int, port: int, probed: bool = False) -> Document:
    """Return the EndpointSlice of a Service; with `probed` its endpoints are those that are there."""
    ports = [Port(80, port, "http")]
    document = endpoint_slice(f"service-{number}", ports, (), namespace=namespace_of(number))
    return document | endpoints_of(PROBED if probed else number)


def endpoints_of(number: int, more: int = 0) -> Document:
    """Return the part of the slice that changes."""
    return {
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": True}, "nodeName": f"node-{index}"}
            for index, address in enumerate(addresses_of(number, more))
        ]
    }


def change_slice(session: Client, number: int, more: int = 0) -> None:
    """Give a Service its endpoints, or one more than those."""
    session.request("PATCH", path_of(slice_of(number, 0)), endpoints_of(number, more))


def populate(plane: ControlPlane, port: int) -> None:
    """Create all Services, each with one slice, over several connections."""
    session = plane.open_session()
    for number in range(NAMESPACES):
        metadata = {"name": namespace_of(number)}
        session.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    failures: list[BaseException] = []

    def create(first: int) -> None:
        writer = plane.open_session()
        try:
            for number in range(first, SERVICES, WRITERS):
                writer.create(service_of(number, port))
                writer.create(slice_of(number, port))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=create, args=(first,)) for first in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise BenchError(f"creating Services: {failures[0]}")


def run(cores: Cores, changes: int, seconds: float) -> Iterator[Sample]:
    """Measure, inside the namespace."""
    for address in TARGETS:
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    with tempfile.TemporaryDirectory(prefix="svcmesh-bench-") as name, ProcessGroup(Path(name)) as group:
        _, port = start_backend(group, cores.load, TARGETS, "$server_addr")
        with ControlPlane(controllers=(), apiserver_flags=(f"--advertise-address={TARGETS[0]}",)) as plane:
            started = time.perf_counter()
            populate(plane, port)
            print(f"created {SERVICES} Services in {time.perf_counter() - started:.0f} s", flush=True)
            for pid in family(os.getpid()):
                move_to(cores.load, pid)
            agent, sample = _start(group, cores, plane.kubeconfig)
            yield sample
            yield _change_one(plane.open_session(), changes)
            yield _add_one(plane.open_session(), port, changes)
            yield _change_many(plane.open_session(), agent, seconds)


def _start(group: ProcessGroup, cores: Cores, kubeconfig: str) -> tuple[Process, Sample]:
    command = [sys.executable, "-m", "nodeagent", "run", "--source", "kube", "--capture", "nftables"]
    command += ["--workers", "1", "--drain-timeout", "1s", "--log-format", "json"]
    command += ["--admin-listen", f"{ADMIN[0]}:{ADMIN[1]}", "--state-dir", str(group.directory / "state")]
    started = time.perf_counter()
    process = group.start("agent", command, cores.proxy, {**os.environ, "KUBECONFIG": kubeconfig})
    wait_until(lambda: _admin("/readyz") is not None, process, START_TIME)
    ready = time.perf_counter() - started
    agent, worker = family(process.pid)[:2]
    used, carried = memory([agent]), memory([worker])
    values = {"ready_s": ready, "cpu_s": cpu_time([agent, worker]), "agent_pss_mib": used.pss}
    values |= {"agent_rss_mib": used.rss, "worker_pss_mib": carried.pss, "worker_rss_mib": carried.rss}
    return process, Sample("10000 services", AGENT, 0, values)


def _admin(path: str) -> bytes | None:
    connection = http.client.HTTPConnection(*ADMIN, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except OSError:
        return None
    else:
        return body if response.status == 200 else None
    finally:
        connection.close()


def _mesh_address(service: Document) -> str:
    """Return the mesh address of a Service as the API server has it."""
    key = ServiceKey(service["metadata"]["namespace"], service["metadata"]["name"])
    return address_range(NFTABLES_RANGE).claim(key, service["spec"]["clusterIPs"]).address


def _change_one(session: Client, changes: int) -> Sample:
    """Add and remove an endpoint; measure from the API server's answer to the endpoint's own."""
    prober = Prober(_mesh_address(session.get(path_of(service_of(PROBED, 0)))), 80)
    times = []
    for number in range(changes):
        prober.ask_for(random.uniform(*QUIET))
        change_slice(session, PROBED, more=1)
        changed = time.perf_counter()
        while prober.ask() != TARGETS[-1]:
            if time.perf_counter() - changed > REACH_TIME:
                raise BenchError(f"an added endpoint got no request within {REACH_TIME:g} s")
        times.append((time.perf_counter() - changed) * 1000)
        change_slice(session, PROBED)
        prober.ask_for(random.uniform(*QUIET))
        # Else the next change would only take back what was never applied.
        if TARGETS[-1] in prober.ask_for(0.01):
            raise BenchError(f"change {number}: an endpoint is still asked long after it was removed")
        _tell("endpoint added", number, changes, times)
    prober.close()
    return Sample("one change in 10000 services", AGENT, 0, _spread(times))


def _add_one(session: Client, port: int, changes: int) -> Sample:
    """Add Services; measure from the API server's answer to the slice until an endpoint answers."""
    times = []
    for number in range(SERVICES, SERVICES + changes):
        time.sleep(random.uniform(*QUIET))  # noqa: TID251 this program has no loop
        created = session.create(service_of(number, port))
        session.create(slice_of(number, port, probed=True))
        began = time.perf_counter()
        _ask_until_answered(_mesh_address(created), began + REACH_TIME)
        times.append((time.perf_counter() - began) * 1000)
        _tell("Service added", number - SERVICES, changes, times)
    return Sample("a new one beside 10000 services", AGENT, 0, _spread(times))


def _ask_until_answered(address: str, deadline: float) -> None:
    while True:
        try:
            prober = Prober(address, 80)
        except OSError as error:
            if time.perf_counter() > deadline:
                raise BenchError(f"a new Service got no connection within {REACH_TIME:g} s") from error
        else:
            prober.ask()
            prober.close()
            return


def _tell(what: str, number: int, changes: int, times: list[float]) -> None:
    if number % 10 == 9:
        print(f"{what} {number + 1} times of {changes}: last {times[-1]:.1f} ms", flush=True)


def _spread(times: list[float]) -> dict[str, float]:
    return {"p50_ms": quantile(times, 50), "p99_ms": quantile(times, 99), "most_ms": max(times)}


def _change_many(session: Client, agent: Process, seconds: float) -> Sample:
    """Change another slice a hundred times a second; measure what the agent spends on it."""
    pid = family(agent.pid)[:1]
    before, started = cpu_time(pid), time.perf_counter()
    sent = 0
    while (elapsed := time.perf_counter() - started) < seconds:
        if sent <= elapsed * CHANGES_PER_SECOND:
            number = (sent * 37) % SERVICES
            if number != PROBED:
                change_slice(session, number, more=1 - sent // SERVICES % 2)
            sent += 1
        else:
            time.sleep(sent / CHANGES_PER_SECOND - elapsed)  # noqa: TID251 this program has no loop
    took = time.perf_counter() - started
    agent.check()
    values = {"core_share": (cpu_time(pid) - before) / took, "changes_per_s": sent / took}
    return Sample("100 changes a second", AGENT, 0, {**values, "agent_rss_mib": memory(pid).rss})


def main() -> None:
    """Run with the words that `measure` gives: two cores, a number of changes, seconds of changes."""
    proxy, load, changes, seconds = sys.argv[1:]
    if shutil.which("nft") is None:
        raise SystemExit("the program nft is not installed")
    for sample in run(Cores(int(proxy), int(load)), int(changes), float(seconds)):
        print(msgspec.json.encode(sample).decode(), flush=True)


if __name__ == "__main__":
    main()
