"""Debian's Tomcat as an endpoint that answers `hello TARGET`: a folder with what it reads."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

CATALINA = Path("/usr/share/tomcat10/bin/catalina.sh")
_QUICK_START = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"
_SERVER = """\
<Server port="-1">
  <Service name="Catalina">
    <Connector address="127.0.0.1" port="{port}" protocol="HTTP/1.1" maxKeepAliveRequests="-1"/>
    <Engine name="Catalina" defaultHost="localhost">
      <Host name="localhost" appBase="webapps"/>
      <Valve className="org.apache.catalina.valves.AccessLogValve" directory="logs" prefix="asked"
        suffix=".log" rotatable="false" buffered="false" pattern="asked %m %U %{{X-Marker}}i"/>
    </Engine>
  </Service>
</Server>
"""
_WEB = """\
<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0" metadata-complete="true">
  <servlet><servlet-name>echo</servlet-name><jsp-file>/echo.jsp</jsp-file></servlet>
  <servlet-mapping><servlet-name>echo</servlet-name><url-pattern>/*</url-pattern></servlet-mapping>
</web-app>
"""
_ECHO = """\
<%@ page session="false" contentType="text/plain" trimDirectiveWhitespaces="true" %><%
byte[] piece = new byte[8192];
while (request.getInputStream().read(piece) >= 0) { }
String query = request.getQueryString();
String target = request.getRequestURI() + (query == null ? "" : "?" + query);
out.print("hello " + target + "\\n");
%>"""


LOG = "logs/asked.log"
"""Where in its folder it tells what it was asked; pages would not be told of OPTIONS and DELETE."""


def tomcat_command(folder: Path, port: int) -> tuple[str, ...]:
    """Write its folder; return how to start it there, or skip."""
    if not CATALINA.is_file() or shutil.which("java") is None:
        pytest.skip("Tomcat is not installed (Debian: tomcat10, and default-jre-headless)")
    files = {
        "conf/server.xml": _SERVER.format(port=port),
        "conf/web.xml": '<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0"/>',
        "webapps/ROOT/WEB-INF/web.xml": _WEB,
        "webapps/ROOT/echo.jsp": _ECHO,
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("temp", "logs", "work"):
        (folder / name).mkdir()
    (folder / LOG).touch()  # it comes with the first request otherwise
    settings = (f"CATALINA_BASE={folder}", f"CATALINA_OPTS={_QUICK_START}", "LANG=C.UTF-8")
    return ("/usr/bin/env", *settings, str(CATALINA), "run")
