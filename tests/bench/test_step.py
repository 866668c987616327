from dataclasses import replace

import pytest

from psgd.bench.case import StepCase
from psgd.bench.step import compare, summarize
from psgd.bench.times import StepTimes
from psgd.errors import LostError

CASE = StepCase(params=100, tensors=10, workers=2, shards=1, warmup=0, steps=2, trainer_options={"plane": "auto"})
RPC = replace(CASE, trainer_options={"plane": "rpc"})
KEYS = {
    *("psgd_ms", "floor_ms", "raw_ms", "ddp_ms", "rpc_ms", "ray_ms", "psgd_ms_per_push"),
    *("ratio_floor", "ratio_raw", "ratio_ddp", "ratio_rpc", "ratio_ray", "ratio_push"),
}


def times(ms: float) -> StepTimes:
    """Two steps of two workers, one of which is faster."""
    return StepTimes.of([(0.0, ms / 1000, 2 * ms / 1000), (0.0, ms / 2000, 2 * ms / 1000)])


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who was measured, in which order; nobody really is."""
    calls: list[str] = []

    def stand_in(name: str, ms: float) -> None:
        def run(case: StepCase) -> StepTimes:
            calls.append(f"{name} {case.mode}")
            return times(ms)

        monkeypatch.setattr(f"psgd.bench.peers.{name}.run", run)

    for name, ms in {
        "trainer": 30,
        "floor": 20,
        "raw_grpc": 40,
        "ddp": 60,
        "torch_rpc": 120,
        "ray_server": 300,
    }.items():
        stand_in(name, ms)
    return calls


def ignore(line: str) -> None:
    """For measurements whose progress does not matter."""


def test_everybody_takes_a_turn_in_every_round(measured: list[str]) -> None:
    compare(RPC, ["ray", "ddp"], 2, ignore)
    assert measured == ["trainer sync", "floor sync", "raw_grpc sync", "ray_server sync", "ddp sync"] * 2


def test_ratios_are_psgds_time_over_the_others(measured: list[str]) -> None:
    figures = compare(RPC, ["ddp", "rpc", "ray"], 1, ignore)
    assert figures["psgd_ms"] == pytest.approx(30)
    assert figures["ratio_floor"] == pytest.approx(30 / 20)
    assert figures["ratio_raw"] == pytest.approx(30 / (40 + 20))
    assert figures["ratio_ddp"] == pytest.approx(30 / 60)
    assert figures["ratio_rpc"] == pytest.approx(30 / 120)
    assert figures["ratio_ray"] == pytest.approx(30 / 300)
    assert figures["psgd_ms_per_push"] is figures["ratio_push"] is None
    assert figures.keys() >= KEYS
    assert len(measured) == 6


@pytest.mark.usefixtures("measured")
def test_what_is_not_measured_is_null() -> None:
    figures = compare(CASE, ["ddp"], 1, ignore)
    absent = ("raw_ms", "ratio_raw", "rpc_ms", "ratio_rpc", "ray_ms", "ratio_ray")
    assert [figures[name] for name in absent] == [None] * 6


def test_async_mode_measures_the_synchronous_step_too(measured: list[str]) -> None:
    figures = compare(replace(CASE, mode="async"), [], 1, ignore)
    assert measured == ["trainer sync", "trainer async", "floor sync"]
    assert figures["psgd_ms_per_push"] == pytest.approx(15)
    assert figures["ratio_push"] == pytest.approx(15 / 30)


def test_a_compressed_wire_is_measured_beside_float32(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(case: StepCase) -> StepTimes:
        measured.append(f"{case.trainer_options['wire']} {case.trainer_options['plane']} {case.mode}")
        return times({"bfloat16": 20, "float32": 40}[case.trainer_options["wire"]])

    monkeypatch.setattr("psgd.bench.peers.trainer.run", run)
    options = {"plane": "rpc", "wire": "bfloat16"}
    figures = compare(replace(CASE, trainer_options=options), [], 1, ignore)
    assert measured[:2] == ["bfloat16 rpc sync", "float32 rpc sync"]
    assert figures["psgd_float32_ms"] == pytest.approx(40)
    assert figures["ratio_float32"] == pytest.approx(20 / 40)


def test_a_peer_that_torch_was_built_without_is_left_out(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psgd.bench.peers.torch_rpc.AVAILABLE", False)
    lines: list[str] = []
    assert compare(CASE, ["rpc"], 1, lines.append)["rpc_ms"] is None
    assert lines[0] == "this build of torch lacks what peer rpc needs: not measured"
    assert "torch_rpc sync" not in measured


def test_the_figure_is_the_median_of_the_rounds() -> None:
    figures = summarize(CASE, {"psgd": [times(10), times(90), times(20)], "floor": [times(10)] * 3})
    assert figures["psgd_ms"] == pytest.approx(20)
    assert figures["medians_ms"]["psgd"] == pytest.approx([10, 90, 20])
    assert figures["p10_p90_ms"]["psgd"] == pytest.approx((10, 90))
    assert figures["rounds"] == 3


def test_a_peer_that_fails_ends_the_measurement(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(case: StepCase) -> StepTimes:
        raise LostError("no answer")

    monkeypatch.setattr("psgd.bench.peers.floor.run", fail)
    with pytest.raises(LostError, match="no answer"):
        compare(CASE, [], 1, ignore)
    assert measured == ["trainer sync"]
