"""The page in a real browser, without a network: nothing is broken, cut off or missing in any of its forms."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from psgd.analysis.page import write_page
from tests.analysis.page.reports import MODES, evaluations, iterations, make, mode_entry, read_log, report_of, write_log

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
DESKTOP, PHONE = (1440, 900), (390, 844)
WAIT_S = 30.0

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM.exists() and DRIVER.exists()), reason="needs Chromium and its driver"),
]

PLOTS_WITHOUT_POINTS = """
return [...document.querySelectorAll(".plot")]
    .filter((plot) => !plot.querySelector(".plot-container svg")
        || !plot.data?.some((trace) => trace.x?.length && trace.y?.length))
    .map((plot) => plot.id);
"""
HIDDEN_CELLS = """
return [...document.querySelectorAll("table th, table td")].filter((cell) => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    const text = range.getBoundingClientRect(), box = cell.getBoundingClientRect();
    const inside = text.left >= box.left - 1 && text.right <= box.right + 1 && text.bottom <= box.bottom + 1;
    return cell.textContent.trim() && !(text.width && inside);
}).map((cell) => cell.textContent.trim());
"""
OVERLAPPING_LABELS = """
return [...document.querySelectorAll(".plot")].flatMap((plot) => {
    const labels = [...plot.querySelectorAll(".xtick text, .ytick text")];
    const boxes = labels.map((text) => [text.textContent, text.getBoundingClientRect()]);
    const apart = (one, other) => one.right - 1 <= other.left || one.bottom - 1 <= other.top;
    return boxes.flatMap(([a, one], at) => boxes.slice(at + 1)
        .filter(([, other]) => !apart(one, other) && !apart(other, one))
        .map(([b]) => `${plot.id}: ${a} and ${b}`));
});
"""
REQUESTS = 'return performance.getEntriesByType("resource").map((entry) => entry.name);'
READY = 'return [...document.querySelectorAll(".plot")].every((plot) => plot.data);'


class Browser:
    """A page as it looks on a device in a colour scheme."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.width = 0

    def open(self, page: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> None:
        self.width, height = size  # a phone's window.innerWidth would grow with a page that is too wide
        metrics = {"width": self.width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.scheme(scheme)
        self._driver.get(page.as_uri())
        self.await_answer(READY, True)

    def scheme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def ask(self, script: str) -> Any:
        return self._driver.execute_script(script)

    def await_answer(self, script: str, answer: Any) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self._driver, WAIT_S).until(lambda driver: driver.execute_script(script) == answer)

    def click(self, selector: str) -> None:
        self._driver.execute_script("arguments[0].click()", self._driver.find_element("css selector", selector))

    def press(self, selector: str, key: str) -> None:
        self._driver.find_element("css selector", selector).send_keys(key)

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self._driver.get_log("browser")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    profile = tmp_path_factory.mktemp("profile")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER), env=os.environ | {"TMPDIR": str(profile)}))
    try:
        driver.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        yield Browser(driver)
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The page of a kind, made once."""
    kinds: dict[str, dict[str, Any]] = {
        "full": {"steps": 60},
        "one seed": {"seeds": 1, "steps": 30, "modes": MODES[:2]},
        "one mode": {"modes": MODES[:1], "steps": 30},
        "timing only, many slots": {"tests": False, "slots": 100, "steps": 4, "seeds": 1, "modes": ("sync", "async")},
        "many modes": {
            "modes": [*MODES, *(f"async:{bound}/dca=2:0.95" for bound in range(5, 10))],
            "seeds": 1,
            "steps": 15,
        },
    }
    made: dict[str, Path] = {}

    def find(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp("page")
            made[kind] = write_page(*make(folder / "runs", **kinds[kind]), folder)
        return made[kind]

    return find


def check(browser: Browser) -> None:
    assert browser.complaints() == []
    assert browser.ask(PLOTS_WITHOUT_POINTS) == []
    assert browser.ask("return document.documentElement.scrollWidth") <= browser.width
    assert browser.ask(HIDDEN_CELLS) == []
    assert browser.ask(OVERLAPPING_LABELS) == []
    assert browser.ask(REQUESTS) == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        ("full", "light"),
        ("full", "dark"),
        ("one seed", "light"),
        ("one mode", "light"),
        ("timing only, many slots", "dark"),
        ("many modes", "light"),
    ],
)
def test_nothing_is_broken_cut_off_or_missing(
    browser: Browser, page_of: Callable[[str], Path], kind: str, size: tuple[int, int], scheme: str
) -> None:
    browser.open(page_of(kind), size, scheme)
    check(browser)
    expected = ["plot-timeline", "plot-throughput"]
    expected += [] if kind.startswith("timing") else ["plot-metric", "plot-loss"]
    expected += [] if kind in ("one mode", "one seed") else ["plot-lag"]
    assert set(browser.ask('return [...document.querySelectorAll(".plot")].map((plot) => plot.id)')) == set(expected)


def test_curves_are_shown_against_time_or_samples(browser: Browser, page_of: Callable[[str], Path]) -> None:
    axes = 'return ["plot-metric", "plot-loss"].map((id) => document.getElementById(id).layout.xaxis.title.text);'
    ends = 'return Math.max(...document.getElementById("plot-loss").data.flatMap((trace) => trace.x));'
    browser.open(page_of("full"))
    assert browser.ask(axes) == ["seconds since the start"] * 2
    assert browser.ask(ends) < 60
    browser.click('[name=x][value="samples"]')
    assert browser.ask(axes) == ["samples"] * 2
    assert browser.ask(ends) == 60 * 4 * 32
    check(browser)


def test_scales_metrics_and_seeds_can_be_chosen(browser: Browser, page_of: Callable[[str], Path]) -> None:
    browser.open(page_of("full"))
    browser.click('[name=scale][value="log"]')
    assert browser.ask('return document.getElementById("plot-loss").layout.yaxis.type') == "log"
    assert "90 %" in browser.ask('return document.getElementById("plot-metric").layout.yaxis.ticktext')
    browser.click('[name=metric][value="test_loss"]')
    assert browser.ask('return document.getElementById("plot-metric").layout.yaxis.type') == "log"
    browser.click('[name=seeds][value="each"]')
    names = browser.ask('return document.getElementById("plot-loss").data.map((trace) => trace.name)')
    assert names[:4] == ["sync, seed 0", "sync, seed 1", "sync, seed 2", "sync+1, seed 0"]
    check(browser)


def test_a_mode_is_hidden_everywhere_by_its_button(browser: Browser, page_of: Callable[[str], Path]) -> None:
    named = """
        return ["plot-metric", "plot-throughput", "plot-lag"].map((id) =>
            document.getElementById(id).data.some((trace) => trace.name === "async"));
    """
    browser.open(page_of("full"))
    assert browser.ask(named) == [True, True, True]
    browser.press('.legend button[data-mode="3"]', " ")
    assert browser.ask(named) == [False, False, False]
    assert (
        browser.ask("""return document.querySelector('.legend button[data-mode="3"]').getAttribute("aria-pressed")""")
        == "false"
    )
    browser.press('.legend button[data-mode="3"]', " ")
    assert browser.ask(named) == [True, True, True]


def test_all_modes_may_be_hidden(browser: Browser, page_of: Callable[[str], Path]) -> None:
    browser.open(page_of("full"))
    browser.click('[name=scale][value="log"]')
    for mode in range(len(MODES)):
        browser.click(f'.legend button[data-mode="{mode}"]')
    assert browser.complaints() == []


def test_the_timeline_is_of_the_mode_that_is_picked(browser: Browser, page_of: Callable[[str], Path]) -> None:
    colour = 'return document.getElementById("plot-timeline").data[0].marker.color'
    window = 'const [begin, end] = document.getElementById("plot-timeline").layout.xaxis.range; return end - begin'
    browser.open(page_of("full"))
    assert browser.ask(colour) == "#0072b2"
    length = browser.ask(window)
    browser.press("#timeline-mode", "async:2")
    assert browser.ask(colour) == "#009e73"
    assert browser.ask(window) == pytest.approx(length)
    check(browser)


def test_of_many_slots_the_timeline_says_that_it_shows_a_sample(
    browser: Browser, page_of: Callable[[str], Path]
) -> None:
    browser.open(page_of("timing only, many slots"))
    assert (
        browser.ask('return document.getElementById("timeline-words").textContent') == "24 of 100 slots, evenly chosen."
    )


def test_the_table_shows_ranges_or_intervals(browser: Browser, page_of: Callable[[str], Path]) -> None:
    words = 'return document.querySelector("table tbody tr:nth-child(2) td").innerText'
    browser.open(page_of("full"))
    median = browser.ask(words)
    browser.click('[name=interval][value="ci"]')
    assert browser.ask(words) != median
    check(browser)


def test_pictures_follow_the_colour_scheme(browser: Browser, page_of: Callable[[str], Path]) -> None:
    colour = 'return document.getElementById("plot-loss").layout.font.color'
    browser.open(page_of("full"))
    assert browser.ask(colour) == "#17191c"
    browser.scheme("dark")
    browser.await_answer(colour, "#ecebe6")
    check(browser)


def test_print_is_light(browser: Browser, page_of: Callable[[str], Path]) -> None:
    browser.open(page_of("full"), scheme="dark")
    browser.ask('window.dispatchEvent(new Event("beforeprint"))')
    assert browser.ask('return document.getElementById("plot-loss").layout.font.color') == "#17191c"
    browser.ask('window.dispatchEvent(new Event("afterprint"))')
    assert browser.ask('return document.getElementById("plot-loss").layout.font.color') == "#ecebe6"


def test_a_run_that_diverged_ends_in_a_cross(browser: Browser, tmp_path: Path) -> None:
    done = iterations("async", 0, 30)
    lost = [*done[:60], *(replace(each, loss=None) for each in done[60:])]
    *before, last = evaluations("async", 0, 30, done, 0.9)
    tested = [*before, replace(last, metrics=last.metrics | {"test_loss": float("nan")})]
    run = read_log(write_log(tmp_path / "run", [*lost, *tested], 0, "async", 4))
    entry = mode_entry("async", [(lost, tested)], 4) | {"diverged": 1}
    page = write_page(report_of([entry], [0], True, 4, 30), {"async": [run]}, tmp_path)
    browser.open(page)
    check(browser)
    assert (
        browser.ask('return document.getElementById("plot-loss").data.map((trace) => trace.marker?.symbol)')[-1] == "x"
    )


def test_hostile_names_run_nothing(browser: Browser, tmp_path: Path) -> None:
    name = '</script><img src=x onerror="document.title=1">'
    report, runs = make(tmp_path / "runs", modes=("sync", "async"), seeds=1, steps=10)
    for at, mode in enumerate(report["modes"]):
        mode["name"] = name + str(at)
    renamed = {mode["name"]: each for each, mode in zip(runs.values(), report["modes"], strict=True)}
    browser.open(write_page(report, renamed, tmp_path))
    check(browser)
    assert browser.ask('return document.querySelectorAll("img").length') == 0
