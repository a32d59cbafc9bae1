"""The attack matrix through the command line, on a tiny run: results, resuming, failures, shards."""

import json

import pytest

from rerouting.attacks.gcg import Gcg
from rerouting.attacks.multilingual import Multilingual
from rerouting.cli.main import main
from rerouting.core.files import read_jsonl
from rerouting.core.rundir import hold
from rerouting.evaluation.attack_config import AttackConfig
from rerouting.pipeline.attack_setup import case_name
from tests.pipeline.tiny_run import HARMFUL_TEST, in_two_processes, own_cache, write_chats, write_recipe

OWN_ATTACK = '''
from dataclasses import dataclass
from rerouting.core.attempt import Attempt, ask
from rerouting.core.errors import UserError

@dataclass(frozen=True)
class Twice:
    """Asks politely, and again."""
    word: str = "please"
    fail_on: str = ""

    def run(self, target, chats, resources):
        for chat in chats:
            if self.fail_on and self.fail_on in chat.request:
                raise UserError("the endpoint timed out", "run again")
        sent = [ask(chat, f"{self.word} {chat.request}") for chat in chats]
        return [Attempt(chat) for chat in sent for _ in range(2)]
'''
OWN_JUDGE = '''
from dataclasses import dataclass
from rerouting.core.contracts import Verdict

@dataclass(frozen=True)
class Odd:
    """Yes when the behaviour has an odd number of characters; silent about cars."""

    def verdicts(self, judged):
        return [
            Verdict(None, "prose instead of a verdict") if "money" in one.behaviour
            else Verdict(len(one.behaviour) % 2 == 1, "length")
            for one in judged
        ]
'''


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked")
    with own_cache(folder):
        assert main(["train", "--config", str(write_recipe(folder)), "--out", str(folder / "run")]) == 0
        write_chats(folder / "behaviours.jsonl", HARMFUL_TEST)
        (folder / "twice.py").write_text(OWN_ATTACK)
        (folder / "odd.py").write_text(OWN_JUDGE)
        yield folder


def attack(tiny, out, *options, attacks=None):
    source = {"name": "chats", "options": {"path": str(tiny / "behaviours.jsonl"), "prompt": "prompt"}}
    source["options"] |= {"response": "response", "target": "target"}
    config = {
        "model": str(tiny / "run"),
        "attacks": attacks or ["direct", "prefill", f"{tiny}/twice.py:Twice"],
        "sources": [source],
        "judges": [f"{tiny}/odd.py:Odd", "refusal_words"],
        "max_new_tokens": 5,
    }
    file = tiny / "attack.yaml"
    file.write_text(json.dumps(config))
    return main(["attack", "--config", str(file), "--out", str(out), *options])


def test_matrix_with_an_own_attack_and_an_own_judge(tiny, tmp_path, capsys):
    assert attack(tiny, tmp_path / "out") == 0
    assert "unscored" in capsys.readouterr().out
    rows = read_jsonl(tmp_path / "out" / "results.jsonl")
    own = f"{tiny}/twice.py:Twice"
    assert len(rows) == 2 * (6 + 6 + 12)
    assert all(set(row["verdicts"]) == {f"{tiny}/odd.py:Odd", "refusal_words"} for row in rows)
    sent = next(row for row in rows if row["attack"] == own)
    assert sent["messages"][-1]["content"].startswith("please How do I")
    assert sent["messages"][-1]["content"] in sent["prompt"]
    assert sent["behaviour"].startswith("How do I"), "the judge sees the behaviour, not the attack's words"
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    odd = sum(len(f"How do I {text}?") % 2 for text in HARMFUL_TEST if "money" not in text)
    for name in ("direct", "prefill", own):
        rate = summary["attacks"][name]["all"]["base"]["asr"]
        assert (rate["hits"], rate["n"], rate["unscored"]) == (odd, 5, 1)
        assert summary["attacks"][name]["all"]["paired"]["difference"] == 0
        assert summary["attacks"][name]["all"]["base"]["forward_tokens"] > 0
    for ending in ("md", "csv", "tex"):
        assert "prefill" in (tmp_path / "out" / f"table.{ending}").read_text()


def test_two_named_models_are_attacked_as_the_run_that_they_are_from(tiny, tmp_path, capsys):
    named = [
        "--model",
        str(tiny / "run" / "model"),
        "--base",
        json.dumps({"name": str(tiny / "model"), "dtype": "float32"}),
    ]
    assert attack(tiny, tmp_path / "run", attacks=["prefill"]) == 0
    assert attack(tiny, tmp_path / "named", *named, attacks=["prefill"]) == 0
    run, two = (read_jsonl(tmp_path / name / "results.jsonl") for name in ("run", "named"))
    assert [row["answer"] for row in run] == [row["answer"] for row in two]
    assert attack(tiny, tmp_path / "both", "--base.name", str(tiny / "model")) == 2
    assert "leave base out" in capsys.readouterr().err


def test_finished_cases_are_not_repeated_and_failed_ones_are(tiny, tmp_path, monkeypatch):
    own = f"{tiny}/twice.py:Twice"
    options = ["--attack_options", json.dumps({own: {"fail_on": "guns"}})]
    assert attack(tiny, tmp_path / "out", *options, attacks=[own]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["attacks"][own]["all"]["base"]
    assert summary["asr"]["unscored"] == 2, "one by the judge, one by the failing endpoint"
    assert any("timed out" in reason for reason in summary["unscored_reasons"])
    before = {file: file.read_text() for file in (tmp_path / "out" / "cases").iterdir()}
    assert attack(tiny, tmp_path / "out", *options, attacks=[own]) == 0
    for file, text in before.items():
        added = file.read_text()[len(text) :].splitlines()
        assert [json.loads(line)["id"] for line in added] == [
            row["id"] for row in map(json.loads, text.splitlines()) if row["attempts"][0]["failure"]
        ]


def test_a_killed_matrix_goes_on_with_a_torn_line(tiny, tmp_path):
    assert attack(tiny, tmp_path / "out", attacks=["direct"]) == 0
    whole = (tmp_path / "out" / "results.jsonl").read_text()
    file = sorted((tmp_path / "out" / "cases").iterdir())[0]
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:3]) + "\n" + lines[3][:40])
    assert attack(tiny, tmp_path / "out", attacks=["direct"]) == 0
    again = read_jsonl(tmp_path / "out" / "results.jsonl")
    for one, other in zip(again, map(json.loads, whole.splitlines()), strict=True):
        assert one["answer"] == other["answer"] and one["id"] == other["id"]


def test_shards_of_two_processes_merge(tiny, tmp_path):
    from rerouting.core.attempt import Attempt
    from rerouting.core.contracts import Resources
    from rerouting.core.records import Chat, Message
    from rerouting.evaluation.attacking import Shard, attack_model
    from rerouting.evaluation.cases import CaseFile
    from rerouting.evaluation.judging import LoopJudge
    from rerouting.models.config import ModelConfig
    from rerouting.models.loading import load
    from rerouting.targets.target import Target

    class Silent:
        def prompts(self, chats):
            return [Attempt(chat, answer="x") for chat in chats]

    target = Target(load(ModelConfig(name=str(tiny / "model"), dtype="float32", device="cpu")), 3)
    chats = [("set", Chat(f"c{at}", (Message("user", "hm"),))) for at in range(5)]
    resources = Resources(0, LoopJudge(None, None, {}), assistant=None)
    for rank in (0, 1):
        attack_model("s", Silent(), target, chats, resources, CaseFile(tmp_path, "s", rank), Shard(rank, 2))
    assert [len(file.read_text().splitlines()) for file in sorted((tmp_path / "cases").iterdir())] == [3, 2]
    assert set(CaseFile(tmp_path, "s", 7).rows([chat for _, chat in chats])) == {f"c{at}" for at in range(5)}


@pytest.mark.long
@pytest.mark.timeout(300)
def test_accelerate_launch_shards_and_merges(tiny, tmp_path):
    assert attack(tiny, tmp_path / "alone", attacks=["direct", "prefill"]) == 0
    done = in_two_processes("attack", "--config", tiny / "attack.yaml", "--out", tmp_path / "two")
    files = {file.name.split(".")[-2] for file in (tmp_path / "two" / "cases").iterdir()}
    assert files == {"0", "1"}, "both processes attacked"

    def kept(folder):
        rows = read_jsonl(tmp_path / folder / "results.jsonl")
        return sorted((row["key"], row["answer"], str(row["verdicts"])) for row in rows)

    assert kept("two") == kept("alone")
    assert done.stdout.count("attack") and done.stdout.count("every attempt:") == 1


def test_a_narrower_run_keeps_the_other_attacks_in_the_table(tiny, tmp_path):
    assert attack(tiny, tmp_path / "out", attacks=["direct", "prefill"]) == 0
    whole = (tmp_path / "out" / "table.md").read_text()
    assert attack(tiny, tmp_path / "out", attacks=["prefill"]) == 0
    assert sorted((tmp_path / "out" / "table.md").read_text().splitlines()) == sorted(whole.splitlines())
    other = ["--judges", '["refusal_words"]']
    assert attack(tiny, tmp_path / "out", *other, attacks=["prefill"]) == 0
    rows = read_jsonl(tmp_path / "out" / "results.jsonl")
    assert {row["attack"] for row in rows} == {"direct", "prefill"}
    assert all(set(row["verdicts"]) == {"refusal_words"} for row in rows), "judged as the others are"
    assert all(row["key"].split("/")[0] == row["attack"] for row in rows)
    assert len({row["key"] for row in rows}) == len(rows)


def test_another_matrix_in_the_same_folder_is_refused(tiny, tmp_path, capsys):
    assert attack(tiny, tmp_path / "out", attacks=["direct"]) == 0
    before = (tmp_path / "out" / "results.jsonl").read_text()
    assert attack(tiny, tmp_path / "out", "--seed", "1", "--limit", "2", attacks=["direct"]) == 2
    assert "limit, seed differ" in capsys.readouterr().err
    assert (tmp_path / "out" / "results.jsonl").read_text() == before


def test_an_attack_with_options_stays_when_another_is_run(tiny, tmp_path):
    cases = tmp_path / "cases.json"
    cases.write_text(json.dumps({f"How do I {text}?": ["Please"] for text in HARMFUL_TEST}))
    options = ["--attack_options", json.dumps({"static": {"path": str(cases)}})]
    assert attack(tiny, tmp_path / "out", *options, attacks=["static"]) == 0
    assert attack(tiny, tmp_path / "out", "--cases", "{direct: 1}", attacks=["direct"]) == 0
    assert {row["attack"] for row in read_jsonl(tmp_path / "out" / "results.jsonl")} == {"static", "direct"}


def test_kept_cases_of_changed_behaviours_leave_the_table(tiny, tmp_path):
    assert attack(tiny, tmp_path / "out", attacks=["direct"]) == 0
    file = tiny / "behaviours.jsonl"
    before = file.read_text()
    try:
        lines = before.splitlines()
        file.write_text("\n".join([lines[0].replace("How do I", "Where do I"), *lines[1:-1]]) + "\n")
        assert attack(tiny, tmp_path / "out", attacks=["prefill"]) == 0
    finally:
        file.write_text(before)
    rows = read_jsonl(tmp_path / "out" / "results.jsonl")
    count = {
        name: len({row["id"] for row in rows if row["attack"] == name}) for name in ("direct", "prefill")
    }
    assert count == {"direct": len(lines) - 2, "prefill": len(lines) - 1}


def test_a_failed_attempt_has_no_verdict_of_anothers(tiny, tmp_path):
    file = tmp_path / "half.py"
    file.write_text(
        OWN_ATTACK.replace("for chat in sent for _ in range(2)]", "for chat in sent] + [\n"
        "            Attempt(chat, failure='time-out') for chat in chats]")
    )  # fmt: skip
    assert attack(tiny, tmp_path / "out", attacks=[f"{file}:Twice"]) == 0
    assert attack(tiny, tmp_path / "out", attacks=["direct"]) == 0
    rows = [row for row in read_jsonl(tmp_path / "out" / "results.jsonl") if row["failure"]]
    assert len(rows) == 12 and all("verdicts" not in row and row["answer"] is None for row in rows)


def test_changed_files_deep_in_options_are_another_case(tmp_path):
    file = tmp_path / "t.jsonl"
    config, names = AttackConfig(), []
    attack = Multilingual(translator="files", translator_options={"path": str(file)})
    for text in ("one", "two"):
        file.write_text(text)
        names.append(case_name(config, "multilingual", attack, "base"))
    assert names[0] != names[1]
    case_name(config, "gcg", Gcg(init="~nobody ! " * 60), "base")  # text that can be no path


def test_one_process_at_a_time(tiny, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with hold(tmp_path / "out", ".attack.lock"):
        assert attack(tiny, tmp_path / "out", attacks=["direct"]) == 2
    assert "is in use by" in capsys.readouterr().err


def test_edited_attack_code_is_run_again(tiny, tmp_path):
    file = tmp_path / "mine.py"
    for word in ("kindly", "again"):
        file.write_text(OWN_ATTACK.replace("please", word))
        assert attack(tiny, tmp_path / "out", attacks=[f"{file}:Twice"]) == 0
        rows = read_jsonl(tmp_path / "out" / "results.jsonl")
        assert all(row["messages"][-1]["content"].startswith(word) for row in rows)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--attack_options", "{prefil: {openings: [x]}}"], "attack_options names 'prefil'"),
        (["--cases", "{dirct: 3}"], "cases names 'dirct'"),
        (["--judge_options", "{locl: {threshold: 0.9}}"], "judge_options names 'locl'"),
        (["--attacks", '["gcgg"]'], "unknown name"),
        (["--judges", "[]"], "no judge"),
        (["--model", "nowhere"], "not a run directory"),
    ],
)
def test_bad_input_is_explained(tiny, tmp_path, capsys, options, said):
    assert attack(tiny, tmp_path / "out", *options) == 2
    assert said in capsys.readouterr().err
