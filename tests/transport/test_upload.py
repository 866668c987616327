from psgd.core.layout import Span
from psgd.transport.upload import LateUpload
from tests.transport.scripted import Delivered, push, receipt
from tests.worker.scripted import ScriptedConnection


def test_nothing_leaves_before_the_end_and_then_all_of_it() -> None:
    connection, payload = ScriptedConnection(), bytearray(b"....")
    upload, delivered, into = LateUpload(connection, memoryview(payload)), Delivered(), memoryview(bytearray(3))
    payload[:2] = b"AB"
    upload.ready(Span(0, 2))
    upload.withdraw()
    payload[:] = b"ABCD"
    assert connection.sent == []
    upload.finish(push(), delivered, [into])
    [sent] = connection.sent
    assert (sent.request, sent.payload, sent.into) == (push(), b"ABCD", [into])
    sent.answer(receipt())
    assert delivered.wait() == (receipt(), None)
