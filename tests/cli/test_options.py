import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from psgd.cli.options import about, option, parse, words
from psgd.cli.values import Entries
from psgd.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Options:
    size: int = option(1, "Numbers", "how big", "SIZE")
    batch_size: int | None = option(None, "Numbers", "how many, 100 % of them")
    rate: float = option(0.5, "Numbers", "how fast")
    kind: Literal["round", "flat"] = option("round", "Words", "which shape")
    label: str | None = option(None, "Words", "what it is called")
    tags: tuple[str, ...] = option((), "Words", "more names", "TAG,...")
    extra: dict[str, Any] = field(default_factory=dict, metadata=about("Words", "whatever", "K=V,..."))
    loud: bool = option(False, "Words", "say so")
    polite: bool = option(True, "Words", "say please")
    peers: tuple[str, ...] | None = option(("a",), "Words", "who else", "NAME,...")
    derived: int = 7

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigurationError(f"size must be >= 1, got {self.size}")


def read(*argv: str, **environment: str) -> Options:
    return parse(Options, "shape", argv, environment)


def refusal(*argv: str, **environment: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(*argv, **environment)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A YAML file in the current folder, so that messages name it in one word."""
    monkeypatch.chdir(tmp_path)
    return Path("a.yaml")


def test_without_anything_the_defaults_hold() -> None:
    assert read() == Options()


def test_flags_win_over_the_environment_over_yaml_over_defaults(file: Path) -> None:
    file.write_text("size: 2\nrate: 2\nkind: flat\n")
    options = read("--config", "a.yaml", "--size", "4", PSGD_SIZE="3", PSGD_RATE="3")
    assert (options.size, options.rate, options.kind, options.label) == (4, 3.0, "flat", None)


def test_the_environment_may_name_the_yaml_file(file: Path) -> None:
    file.write_text("size: 2\n")
    assert read(PSGD_CONFIG="a.yaml").size == 2


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--batch-size", "3"], "batch_size", 3),
        (["--batch-size=3"], "batch_size", 3),
        (["--batch-size", "null"], "batch_size", None),
        (["--rate", "1e-3"], "rate", 0.001),
        (["--rate", "-1"], "rate", -1.0),
        (["--kind", "flat"], "kind", "flat"),
        (["--loud"], "loud", True),
        (["--no-loud"], "loud", False),
        (["--no-polite"], "polite", False),
        (["--tags", "a,b", "--tags", "c"], "tags", ("a", "b", "c")),
        (["--peers", "a,b", "--peers", "c"], "peers", ("a", "b", "c")),
        (["--peers", "none"], "peers", None),
        (["--extra", "a=1,b=true", "--extra", "c=x"], "extra", {"a": 1, "b": True, "c": "x"}),
        (["--extra", "betas=[0.9,0.99],eps=1e-8,of=null"], "extra", {"betas": [0.9, 0.99], "eps": 1e-8, "of": None}),
    ],
)
def test_flags_are_read_by_type(argv: list[str], name: str, value: Any) -> None:
    assert getattr(read(*argv), name) == value


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("batch_size: 3", "batch_size", 3),
        ("batch_size:", "batch_size", None),
        ("rate: 1e-3", "rate", 0.001),
        ("loud: true", "loud", True),
        ("label: 7", "label", "7"),
        ("tags: [a, b]", "tags", ("a", "b")),
        ("tags: a,b", "tags", ("a", "b")),
        ("extra: {momentum: 0.9, eps: 1e-8}", "extra", {"momentum": 0.9, "eps": 1e-8}),
        ("extra: a=1", "extra", {"a": 1}),
        ("", "size", 1),
    ],
)
def test_yaml_is_read_by_type(file: Path, text: str, name: str, value: Any) -> None:
    file.write_text(text)
    assert getattr(read("--config", "a.yaml"), name) == value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("LOUD", "true", True), ("LOUD", "0", False), ("TAGS", "a,b", ("a", "b")), ("EXTRA", "a=1", {"a": 1})],
)
def test_the_environment_is_read_by_type(name: str, text: str, value: Any) -> None:
    assert getattr(read(**{f"PSGD_{name}": text}), name.lower()) == value


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--size", "x"], "--size must be an integer, got 'x'"),
        (["--size", "1.5"], "--size must be an integer, got '1.5'"),
        (["--size", "0"], "size must be >= 1, got 0"),
        (["--rate", "fast"], "--rate must be a number, got 'fast'"),
        (["--kind", "square"], "--kind must be round or flat, got 'square'"),
        (["--extra", "a"], "--extra must be a list of key=value, separated by commas, got ['a']"),
        (["--size"], "argument --size: expected one argument; see shape --help"),
        (["--sise", "3"], "unrecognized arguments: --sise 3; did you mean --size?; see shape --help"),
        (["--sise=3"], "unrecognized arguments: --sise=3; did you mean --size?; see shape --help"),
        (["--qqq"], "unrecognized arguments: --qqq; see shape --help"),
        (["--batch", "3"], "unrecognized arguments: --batch 3; did you mean --batch-size?; see shape --help"),
        (["--derived", "3"], "unrecognized arguments: --derived 3; see shape --help"),
        (["--config", "b.yaml"], "config: can not read b.yaml: No such file or directory"),
    ],
)
def test_a_flag_that_can_not_be_read_is_refused(file: Path, argv: list[str], message: str) -> None:
    assert refusal(*argv) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sise: 3", "config a.yaml: there is no option 'sise'; did you mean size?"),
        ("batch-size: 3", "config a.yaml: there is no option 'batch-size'; did you mean batch_size?"),
        ("derived: 3", "config a.yaml: there is no option 'derived'"),
        ("size: x", "size in a.yaml must be an integer, got 'x'"),
        ("size: true", "size in a.yaml must be an integer, got True"),
        ("size: [1]", "size in a.yaml must be an integer, got [1]"),
        ("size: 1.5", "size in a.yaml must be an integer, got 1.5"),
        ("size:", "size in a.yaml must be an integer, got None"),
        ("rate: true", "rate in a.yaml must be a number, got True"),
        ("loud: 3", "loud in a.yaml must be true or false, got 3"),
        ("label: [a]", "label in a.yaml must be a text, got ['a']"),
        ("kind: 3", "kind in a.yaml must be round or flat, got 3"),
        ("tags: {a: b}", "tags in a.yaml must be a list, separated by commas, got {'a': 'b'}"),
        ("- 1\n- 2", "config a.yaml must hold options as 'name: value', got '[1, 2]'"),
        ("hello", "config a.yaml must hold options as 'name: value', got 'hello'"),
    ],
)
def test_yaml_that_can_not_be_read_is_refused(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    assert refusal("--config", "a.yaml") == message


def test_what_is_no_yaml_is_refused(file: Path) -> None:
    file.write_text("size: [1\n")
    assert refusal("--config", "a.yaml").startswith("config a.yaml must be YAML, got: while parsing")
    file.write_bytes(b"\xff\xfe\x00")
    assert refusal("--config", "a.yaml").startswith("config a.yaml must be YAML, got: ")


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("label", "", "not be empty"),
        ("label", " ", "not be empty"),
        ("tags", "", "not be empty"),
        ("tags", "a,,b", "have no empty item"),
        ("tags", "a,", "have no empty item"),
        ("extra", "", "not be empty"),
        ("extra", "a=1,,b=2", "have no empty item"),
    ],
)
def test_what_is_empty_is_refused_wherever_it_is_said(file: Path, name: str, text: str, rule: str) -> None:
    file.write_text(f"{name}: '{text}'\n")
    typed = text if name == "label" else [text]
    assert refusal(f"--{name}", text) == f"--{name} must {rule}, got {typed!r}"
    assert refusal("--config", "a.yaml") == f"{name} in a.yaml must {rule}, got {text!r}"
    variable = f"PSGD_{name.upper()}"
    assert refusal(**{variable: text}) == f"{variable} in the environment must {rule}, got {text!r}"


def test_an_empty_list_of_yaml_is_a_list(file: Path) -> None:
    file.write_text("tags: []\nextra: {}\n")
    assert read("--config", "a.yaml") == Options()
    file.write_text("tags: [a, '']\n")
    assert refusal("--config", "a.yaml") == "tags in a.yaml must not be empty, got ['a', '']"


def test_a_file_without_a_name_is_refused() -> None:
    assert refusal("--config", "") == "--config must not be empty, got ''"
    assert refusal(PSGD_CONFIG="") == "PSGD_CONFIG in the environment must not be empty, got ''"


def test_an_empty_variable_of_any_type_is_refused() -> None:
    assert refusal(PSGD_SIZE="") == "PSGD_SIZE in the environment must be an integer, got ''"


def test_a_refused_value_that_was_not_typed_is_told_where_it_is_from(file: Path) -> None:
    file.write_text("size: 0\n")
    assert refusal("--config", "a.yaml") == "size must be >= 1, got 0; size is from a.yaml"
    assert refusal("--config", "a.yaml", PSGD_SIZE="-1") == (
        "size must be >= 1, got -1; size is from PSGD_SIZE in the environment"
    )
    assert refusal("--config", "a.yaml", "--size", "-2", PSGD_SIZE="-1") == "size must be >= 1, got -2"


def test_a_variable_that_can_not_be_read_is_named() -> None:
    assert refusal(PSGD_SIZE="x") == "PSGD_SIZE in the environment must be an integer, got 'x'"
    assert refusal(PSGD_LOUD="loud") == "PSGD_LOUD in the environment must be true or false, got 'loud'"


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("PSGD_SISE", "; did you mean PSGD_SIZE?"),
        ("PSGD_BATCHSIZE", "; did you mean PSGD_BATCH_SIZE?"),
        ("PSGD_size", "; did you mean PSGD_SIZE?"),
        ("PSGD_CONFG", "; did you mean PSGD_CONFIG?"),
        ("PSGD_PRINT_CONFIG", "; did you mean PSGD_CONFIG?"),
        ("PSGD_DERIVED", ""),
        ("PSGD_QQQ", ""),
        ("PSGD_", ""),
    ],
)
def test_a_variable_that_is_no_options_is_refused_with_the_nearest_name(variable: str, hint: str) -> None:
    expected = f"{variable} in the environment is no option's{hint}; see shape --help"
    assert refusal(**{variable: "3"}) == expected
    assert refusal(PSGD_SIZE="3", **{variable: "3"}) == expected
    assert refusal("--size", "3", **{variable: "3"}) == expected


def test_variables_of_others_are_left_alone() -> None:
    assert read(SIZE="3", psgd_size="3", PSGD="3", XPSGD_SIZE="3", PSGD_SISE="") == Options()


@pytest.mark.parametrize("service", ["PSGD", "PSGD_HEAD_SVC"])
@pytest.mark.parametrize(
    "end", ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_CLIENT", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR"]
)
def test_variables_that_kubernetes_sets_for_a_service_are_left_alone(service: str, end: str) -> None:
    assert read(**{f"{service}_{end}": "tcp://10.0.0.1:80"}) == Options()


@dataclass(frozen=True, kw_only=True)
class Others:
    weight: int = option(1, "Numbers", "how heavy")


def test_variables_of_other_commands_are_known() -> None:
    assert parse(Options, "shape", (), {"PSGD_WEIGHT": "x", "PSGD_SIZE": "3"}, [Others]).size == 3
    with pytest.raises(ConfigurationError, match=r"^PSGD_WIEGHT in .* did you mean PSGD_WEIGHT\?"):
        parse(Options, "shape", (), {"PSGD_WIEGHT": "x"}, [Others])


def test_help_comes_whatever_the_environment_holds() -> None:
    with pytest.raises(SystemExit):
        read("--help", PSGD_SISE="3")


def test_the_printed_config_reads_back_as_the_same(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--size", "3", "--tags", "a,b", "--extra", "eps=1e-8,on=true", "--loud"]
    with pytest.raises(SystemExit) as ended:
        read(*argv, "--print_config")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["extra"] == {"eps": 1e-8, "on": True}
    file.write_text(printed)
    assert read("--config", "a.yaml") == read(*argv)


def test_help_has_every_option_under_its_heading(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read("--help")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    numbers, words = shown.split("Words:")
    assert "Numbers:" in numbers
    for flag in ("--size SIZE", "--batch-size N", "--rate X", "how many, 100 % of them", "how fast (default: 0.5)"):
        assert flag in numbers
    for flag in ("--kind round|flat", "--label NAME", "--tags TAG,...", "--loud, --no-loud"):
        assert flag in words
    assert re.search(r"--loud, --no-loud +say so\n", words)
    assert re.search(r"--polite, --no-polite +say please \(default: on\)\n", words)
    assert "derived" not in shown
    assert "may be given several times: they add up" in " ".join(shown.split())


# ------------------------------------------------------------------ entries: one an option


@dataclass(frozen=True, kw_only=True)
class Searched:
    space: Entries = field(default_factory=Entries, metadata=about("Search", "what to search", "NAME=DOMAIN"))
    goal: Literal["min", "max"] | None = option(None, "Search", "less or more")


def read_space(*argv: str, **environment: str) -> Entries:
    return parse(Searched, "seek", argv, environment).space


def test_entries_are_given_once_an_option_and_keep_their_commas() -> None:
    assert read_space() == {}
    assert read_space("--space", "lr=0.1,0.2", "--space=betas=[0.9,0.99], none") == {
        "lr": "0.1,0.2",
        "betas": "[0.9,0.99], none",
    }


def test_entries_of_one_text_are_separated_by_semicolons() -> None:
    assert read_space(PSGD_SPACE="lr=0.1,0.2; mode = sync,async") == {"lr": "0.1,0.2", "mode": "sync,async"}


def test_entries_of_yaml_are_a_mapping_whose_values_stay_as_they_are(file: Path) -> None:
    file.write_text("space:\n  lr: [0.1, 0.2]\n  mode: sync,async\n  shards: 2\n")
    assert read_space("--config", "a.yaml") == {"lr": [0.1, 0.2], "mode": "sync,async", "shards": 2}


@pytest.mark.parametrize(
    ("text", "rule"), [("", "not be empty"), ("lr=1;", "have no empty item"), ("lr=1;;mode=sync", "have no empty item")]
)
def test_empty_entries_are_refused(text: str, rule: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^--space must {rule}, got \\['{text}'\\]$"):
        read_space("--space", text)


@pytest.mark.parametrize("text", ["lr", "=0.1", "lr=", "lr=0.1;lr=0.2", "lr=0.1;mode"])
def test_entries_that_can_not_be_read_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^--space must be key=value, once for each key, got \['"):
        read_space("--space", text)


def test_printed_entries_read_back_as_the_same(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_space("--space", "lr=0.1,0.2", "--print_config")
    file.write_text(capsys.readouterr().out)
    assert read_space("--config", "a.yaml") == {"lr": "0.1,0.2"}


def test_help_has_the_words_of_an_option_that_may_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_space("--help")
    text = capsys.readouterr().out
    assert "--goal min|max" in text
    assert "--space NAME=DOMAIN" in text


@dataclass(frozen=True, kw_only=True)
class Behind:
    files: tuple[str, ...] = words("what to read", "FILE")
    loud: bool = option(False, "Words", "say so")
    label: str | None = option(None, "Words", "what it is called")


def behind(*argv: str, **environment: str) -> Behind:
    return parse(Behind, "read", argv, environment)


def test_words_behind_the_command_may_stand_between_flags_and_hold_commas() -> None:
    assert behind("a,b", "--loud", "c", "--label", "d", "e") == Behind(files=("a,b", "c", "e"), loud=True, label="d")
    assert behind("--loud") == Behind(loud=True)


def test_an_empty_word_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^FILE must not be empty, got ''$"):
        behind("a", "")


def test_words_may_come_from_yaml_and_the_environment_too(file: Path) -> None:
    file.write_text("files: [a, b]\n")
    assert behind("--config", "a.yaml").files == ("a", "b")
    assert behind("--config", "a.yaml", "c").files == ("c",)
    assert behind(PSGD_FILES="a,b").files == ("a", "b")


def test_help_shows_words_in_their_place(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        behind("--help")
    shown = capsys.readouterr().out
    assert shown.startswith("usage: read [OPTION ...] FILE ...\n")
    assert "--files" not in shown
