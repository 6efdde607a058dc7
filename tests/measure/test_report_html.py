"""The page: what it says, that it asks the network for nothing, and that a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from recordings import MIB, Run, leaking_training

from memlint.measure.recording import Category, Keeper, Place, Recording
from memlint.measure.report import html
from memlint.measure.report.subject import Subject

SOURCE = "".join(f"line_{number} = {number}\n" for number in range(1, 40))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# Runs before everything else in the page, and leaves what went wrong where `--dump-dom` shows it.
PROBE = """
<script>
window.troubles = [];
addEventListener("error", (event) => troubles.push(String(event.message)), true);
document.addEventListener("securitypolicyviolation", (event) => troubles.push("blocked: " + event.blockedURI));
addEventListener("load", () => setTimeout(() => {
  const chart = document.getElementById("timeline");
  const moment = document.getElementById("moment");
  const report = { troubles, first: moment.textContent, bands: chart.querySelectorAll(".scatterlayer .trace").length };
  const surface = chart.querySelector(".nsewdrag");
  const { left, top, height } = surface.getBoundingClientRect();
  surface.dispatchEvent(new MouseEvent("mousemove", { clientX: left + 4, clientY: top + height / 2, bubbles: true }));
  report.hovered = moment.textContent;
  chart.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  report.next = moment.textContent;
  const before = getComputedStyle(document.body).backgroundColor;
  document.getElementById("theme").click();
  report.themes = [before, getComputedStyle(document.body).backgroundColor];
  report.requested = performance.getEntriesByType("resource").map((entry) => entry.name);
  document.body.insertAdjacentHTML("beforeend", `<pre id="report"></pre>`);
  document.getElementById("report").textContent = JSON.stringify(report);
}, 500));
</script>
"""


class Page(HTMLParser):
    """The page's text, and every attribute that could fetch something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.fetches: list[tuple[str, str]] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        if tag not in {"a", "code"}:
            self.text += " "
        for name, value in attrs:
            if name == "id":
                self.ids.add(value or "")
            if name == "href" and (value or "").startswith("#"):
                self.links.add((value or "")[1:])
            elif name in {"src", "srcset", "href", "data", "action", "poster", "background"}:
                self.fetches.append((tag, value or ""))
            if tag == "meta" and name == "http-equiv":
                self.policy = dict(attrs).get("content") or ""

    def handle_data(self, data: str) -> None:
        if self._inside not in {"script", "style"}:
            self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "train.py").write_text(SOURCE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return html.render(Subject("train.py", leaking_training(str(folder / "train.py")), folder))


def chart_of(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    assert match is not None
    return dict(json.loads(match[1]))


def test_nothing_in_the_page_is_fetched(page: str) -> None:
    parsed = Page(page)
    assert parsed.fetches == []
    assert parsed.policy.startswith("default-src 'none'; ")
    assert "http" not in parsed.policy
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL))
    assert "url(" not in styles and "@import" not in styles


def test_every_link_leads_to_a_line_of_the_page(page: str) -> None:
    parsed = Page(page)
    anchors = {line["anchor"] for line in chart_of(page)["lines"] if line["anchor"]}
    assert anchors
    assert parsed.links | anchors <= parsed.ids


def test_what_the_page_says(page: str) -> None:
    text = " ".join(Page(page).text.split())
    for said in [
        "peak allocated 98.0 MiB predicted, in step 5",
        "growth per step 2.0 MiB predicted over the 4 steps after the warm-up",
        "line_9 = 9 # outputs keeps 2.0 MiB of each step",
        "12 more at every step kept by `outputs` at train.py:9 (source)",
        "32.0 MiB at the peak belong to no line of yours.",
        "scaled_dot_product_attention: flash (24 times)",
        "`.item()` of a float32 tensor is 1.0 (6 times)",
        "the CUDA context",
    ]:
        assert said in text


def test_lines_far_from_what_holds_memory_are_left_out(page: str) -> None:
    text = Page(page).text
    assert "line_13 = 13" in text
    assert "line_14 = 14" not in text


def test_the_chart_s_bands_add_up(page: str) -> None:
    chart = chart_of(page)
    assert [sum(levels) for levels in zip(*chart["levels"], strict=True)] == chart["totals"]
    assert chart["totals"][chart["peak"]] == max(chart["totals"]) == 98 * MIB + 512
    assert chart["unit"] == {"name": "MiB", "bytes": MIB}
    first_line, category, held = chart["lines_at"][chart["peak"]][0]
    assert chart["lines"][first_line]["words"] == "(no line of yours)"
    assert chart["categories"][category]["name"] == "optimizer_state"
    assert held == 32 * MIB


def test_a_long_run_is_drawn_with_few_points_and_its_peak(folder: Path) -> None:
    run = Run()
    run.begin()
    for number in range(20_000):
        run.free(run.allocate(MIB if number == 12_345 else 512, line=number % 30 + 1, path=str(folder / "train.py")))
    run.end_step()
    page = html.render(Subject("train.py", run.recording, folder))
    chart = chart_of(page)
    assert len(chart["events"]) <= html.MOST_POINTS
    assert max(chart["totals"]) == MIB
    assert "each point is the highest of 14 allocations and releases" in page


def test_code_and_names_are_text_whatever_they_contain(folder: Path) -> None:
    hostile = "</script><script>alert(1)</script><img src=http://x>"
    (folder / "hostile.py").write_text(f"x = '{hostile}'\n", encoding="utf-8")
    recording = leaking_training(str(folder / "hostile.py"))
    recording.keepers.append(Keeper(Place(str(folder / "hostile.py"), 1), "graph", hostile))
    recording.excluded.append(hostile)
    page = html.render(Subject(hostile, recording, folder))
    assert "alert(1)</script>" not in page
    assert Page(page).fetches == []
    assert chart_of(page)["lines"]


def test_a_run_in_which_nothing_was_allocated(folder: Path) -> None:
    empty = leaking_training("train.py")
    page = html.render(Subject("train.py", Recording("cpu", "2.13.0", empty.device, 2, empty.layers), folder))
    assert chart_of(page)["events"] == []
    assert "No line of yours could be named." in page


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, by WCAG 2."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [":root", ':root[data-theme="dark"]'])
def test_text_and_bands_stand_out_from_the_ground(page: str, theme: str) -> None:
    """WCAG 2 AA: 4.5 for text, 3 for graphics."""
    block = re.search(re.escape(theme) + r" \{(.*?)\}", page, flags=re.DOTALL)
    assert block is not None
    colours = dict(re.findall(r"--(\w+): (#\w{6})", block[1]))
    for text in ["text", "soft", "accent", "alarm"]:
        for ground in ["ground", "raised"]:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for category in Category:
        assert contrast(colours[category.value], colours["ground"]) >= 3, category


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_a_browser_shows_it_and_asks_the_network_for_nothing(page: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page.replace("<head>", "<head>" + PROBE, 1), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1240,1600", "--virtual-time-budget=10000"]
    command = [str(CHROMIUM), *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    shown = subprocess.run(
        [*command, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    # The last one: the first is in the probe's own text.
    report = json.loads(unescape(re.findall(r'<pre id="report">(.*?)</pre>', shown, flags=re.DOTALL)[-1]))
    assert report["troubles"] == []
    assert report["requested"] == []
    assert report["bands"] == len(Category)
    assert report["first"].startswith("98.0 MiB (predicted) in step 5, the peak; held most by:32.0 MiBoptimizer state")
    assert report["next"].startswith("19.0 MiB (predicted) in step 0; held most by:")
    assert report["hovered"].startswith("16.0 MiB (predicted) in the set-up; held most by:16.0 MiBparameters")
    assert len(set(report["themes"])) == 2
