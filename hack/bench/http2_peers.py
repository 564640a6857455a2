"""The proxies that speak HTTP/2, each as its users would run it on one core, and the back end that does.

As in `peers.py`: one worker or thread, connections kept on both sides, X-Forwarded-For appended, no access
log, no request ids, and of each peer's own headers only what it does not let one turn off. All take at most
100 streams on a connection, as most of them and the back end do by default. How many connections they open
to the back end is left to them, and all else: windows, buffers, Envoy's codec and statistics. nginx speaks
HTTP/2 to clients only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from string import Template
from typing import Literal

from hack.bench.machine import program
from hack.bench.peers import SIZES, Peer, start_nginx
from hack.bench.processes import ProcessGroup
from hack.kit.ports import LOCALHOST, free_port, free_ports, listens
from hack.kit.processes import Process, wait_until

Way = Literal["http2 to http2", "http2 to http1", "http1 to http2"]
"""The protocols of the client and of the back end."""
Peers = Mapping[Way, list[Peer]]
PEERS = ("nginx", "haproxy", "nghttpx", "envoy")
ANSWER = b"ok\n"

_NGINX_PROXY = """\
upstream backend { server 127.0.0.1:$plain_backend; keepalive 256; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:$mixed_port http2 backlog=4096;
    http2_max_concurrent_streams 100;
    location / {
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $$host;
      proxy_set_header X-Forwarded-For $$proxy_add_x_forwarded_for;
      proxy_max_temp_file_size 0;
    }
  }
"""
_HAPROXY = """\
global
  nbthread 1
  maxconn 400
  tune.h2.max-concurrent-streams 100
defaults
  mode http
  timeout connect 3s
  timeout client 300s
  timeout server 300s
frontend http2
  bind 127.0.0.1:$http2_port proto h2
  default_backend http2
frontend http1
  bind 127.0.0.1:$http1_port
  default_backend http2
frontend mixed
  bind 127.0.0.1:$mixed_port proto h2
  default_backend http1
backend http2
  option forwardfor
  http-reuse always
  server backend 127.0.0.1:$backend proto h2
backend http1
  option forwardfor
  http-reuse always
  server backend 127.0.0.1:$plain_backend
"""
_ENVOY_TYPE = "type.googleapis.com/envoy.extensions"
_ENVOY_LISTENER = """\
    - name: $name
      address: {socket_address: {address: 127.0.0.1, port_value: $port}}
      filter_chains:
        - filters:
            - name: http
              typed_config:
                "@type": $type.filters.network.http_connection_manager.v3.HttpConnectionManager
                codec_type: $codec
                http2_protocol_options: {max_concurrent_streams: 100}
                stat_prefix: $name
                use_remote_address: true
                generate_request_id: false
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes: [{match: {prefix: /}, route: {cluster: $cluster}}]
                http_filters:
                  - name: router
                    typed_config:
                      "@type": $type.filters.http.router.v3.Router
                      suppress_envoy_headers: true
"""
_ENVOY = """\
static_resources:
  listeners:
$listeners
  clusters:
    - name: http2
      type: STATIC
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": $type.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {http2_protocol_options: {max_concurrent_streams: 100}}
      load_assignment:
        cluster_name: http2
        endpoints:
          - lb_endpoints:
              - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $backend}}}
    - name: http1
      type: STATIC
      load_assignment:
        cluster_name: http1
        endpoints:
          - lb_endpoints:
              - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $plain_backend}}}
"""


def start_http2_backend(group: ProcessGroup, core: int) -> int:
    """Start nghttpd as the server behind the proxies; return its port. It says `ok` at `/`."""
    port = free_port()
    files = group.directory / "http2-files"
    files.mkdir()
    (files / "index.html").write_bytes(ANSWER)
    for name, size in SIZES.items():
        (files / name).write_bytes(b"x" * size)
    command = [program("nghttpd") or "nghttpd", "--no-tls", "-n1", "-m100", "-a", LOCALHOST]
    process = group.start("nghttpd", [*command, "-d", str(files), str(port)], core)
    wait_until(lambda: listens(LOCALHOST, port), process)
    return port


def start_http2_peers(
    group: ProcessGroup, core: int, backend: int, plain_backend: int, names: Collection[str] = PEERS
) -> Peers:
    """Start those of these that are installed, before a back end that speaks HTTP/2 and one that does not."""
    starters: Mapping[str, Callable[[ProcessGroup, int, int, int], Mapping[Way, Peer]]] = {
        "nginx": _start_nginx,
        "haproxy": _start_haproxy,
        "nghttpx": _start_nghttpx,
        "envoy": _start_envoy,
    }
    peers: dict[Way, list[Peer]] = {"http2 to http2": [], "http2 to http1": [], "http1 to http2": []}
    for name, start in starters.items():
        if name in names and program(name):
            for way, peer in start(group, core, backend, plain_backend).items():
                peers[way].append(peer)
    return peers


def envoy_config(backend: int, plain_backend: int, ports: Mapping[str, int]) -> str:
    """Return Envoy's configuration: a listener for each way, by `http2`, `http1` and `mixed`."""
    ways = (("http2", "HTTP2", "http2"), ("http1", "HTTP1", "http2"), ("mixed", "HTTP2", "http1"))
    listeners = "".join(
        Template(_ENVOY_LISTENER).substitute(
            name=name, codec=codec, cluster=cluster, port=ports[f"{name}_port"], type=_ENVOY_TYPE
        )
        for name, codec, cluster in ways
    )
    return Template(_ENVOY).substitute(
        listeners=listeners, backend=backend, plain_backend=plain_backend, type=_ENVOY_TYPE
    )


def _start_envoy(group: ProcessGroup, core: int, backend: int, plain_backend: int) -> Mapping[Way, Peer]:
    """Start Envoy."""
    ports = _ports()
    config = group.directory / "envoy.yaml"
    config.write_text(envoy_config(backend, plain_backend, ports))
    command = [program("envoy") or "envoy", "--concurrency", "1", "--disable-hot-restart"]
    process = group.start("envoy", [*command, "--log-level", "error", "-c", str(config)], core)
    return _ways("envoy", process, ports)


def _start_nginx(group: ProcessGroup, core: int, backend: int, plain_backend: int) -> Mapping[Way, Peer]:
    ports = {"mixed_port": free_port(), "plain_backend": plain_backend}
    process = start_nginx(group, "nginx", core, Template(_NGINX_PROXY).substitute(ports), "")
    return _ways("nginx", process, {"mixed_port": ports["mixed_port"]})


def _start_haproxy(group: ProcessGroup, core: int, backend: int, plain_backend: int) -> Mapping[Way, Peer]:
    ports = _ports()
    config = group.directory / "haproxy.cfg"
    config.write_text(Template(_HAPROXY).substitute(ports, backend=backend, plain_backend=plain_backend))
    process = group.start("haproxy", [program("haproxy") or "haproxy", "-db", "-f", str(config)], core)
    return _ways("haproxy", process, ports)


def _start_nghttpx(group: ProcessGroup, core: int, backend: int, plain_backend: int) -> Mapping[Way, Peer]:
    """Start two, as all its listeners have the same back ends. One of them speaks HTTP/1 and HTTP/2."""
    port, mixed = free_ports(2)
    process = _nghttpx(group, "nghttpx", core, port, f"{LOCALHOST},{backend};;proto=h2")
    ways = _ways("nghttpx", process, {"http2_port": port, "http1_port": port})
    process = _nghttpx(group, "nghttpx-http1", core, mixed, f"{LOCALHOST},{plain_backend};;proto=http/1.1")
    return {**ways, **_ways("nghttpx", process, {"mixed_port": mixed})}


def _nghttpx(group: ProcessGroup, name: str, core: int, port: int, backend: str) -> Process:
    command = [program("nghttpx") or "nghttpx", "--conf=/dev/null", "--workers=1"]
    command += [f"--frontend={LOCALHOST},{port};no-tls", f"--backend={backend}"]
    command += ["--frontend-http2-max-concurrent-streams=100", "--backend-keep-alive-timeout=300s"]
    command += ["--add-x-forwarded-for", "--no-add-x-forwarded-proto", "--no-via", "--no-server-rewrite"]
    return group.start(name, command, core)


def _ports() -> Mapping[str, int]:
    return dict(zip(("http2_port", "http1_port", "mixed_port"), free_ports(3), strict=True))


def _ways(name: str, process: Process, ports: Mapping[str, int]) -> Mapping[Way, Peer]:
    ways: Mapping[str, Way] = {
        "http2_port": "http2 to http2",
        "http1_port": "http1 to http2",
        "mixed_port": "http2 to http1",
    }
    for port in ports.values():
        wait_until(lambda port=port: listens(LOCALHOST, port), process)  # type: ignore[misc]
    return {ways[which]: Peer(name, process, f"http://{LOCALHOST}:{port}") for which, port in ports.items()}
