"""The page needs nothing but itself, says what it must, and is whole or absent."""

import json
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from jettagger.errors import JettaggerError
from jettagger.evaluation.comparison import compare
from jettagger.evaluation.document import to_json
from jettagger.evaluation.schema import EvaluationSection
from jettagger.evaluation.table import format_measurement
from jettagger.report import page as report_page
from jettagger.report.page import write_report
from jettagger.report.style import Drawing

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Collects what the checks need; a tag that is not closed properly is an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.anchors, self.ids, self.words, self.tags = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attributes:
            if key == "id":
                self.ids.append(value)
            elif key in ("src", "href", "srcset", "data", "action"):
                (self.anchors if value.startswith("#") else self.addresses).append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def written(make_predictions, tmp_path_factory):
    runs = [
        make_predictions("A & <b>", jets=300, members=1, spectators={}, history=()),
        *(make_predictions(f"net {k}", jets=300, members=2, group="net", seed=k) for k in range(2)),
    ]
    evaluation = compare(runs, EvaluationSection(bootstrap=20))
    directory = tmp_path_factory.mktemp("report") / "deep" / "report"
    return evaluation, write_report(evaluation, directory)


def test_the_page_is_self_contained(written):
    _, path = written
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert {anchor[1:] for anchor in page.anchors} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert not {"script", "link", "iframe"} & set(page.tags)
    for forbidden in ("@import", "url(", "http://", "https://"):
        assert forbidden not in text
    assert len(text) < 5e6


def test_the_page_says_what_it_must(written):
    evaluation, path = written
    page = Page(path.read_text(encoding="utf-8"))
    words = "".join(page.words)
    assert page.tags.index("table") < page.tags.index("img")
    assert "A & <b>" in words
    assert "Compared with A & <b>" in words
    assert "Spread over seeds" in words
    assert (
        "between trainings (epistemic in ML terms; the lecture's statistical part)"
        in words.lower().replace("ml", "ML")
    )
    assert "label noise (aleatoric)" in words.lower()
    assert "still improving: in the last 2 of 12 epochs" in words.lower()
    assert format_measurement(evaluation.results[0].auc) in words


def test_figures_and_numbers_lie_beside(written):
    evaluation, path = written
    pdf = {file.stem for file in (path.parent / "figures").glob("*.pdf")}
    png = {file.stem for file in (path.parent / "figures").glob("*.png")}
    assert pdf == png
    assert {"roc_Top_vs_QCD", "calibration", "training", "coverage"} <= pdf
    assert json.loads((path.parent / "report.json").read_text()) == to_json(evaluation)
    assert not list(path.parent.rglob(".*"))


def test_large_figures_become_png(monkeypatch):
    monkeypatch.setattr(report_page, "LARGEST_SVG", 1000)
    figure = Figure()
    figure.add_subplot().plot([0, 1])
    images = report_page._images([Drawing("one", "One", figure, "A line.")])
    assert images["one"].startswith("data:image/png;")


def test_a_failure_leaves_the_old_report(written, tmp_path, monkeypatch):
    evaluation, _ = written
    (tmp_path / "report.html").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")

    def broken(*_):
        raise RuntimeError("no")

    monkeypatch.setattr(report_page, "draw", lambda _: [])
    monkeypatch.setattr(report_page, "to_html", broken)
    with pytest.raises(RuntimeError, match="no"):
        write_report(evaluation, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"report.html", "notes.txt"}
    assert (tmp_path / "report.html").read_text() == "old"


def test_a_place_that_cannot_be_written_is_named_before_any_work(written, tmp_path, monkeypatch):
    evaluation, _ = written
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(report_page, "draw", lambda _: pytest.fail("drawn in vain"))
    with pytest.raises(JettaggerError, match=r"cannot write .*file/report\.html"):
        write_report(evaluation, tmp_path / "file")


def test_everything_is_in_the_table_where_pairs_are_many(make_predictions):
    run = make_predictions(classes=tuple("ABCD"), members=1, jets=200, history=(), spectators={})
    text = report_page.to_html(compare([run], EvaluationSection(bootstrap=0)), [], "Title")
    assert "9 further pairs of classes are in the table only" in text


@pytest.mark.slow
def test_a_browser_shows_it(written, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine: the page was not opened in a browser")
    _, path = written
    picture = tmp_path / "page.png"
    quiet = [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-gpu",
    ]
    command = [browser, "--headless", "--no-sandbox", *quiet, f"--user-data-dir={tmp_path / 'profile'}"]
    subprocess.run(
        [*command, f"--screenshot={picture}", "--window-size=1300,6000", path.as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    from matplotlib.image import imread

    pixels = imread(picture)[..., :3]
    assert pixels.shape == (6000, 1300, 3)
    # Ink all the way down: text, tables and figures, none of them missing.
    ink = [(block < 0.6).any(-1).mean() for block in pixels.reshape(12, 500, 1300, 3)]
    assert min(ink[:8]) > 0.005
