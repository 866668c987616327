from pathlib import Path

from psgd.bench.scale_picture import draw

POINT = {
    "psgd_ms": 3.0,
    "p10_p90_ms": [2.0, 5.0],
    "shard_pss_mb": [300.0],
    "idle_shard_pss_mb": 290.0,
    "weights_mb": 4.0,
}


def test_a_picture_is_drawn_from_the_figures(tmp_path: Path) -> None:
    series = {name: [{**POINT, name: 1}, {**POINT, name: 2}] for name in ("workers", "shards", "params")}
    draw({"series": series, "machine": {"psgd": "0.1.0", "cpu": "AMD", "cores": 2}}, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")
