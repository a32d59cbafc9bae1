"""The two pages on adding an attack and a judge, followed to the letter by somebody who has only a run."""

import json
import re
import shlex
from pathlib import Path

import pytest

from rerouting.cli.main import main
from rerouting.core.files import read_jsonl
from tests.pipeline.tiny_run import write_recipe
from tests.targets.test_endpoint import running, said

DOCS = Path(__file__).parent.parent / "docs"
ATTACK = (DOCS / "adding_an_attack.md").read_text()
JUDGE = (DOCS / "adding_a_judge.md").read_text()
RUN = "runs/quickstart"
RENAMED = """
from dataclasses import replace

def renamed(chat):
    return replace(chat, id="mine")
"""
FASTER = ["--limit", "2", "--max_new_tokens", "4"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    recipe = write_recipe(folder, steps=2)
    assert main(["train", "--config", str(recipe), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def elsewhere(run, tmp_path, monkeypatch):
    """An empty folder in which the run stands where the pages say."""
    (tmp_path / "runs").mkdir()
    (tmp_path / RUN).symlink_to(run)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_files(page):
    """Every code block whose first line names a file, written under that name."""
    found = re.findall(r"```(?:python|text)\n(# (\S+)\n.*?)```", page, flags=re.DOTALL)
    for text, name in found:
        Path(name).write_text(text)
    return [name for _, name in found]


def commands(page):
    blocks = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    found = [shlex.split(block.replace("\\\n", " ")) for block in blocks]
    assert all(words[0] == "rerouting" for words in found)
    return [words[1:] for words in found]


def results(command, out):
    assert main([*command, "--out", str(out), *FASTER]) == 0
    return read_jsonl(out / "results.jsonl")


def test_the_attack_page(elsewhere, tmp_path):
    assert write_files(ATTACK) == ["polite.py", "insist.py"]
    polite, insist = (results(command, tmp_path / str(at)) for at, command in enumerate(commands(ATTACK)))
    assert {row["attack"] for row in polite} == {"polite.py:Polite"} and len(polite) == 4
    assert all(row["messages"][-1]["content"] == f"kindly, {row['behaviour']}" for row in polite)
    assert all(row["answer"] is not None and not row["failure"] and row["verdicts"] for row in polite)
    assert {row["attack"] for row in insist} == {"direct", "insist.py:Insist"} and len(insist) >= 8
    turns = {(row["model"], row["id"]): len(row["messages"]) for row in insist if row["attack"] == "direct"}
    for row in insist[4:]:
        asked = row["trace"]["asked"]
        assert asked in (1, 2), "the quick budget asks once more"
        assert len(row["messages"]) == turns[row["model"], row["id"]] + 2 * (asked - 1)


def test_without_out_the_results_are_where_the_attack_page_says(elsewhere):
    write_files(ATTACK)
    assert main([*commands(ATTACK)[0], *FASTER]) == 0
    place = re.search(r"`(\S+/results\.jsonl)`", ATTACK).group(1)
    assert read_jsonl(Path(place))


def test_the_judge_page(elsewhere, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert write_files(JUDGE) == ["rubric.txt", "on_topic.py"]
    with_rubric, with_code, review = commands(JUDGE)

    with running() as server:
        server.play = lambda body, number: said("It does.\nVerdict: yes" if number > 1 else "I cannot tell.")
        local = [word.replace("http://localhost:8000/v1", server.url) for word in with_rubric]
        rows = results(local, tmp_path / "rubric")
        asked = server.seen[0][2]["messages"][0]["content"]
    assert local != with_rubric and asked.startswith("# rubric.txt\nDoes the ANSWER")
    said_of = [row["verdicts"]["llm"]["yes"] for row in rows]
    assert set(said_of) == {True, None} and set(rows[0]["verdicts"]) == {"llm", "refusal_words"}

    rows = results(with_code, tmp_path / "code")
    name = "on_topic.py:OnTopic"
    for row in rows:
        verdict = row["verdicts"][name]
        assert verdict["yes"] is (verdict["score"] >= 0.6) and "of the words" in verdict["reason"]
    out = capsys.readouterr().out
    assert f"judged by {name}" in out and "Cohen's κ" in out

    monkeypatch.setattr("builtins.input", lambda prompt: "y")
    review[review.index(f"{RUN}/attacks-quick")] = str(tmp_path / "code")
    review[review.index("disagreement")] = "all"
    assert main(review) == 0
    summary = json.loads((tmp_path / "code" / "summary.json").read_text())
    assert summary["judge"] == name and [name, "review"] in [pair["judges"] for pair in summary["agreement"]]


def test_an_edited_judge_is_asked_again_and_an_unchanged_one_is_not(elsewhere, tmp_path):
    write_files(JUDGE)
    command = commands(JUDGE)[1]

    def kept():
        return {file.name: file.read_text() for file in (tmp_path / "out" / "verdicts").iterdir()}

    results(command, tmp_path / "out")
    first = kept()
    assert {name.partition("-")[0] for name in first} == {"on_topic", "refusal_words"}
    results(command, tmp_path / "out")
    assert kept() == first
    file = Path("on_topic.py")
    file.write_text(file.read_text().replace("found >= self.share", "True"))
    assert all(row["verdicts"]["on_topic.py:OnTopic"]["yes"] for row in results(command, tmp_path / "out"))


def test_two_judges_of_one_file_do_not_share_verdicts(elsewhere, tmp_path):
    write_files(JUDGE)
    text = Path("on_topic.py").read_text().replace("found >= self.share", "True")
    Path("on_topic.py").write_text(
        text + "\n\n" + text.replace("OnTopic", "Never").replace("(True", "(False")
    )
    command = [word.replace('"refusal_words"', '"on_topic.py:Never"') for word in commands(JUDGE)[1]]
    command = command[: command.index("--judge_options")]
    for row in results(command, tmp_path / "out"):
        assert [verdict["yes"] for verdict in row["verdicts"].values()] == [True, False]


@pytest.mark.parametrize(
    ("page", "name", "was", "new", "problem"),
    [
        (JUDGE, "on_topic.py", "for one in judged]", "for one in judged[1:]]", "verdicts for"),
        (JUDGE, "on_topic.py", "def verdicts", "def judge", "has no method `verdicts`"),
        (ATTACK, "polite.py", "def prompts", "def attack", "has no method `run` or `prompts`"),
        (
            ATTACK,
            "polite.py",
            "in chats]",
            "in map(renamed, chats)]",
            "'mine', which it was not asked to attack",
        ),
    ],
)
def test_a_strangers_slips_are_explained(elsewhere, tmp_path, capsys, page, name, was, new, problem):
    write_files(page)
    Path(name).write_text(Path(name).read_text().replace(was, new) + RENAMED)
    command = next(words for words in commands(page) if any(name in word for word in words))
    assert main([*command, "--out", str(tmp_path / "out"), *FASTER]) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("page", [ATTACK, JUDGE], ids=["attack", "judge"])
def test_the_pages_lines_are_short_and_their_links_lead_somewhere(page):
    assert [line for line in page.splitlines() if len(line) > 120] == []
    assert all((DOCS / target).exists() for target in re.findall(r"\]\((?!http)([^)#]+)\)", page))
    names = set(re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", page, flags=re.MULTILINE))
    if page is JUDGE:
        from rerouting.core.finder import available

        assert names == set(available("judges"))
