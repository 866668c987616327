from psgd.analysis.tables import as_markdown, as_text

ROWS = [("optimizer", "lr", "note"), ("sgd", "0.1", ""), ("adam", "0.002", "best")]


def test_words_stand_to_the_left_and_numbers_to_the_right() -> None:
    assert as_text(ROWS, words={0, 2}).split("\n") == [
        "optimizer     lr  note",
        "----------------------",
        "sgd          0.1",
        "adam       0.002  best",
    ]


def test_markdown_aligns_in_the_ruler() -> None:
    assert as_markdown(ROWS, words={0, 2}).split("\n") == [
        "| optimizer | lr | note |",
        "| --- | ---: | --- |",
        "| sgd | 0.1 |  |",
        "| adam | 0.002 | best |",
    ]
