"""The whole page from a made-up run: every part, figures as in the files, escaping, size, several runs."""

import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser

import pytest

from rerouting.cli.main import main
from rerouting.core.errors import UserError
from rerouting.report.page import LARGEST, embedded, write_report
from tests.report.made_up import EVIL, example_row, make_run, metrics, write_json, write_lines

TITLES = (
    "Results",
    "Attacks",
    "Capability against robustness",
    "Over-refusal",
    "Training",
    "Hidden states",
    "Token by token",
    "Examples",
    "Probes",
    "Cost",
    "Reproducibility card",
)


class Outline(HTMLParser):
    """Elements with their attributes, and the page's text without scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.words, self.inside = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag if tag in ("script", "style") else self.inside

    def handle_endtag(self, tag):
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data):
        if not self.inside:
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "made")


def page_of(*runs, out=None):
    return write_report(list(runs), out).read_text()


def test_command_writes_beside_the_run_and_says_where(run, capsys):
    assert main(["report", str(run)]) == 0
    assert str(run / "report.html") in capsys.readouterr().out
    assert (run / "report.html").read_text().startswith("<!doctype html>")


def test_every_section_has_its_figures(run):
    outline = Outline(page_of(run))
    titles = [title for title in TITLES if f"{title} " in outline.text]
    assert titles == list(TITLES)
    for shown in (
        "33.3 [20.2, 49.7]",  # 12 of 36 answered, Wilson
        "12.5 [5.5, 26.1]",  # 5 of 40 fell
        "−50.0 [−70.0, −30.0] p 1e-06",
        "not run: no assistant",
        "threshold, trained, linear 1.95",
        "knew of no probe",
        "trips at token 2 of the answer",
        "did not trip",
        "attempt 2 of 2",
        "What was sent",
        "over_refusal: 2 requests left out",
        "198.8 4,068.8",
        "median 1,010, from 1,001 to 1,020, over 20 logged steps",
        "Imagined GPU, 80 GiB, driver 550.1",
        "git revision 48dc7ee3feb6819a92150f89da0ac8334fd30460 with changes that are not in it",
        "for step t = 1 … 20",
        "layer in [2, 4]",
        "to_place(rep_cb(x_s), rep_base(x_s))",
        "torch 2.13.0+cpu",
        "Apache-2.0, ships with rerouting",
        "b57fa76c" * 8,
        "e418aedd" * 8,
        f"rerouting reproduce {run}",
    ):
        assert shown in outline.text, shown
    assert not re.search(r'class="note (absent|damaged)"', page_of(run))


def test_curves_are_those_of_the_files(run):
    page = page_of(run)
    plots = [json.loads(text) for text in re.findall(r'-data">(\{.*?\})</script>', page)]
    assert len(plots) == 14
    named = [{trace["name"]: trace for trace in plot["data"]} for plot in plots]
    cosine = next(traces for traces in named if "layer 2, held out" in traces)
    assert list(cosine) == ["layer 2", "layer 4", "layer 2, held out", "layer 4, held out"]
    assert cosine["layer 4"]["y"] == [1 - step / 40 for step in range(1, 21)]
    assert cosine["layer 2, held out"]["x"] == [10, 20] and cosine["layer 2, held out"]["y"] == [0.5, 0.5]
    over_tokens = next(traces for traces in named if "benign, layer 4" in traces)
    assert over_tokens["benign, layer 4"]["x"] == [1, 2], "a shorter line ends where its figures do"


def test_harmful_examples_are_folded_and_others_open(run):
    cards = [given for tag, given in Outline(page_of(run)).elements if given.get("class") == "example"]
    opened = {card["data-set"] for card in cards if "open" in card}
    folded = {card["data-set"] for card in cards if "open" not in card}
    assert opened == {"benign", "over-refusal: benign"}
    assert folded == {"direct", "attacks-quick: prefill"}


def test_a_set_of_unknown_kind_is_folded(run):
    (run / "config.yaml").unlink()
    write_lines(run / "generations.jsonl", [example_row("mystery", 1, "x", "y", "z")])
    cards = [given for _, given in Outline(page_of(run)).elements if given.get("data-set") == "mystery"]
    assert len(cards) == 1 and "open" not in cards[0]


def test_model_text_is_only_ever_text(run):
    page = page_of(run)
    outline = Outline(page)
    assert EVIL in unescape(page) and "<script>window.pwned" not in page
    assert not [given for tag, given in outline.elements if tag == "img" or "onerror" in given]
    kinds = [given.get("type") for tag, given in outline.elements if tag == "script"]
    assert kinds.count(None) == 1 and set(kinds) == {None, "text/plain", "application/json"}
    assert "gcg &lt;i&gt;suffix&lt;/i&gt;" in page, "in the table"
    assert r"gcg \u0026lt;i\u0026gt;suffix" in page, "in the plot, where plotly would read a tag"


def test_embedded_json_cannot_end_its_element():
    given = {"a": "</script><!--<script>&", "b": "\u2028"}
    text = str(embedded(given))
    assert json.loads(text) == given
    assert not set("<>&\u2028") & set(text)


def test_nothing_comes_from_a_network(run):
    page = page_of(run)
    elements = Outline(page).elements
    linked = [
        given.get(key, "") for _, given in elements for key in ("src", "href", "action") if key in given
    ]
    assert all(link.startswith("#") for link in linked)
    policy = next(given["content"] for tag, given in elements if given.get("http-equiv"))
    assert "default-src 'none'" in policy and "'unsafe-inline'" not in policy.partition("script-src")[2]


def test_too_much_is_cut_to_the_size_and_said(run):
    many = [example_row("direct", at, "word " * 300, "<" * 3000, "answer " * 300) for at in range(900)]
    write_lines(run / "generations.jsonl", many)
    write_lines(run / "metrics.jsonl", metrics(3000))
    page = page_of(run)
    assert len(page.encode()) < LARGEST
    assert re.search(r"\d+ of 904 examples are here", page)
    assert "more characters" in page
    assert "60 of 3000 figures" in page and "At most 300 of 3000 points a line are drawn" in page
    plots = [json.loads(text) for text in re.findall(r'-data">(\{.*?\})</script>', page)]
    assert max(len(trace["x"]) for plot in plots for trace in plot["data"]) == 300


def test_long_tables_say_what_they_leave_out(run):
    kept_summary = json.loads((run / "kept/summary.json").read_text())
    findings = kept_summary["measures"]["intrinsic"]["findings"]
    kept_summary["measures"]["intrinsic"]["findings"] = [
        findings[0] | {"part": f"part {at}"} for at in range(450)
    ]
    write_json(run / "kept/summary.json", kept_summary)
    outline = Outline(page_of(run))
    assert "The first 400 of 453 figures are shown." in outline.text
    assert outline.text.count("intrinsic · part") == 397


def test_several_runs_side_by_side(run, tmp_path):
    other = make_run(tmp_path / "elsewhere" / "made")
    changed = json.loads((other / "summary.json").read_text())
    changed["sets"]["direct"]["rerouted"]["answered"] |= {"rate": 0.0417, "low": 0.01, "high": 0.13}
    write_json(other / "summary.json", changed)
    (other / "config.yaml").write_text((other / "config.yaml").read_text().replace("rank: 16", "rank: 64"))
    (other / "kept/summary.json").unlink()
    outline = Outline(page_of(run, other, out=tmp_path / "both.html"))
    assert "Runs side by side" in outline.text
    assert "33.3 [20.2, 49.7] base 88.9 [74.7, 95.6], n 36 4.2 [1.0, 13.0] base 88.9" in outline.text
    assert "All 1 settings that differ" in outline.text and "lora.rank 16 64" in outline.text
    assert "elsewhere/made" in outline.text, "two of one name are told apart"
    assert "nll (nats a token) intrinsic · all 1.000 [0.804, 1.196] base 0.750" in outline.text
    assert "Runs side by side" not in Outline(page_of(run, run)).text, "the same one twice is one"


def test_a_run_without_evaluation_sets_beside_one_with_them(run, tmp_path):
    bare = make_run(tmp_path / "bare")
    (bare / "summary.json").unlink()
    (bare / "generations.jsonl").unlink()
    shutil.rmtree(bare / "attacks-quick")
    outline = Outline(page_of(bare, run, out=tmp_path / "both.html"))
    assert "Capability against robustness" in outline.text and "Runs side by side" in outline.text


def test_different_bases_are_pointed_out(run, tmp_path):
    other = make_run(tmp_path / "other")
    facts = json.loads((other / "manifest.json").read_text())
    facts["model"]["sha256"] = "0" * 64
    assert "base models differ" not in page_of(run, other)
    write_json(other / "manifest.json", facts)
    assert "base models differ" in page_of(run, other)


def test_what_is_no_run_is_refused(tmp_path, run, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (run / "attacks-quick/matrix.json").touch()
    for path, words in (
        (tmp_path / "empty", "is not a run directory"),
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "file", "is a file"),
        (run / "attacks-quick", f"give the run that they are of: {run}"),
    ):
        assert main(["report", str(path)]) == 2
        assert words in capsys.readouterr().err
    with pytest.raises(UserError, match="is a folder"):
        write_report([run], tmp_path)


def test_a_write_that_fails_leaves_the_old_page(run, monkeypatch):
    page_of(run)
    before = (run / "report.html").read_bytes()
    monkeypatch.setattr(
        "os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(UserError, match="disk full"):
        write_report([run])
    assert (run / "report.html").read_bytes() == before
    assert [entry.name for entry in run.iterdir() if "report" in entry.name] == ["report.html"]


def test_a_page_is_the_same_each_time(run):
    assert page_of(run) == page_of(run)
