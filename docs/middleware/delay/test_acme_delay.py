from acme_delay import Delay, Options, build, parse

from middleware.contract import Problem
from middleware.testing import FakeContext, FakeRequest, handler_of, run


def test_values() -> None:
    assert parse({"svc.mesh/delay": "250ms", "svc.mesh/delay-every": "10"}) == Options(0.25, 10)
    assert parse({}) is None


def test_bad_values_are_problems() -> None:
    for annotations, bad in [
        ({"svc.mesh/delay": "250"}, "svc.mesh/delay"),
        ({"svc.mesh/delay": "250ms", "svc.mesh/delay-every": "0"}, "svc.mesh/delay-every"),
        ({"svc.mesh/delay-every": "10"}, "svc.mesh/delay-every"),
    ]:
        found = parse(annotations)
        assert isinstance(found, Problem)
        assert found.annotation == bad


def test_every_third_request_is_delayed() -> None:
    policy = Delay(Options(0.25, every=3))
    assert [policy.due() for _ in range(6)] == [0, 0, 0.25, 0, 0, 0.25]


def test_the_others_pass() -> None:
    context = FakeContext()
    handler, scripted = handler_of(build(Options(0.25, every=3), context), 200)
    assert run(handler(FakeRequest())).status == 200
    assert len(scripted.requests) == 1
    assert context.metrics == {"svcmesh_delayed": 0}
