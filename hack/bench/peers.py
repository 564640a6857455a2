"""The proxies that we compare with, each as its users would run it on one core, and the back end.

The same for all: one worker or thread, HTTP/1.1 with keep-alive on both sides, X-Forwarded-For appended, no
access log. What a peer does by default and we do not is turned off (Envoy's request ids and its own headers,
nginx' temporary files), what cannot be turned off stays on (Envoy's statistics).
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import msgspec

from hack.bench.figures import RESILIENT_ENVOY
from hack.bench.machine import Cores, program
from hack.bench.processes import ProcessGroup
from hack.bench.traefik import start_traefik
from hack.kit.ports import LOCALHOST, free_port, listens
from hack.kit.processes import Process, wait_until

SIZES: Mapping[str, int] = {"10k": 10 * 1024, "1m": 1024 * 1024}
"""Files of the back end, in bytes; `/` answers a line."""
_STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

_NGINX = """\
$user
$modules
worker_processes 1;
daemon off;
error_log stderr warn;
pid $directory/$name.pid;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 300s;
  client_body_temp_path $directory/$name.body;
  proxy_temp_path $directory/$name.proxy;
  fastcgi_temp_path $directory/$name.fastcgi;
  uwsgi_temp_path $directory/$name.uwsgi;
  scgi_temp_path $directory/$name.scgi;
  $http
}
$stream
"""
_BACKEND = """\
server {
    $listen
    root $files;
    sendfile on;
    location = / { default_type text/plain; return 200 "$answer"; }
  }
"""
_NGINX_PROXY = """\
upstream backend { server 127.0.0.1:$backend; keepalive 256; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:$http_port backlog=4096;
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
_NGINX_STREAM = "stream { server { listen 127.0.0.1:$tcp_port; proxy_pass 127.0.0.1:$backend; } }"
_HAPROXY = """\
global
  nbthread 1
  maxconn 400
defaults
  timeout connect 3s
  timeout client 300s
  timeout server 300s
frontend http
  mode http
  bind 127.0.0.1:$http_port
  default_backend http
backend http
  mode http
  option forwardfor
  http-reuse always
  server backend 127.0.0.1:$backend
frontend tcp
  mode tcp
  bind 127.0.0.1:$tcp_port
  default_backend tcp
backend tcp
  mode tcp
  server backend 127.0.0.1:$backend
"""
_ENVOY_EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"
_ENVOY = """\
static_resources:
  listeners:
    - name: http
      address: {socket_address: {address: 127.0.0.1, port_value: $http_port}}
      filter_chains:
        - filters:
            - name: http
              typed_config:
                "@type": $extensions.network.http_connection_manager.v3.HttpConnectionManager
                codec_type: HTTP1
                stat_prefix: http
                use_remote_address: true
                generate_request_id: false
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes: [{match: {prefix: /}, route: {cluster: backend$route}}]
                http_filters:
                  - name: router
                    typed_config:
                      "@type": $extensions.http.router.v3.Router
                      suppress_envoy_headers: true
    - name: tcp
      address: {socket_address: {address: 127.0.0.1, port_value: $tcp_port}}
      filter_chains:
        - filters:
            - name: tcp
              typed_config:
                "@type": $extensions.network.tcp_proxy.v3.TcpProxy
                stat_prefix: tcp
                cluster: backend
  clusters:
    - name: backend
      type: STATIC
      lb_policy: $policy
$cluster
      load_assignment:
        cluster_name: backend
        endpoints:
          - lb_endpoints:
$endpoints
"""
_ENVOY_RESILIENT_ROUTE = (
    ", timeout: 15s, retry_policy: {retry_on: 'connect-failure,refused-stream,reset,5xx', num_retries: 2}"
)
_ENVOY_RESILIENT_CLUSTER = """\
      circuit_breakers: {thresholds: [{max_connections: 1024, max_requests: 1024, max_retries: 3}]}
      outlier_detection:
        {consecutive_5xx: 5, interval: 10s, base_ejection_time: 30s, max_ejection_percent: 50}"""
_ENVOY_ENDPOINT = "- endpoint: {address: {socket_address: {address: $address, port_value: $port}}}"


class Peer(msgspec.Struct, frozen=True):
    """A running proxy. `http` and `tcp` are where to send requests, empty if it does not do that."""

    name: str
    process: Process
    http: str = ""
    tcp: str = ""


def start_backend(
    group: ProcessGroup, core: int, addresses: tuple[str, ...] = (LOCALHOST,), answer: str = "ok\\n"
) -> tuple[Process, int]:
    """Start nginx as the servers behind the proxies; return it and its port. It says `answer` at `/`."""
    port = free_port()
    files = group.directory / "files"
    files.mkdir(exist_ok=True)
    for name, size in SIZES.items():
        (files / name).write_bytes(b"x" * size)
    listen = " ".join(f"listen {address}:{port} backlog=4096;" for address in addresses)
    server = Template(_BACKEND).substitute(listen=listen, files=files, answer=answer)
    name = f"backend-{port}"
    process = start_nginx(group, name, core, server, "")
    wait_until(lambda: listens(addresses[0], port), process)
    return process, port


def start_peers(group: ProcessGroup, cores: Cores, backend: int) -> list[Peer]:
    """Start every peer that is installed."""
    starters = (
        ("nginx", _start_nginx_proxy),
        ("haproxy", _start_haproxy),
        ("traefik", _start_traefik),
        ("envoy", _start_plain_envoy),
        ("envoy", _start_resilient_envoy),
    )
    return [start(group, cores.proxy, backend) for name, start in starters if program(name)]


def start_nginx(group: ProcessGroup, name: str, core: int, http: str, stream: str) -> Process:
    """Start nginx with what is in its `http` block, and a `stream` block."""
    # Without it, a master that runs as root starts its worker as a user who cannot read our files.
    user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
    modules = f"load_module {_STREAM_MODULE};" if stream and _STREAM_MODULE.exists() else ""
    config = group.directory / f"{name}.conf"
    config.write_text(
        Template(_NGINX).substitute(
            user=user, modules=modules, directory=group.directory, name=name, http=http, stream=stream
        )
    )
    return group.start(
        name, [program("nginx") or "nginx", "-p", str(group.directory), "-c", str(config)], core
    )


def _start_nginx_proxy(group: ProcessGroup, core: int, backend: int) -> Peer:
    ports = {"http_port": free_port(), "tcp_port": free_port(), "backend": backend}
    http = Template(_NGINX_PROXY).substitute(ports)
    stream = Template(_NGINX_STREAM).substitute(ports) if _STREAM_MODULE.exists() else ""
    process = start_nginx(group, "nginx", core, http, stream)
    return _peer("nginx", process, ports, tcp=bool(stream))


def _start_haproxy(group: ProcessGroup, core: int, backend: int) -> Peer:
    ports = {"http_port": free_port(), "tcp_port": free_port(), "backend": backend}
    config = group.directory / "haproxy.cfg"
    config.write_text(Template(_HAPROXY).substitute(ports))
    process = group.start("haproxy", [program("haproxy") or "haproxy", "-db", "-f", str(config)], core)
    return _peer("haproxy", process, ports)


def _start_traefik(group: ProcessGroup, core: int, backend: int) -> Peer:
    ports = {"http_port": free_port(), "tcp_port": free_port(), "backend": backend}
    return _peer("traefik", start_traefik(group, core, ports), ports)


def _start_plain_envoy(group: ProcessGroup, core: int, backend: int) -> Peer:
    return start_envoy(group, core, [(LOCALHOST, backend)])


def _start_resilient_envoy(group: ProcessGroup, core: int, backend: int) -> Peer:
    return start_envoy(group, core, [(LOCALHOST, backend)], resilient=True)


def start_envoy(
    group: ProcessGroup,
    core: int,
    endpoints: Sequence[tuple[str, int]],
    policy: str = "ROUND_ROBIN",
    resilient: bool = False,
) -> Peer:
    """Start Envoy in front of these endpoints, which it chooses by this policy.

    `resilient`: with retries, circuit breakers, a timeout and outlier detection.
    """
    ports = {"http_port": free_port(), "tcp_port": free_port()}
    name = RESILIENT_ENVOY if resilient else "envoy"
    config = group.directory / f"{name.replace(', ', '-')}.yaml"
    config.write_text(envoy_config(ports, endpoints, policy, resilient))
    command = [program("envoy") or "envoy", "--concurrency", "1", "--disable-hot-restart"]
    process = group.start(config.stem, [*command, "--log-level", "error", "-c", str(config)], core)
    return _peer(name, process, ports)


def envoy_config(
    ports: Mapping[str, int], endpoints: Sequence[tuple[str, int]], policy: str, resilient: bool
) -> str:
    """Return Envoy's configuration; `ports` are http_port and tcp_port."""
    lines = [Template(_ENVOY_ENDPOINT).substitute(address=address, port=port) for address, port in endpoints]
    return Template(_ENVOY).substitute(
        ports,
        route=_ENVOY_RESILIENT_ROUTE if resilient else "",
        cluster=_ENVOY_RESILIENT_CLUSTER if resilient else "",
        extensions=_ENVOY_EXTENSIONS,
        policy=policy,
        endpoints="\n".join(" " * 14 + line for line in lines),
    )


def _peer(name: str, process: Process, ports: Mapping[str, int], tcp: bool = True) -> Peer:
    wait_until(lambda: listens(LOCALHOST, ports["http_port"]), process)
    return Peer(
        name,
        process,
        f"http://{LOCALHOST}:{ports['http_port']}",
        f"http://{LOCALHOST}:{ports['tcp_port']}" if tcp else "",
    )
