"""The access log by a template, from what is told of requests to the bytes that are written."""

from __future__ import annotations

import os

import msgspec

from middleware.contract import NoEndpoint
from nodeagent.control.messages import SourcePod, Sources
from nodeagent.log.access_lines import AccessLines
from nodeagent.log.template import parse_template
from nodeagent.log.template_form import TemplateForm
from nodeagent.log.writer import LineWriter
from nodeagent.worker.access_log import AccessLogger
from nodeagent.worker.sources import SourcePods
from tests.worker.test_access_log import TCP, ended, refused


def test_all_kinds_of_lines_are_made_by_a_template() -> None:
    sources = SourcePods()
    sources.change(Sources({"10.1.0.9": SourcePod("shop", "web-x", "deployment/web")}))
    template = (
        '{clf_time}\t{source_workload}\t{event}\t{service}:{port}\t"{method} {path}"\t{status}\t{reason}\t'
    )
    form = TemplateForm(parse_template(template + '"{detail}" {destination}'))
    reader, descriptor = os.pipe()
    writer = LineWriter(descriptor)
    logger = AccessLogger("all", 0, sources, AccessLines(form, "info", writer), wall=lambda: 0.5)
    nasty = NoEndpoint('nobody "\r\n\x1b[2J')
    logger.ended(ended("10.1.0.9", target='/\n"\x1b[2J?secret'))
    logger.ended(ended("10.1.0.8", nasty))
    logger.refused(refused("10.1.0.9"))
    logger.refused(refused("10.1.0.9", connection=True, service=""))
    logger.closed(TCP)
    logger.closed(msgspec.structs.replace(TCP, failed=True, detail="\u2028"))
    assert writer.close(20)
    os.close(descriptor)
    with open(reader, encoding="utf-8", newline="") as written:
        lines = [line.split("\t", 1) for line in written.read().split("\n")]
    web = "shop/deployment/web"
    shown = 'nobody \\"\\r\\n\\u001b[2J'
    assert [rest for _, *rest in lines] == [
        [f'{web}\trequest\tshop/cart:80\t"GET /\\n\\"\\u001b[2J"\t200\t-\t"-" -'],
        [f'-\trequest_failed\tshop/cart:80\t"GET /"\t503\tno_endpoint\t"{shown}" -'],
        [f'{web}\trequest_refused\tshop/cart:80\t"- -"\t503\tno_endpoint\t"nobody is ready" 250.96.0.10:80'],
        [f'{web}\tconnection_refused\t-:-\t"- -"\t-\tno_endpoint\t"nobody is ready" 250.96.0.10:80'],
        [f'{web}\tconnection\tshop/db:5432\t"- -"\t-\tclient_closed\t"-" -'],
        [f'{web}\tconnection_failed\tshop/db:5432\t"- -"\t-\tclient_closed\t"\\u2028" 250.96.0.9:5432'],
        [],
    ]
    assert [time for time, *_ in lines[:2]] == ["01/Jan/1970:00:00:00 +0000"] * 2
