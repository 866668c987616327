from psgd.analysis.bands import GRID_POINTS, Band, band_of


def test_seeds_that_share_their_points_keep_them() -> None:
    found = band_of([((1.0, 2.0), (1.0, 2.0)), ((1.0, 2.0), (3.0, 5.0)), ((1.0, 2.0), (2.0, 9.0))], hold=False)
    assert found == Band((1.0, 2.0), (2.0, 5.0), (1.0, 2.0), (3.0, 9.0))


def test_a_curve_that_has_ended_keeps_its_last_value() -> None:
    found = band_of([((0.0, 1.0), (0.0, 1.0)), ((0.0, 3.0), (0.0, 3.0))], hold=True)
    assert found == Band((0.0, 1.0, 2.0, 3.0), (0.0, 1.0, 1.5, 2.0), (0.0, 1.0, 1.0, 1.0), (0.0, 1.0, 2.0, 3.0))


def test_without_that_the_band_ends_with_the_first_curve() -> None:
    assert band_of([((0.0, 1.0), (0.0, 1.0)), ((0.0, 3.0), (0.0, 3.0))], hold=False).x[-1] == 1.0


def test_the_band_begins_where_all_have_begun() -> None:
    assert band_of([((0.0, 4.0), (0.0, 1.0)), ((2.0, 4.0), (0.0, 3.0))], hold=True).x[0] == 2.0


def test_gaps_are_bridged() -> None:
    assert band_of([((0.0, 1.0, 2.0), (0.0, None, 2.0))], hold=True) == Band(
        (0.0, 2.0), (0.0, 2.0), (0.0, 2.0), (0.0, 2.0)
    )


def test_the_grid_is_no_finer_than_anybody_sees() -> None:
    first = [float(x) for x in range(500)]
    second = [x + 0.5 for x in first]
    assert len(band_of([(first, first), (second, second)], hold=True).x) == GRID_POINTS


def test_of_nothing_there_is_no_band() -> None:
    assert band_of([], hold=True) == band_of([((0.0,), (None,))], hold=True) == Band()
