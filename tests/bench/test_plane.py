import pytest

from psgd.bench.plane import measure_plane, summarize


def test_rates_are_bytes_by_median_seconds() -> None:
    seconds = {f"{way}_{move}": [9.0, 0.1, 0.1] for way in ("raw", "tcp") for move in ("push", "pull")}
    figures = summarize("rpc", 10**8, {**seconds, "psgd_push": [0.2, 0.2], "psgd_pull": [0.4]})
    assert figures["mbytes"] == 100
    assert figures["raw_push_gb_s"] == figures["tcp_pull_gb_s"] == pytest.approx(1.0)
    assert (figures["psgd_push_gb_s"], figures["psgd_pull_gb_s"]) == pytest.approx((0.5, 0.25))
    assert (figures["ratio_raw_push"], figures["ratio_raw_pull"]) == pytest.approx((0.5, 0.25))


def test_payloads_go_through_the_plane_grpcio_and_a_socket() -> None:
    lines: list[str] = []
    figures = measure_plane("rpc", mbytes=3, rounds=2, warmup=1, tell=lines.append)
    assert lines == ["warming up", "round 1 of 2", "round 2 of 2"]
    for way in ("psgd", "raw", "tcp"):
        assert min(figures[f"{way}_push_gb_s"], figures[f"{way}_pull_gb_s"]) > 0
