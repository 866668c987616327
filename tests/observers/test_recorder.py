from psgd.observers import Recorder
from psgd.runlog import Footer, Header, Notice, Reported
from tests.records import EVALUATION, ITERATION


def test_what_the_result_needs_is_kept_in_order() -> None:
    recorder = Recorder()
    reported = Reported(1.0, 0, {"f1": 0.5})
    for record in (Header({}, {}, ""), ITERATION, Notice(0.0, ""), EVALUATION, reported, ITERATION, Footer()):
        recorder(record)
    recorder.close()
    assert recorder.iterations == [ITERATION, ITERATION]
    assert recorder.evaluations == [EVALUATION]
    assert recorder.reported == [reported]
