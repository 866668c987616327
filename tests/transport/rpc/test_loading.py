import pytest

from psgd.core.messages import Load, Loaded, Refused, Reply
from psgd.transport.rpc.loading import Loading
from tests.transport.scripted import Delivered, ScriptedEndpoint, pull


@pytest.mark.parametrize(("reply", "calls"), [(Loaded(), 1), (Refused("too late"), 0)])
def test_somebody_hears_that_the_first_weights_have_come_before_who_brought_them(reply: Reply, calls: int) -> None:
    heard: list[bool] = []
    delivered = Delivered()
    endpoint = ScriptedEndpoint(b"abcd", answer=lambda request: reply)
    Loading(endpoint, lambda: heard.append(delivered.here)).submit(Load(), delivered, memoryview(b"abcd"))
    assert delivered.wait()[0] == reply
    assert heard == [False] * calls


def test_all_else_passes_as_it_is() -> None:
    endpoint = ScriptedEndpoint(b"abcd")
    loading, heard = Loading(endpoint, lambda: pytest.fail("nothing was loaded")), Delivered()
    loading.submit(pull(), heard)
    assert bytes(heard.wait()[1] or b"") == b"abcd"
    assert loading.sizes == endpoint.sizes
