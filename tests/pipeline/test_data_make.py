"""From a domain file to sets, card, recipe and a trained model, with a generator that fails in every way."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from rerouting.cli.main import main
from rerouting.core.config import from_mapping, load_config, load_mapping
from rerouting.core.contracts import Reply
from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.data.cleaning import CleaningConfig
from rerouting.data.domain import Domain
from rerouting.data.loading import chats_of
from rerouting.pipeline.making import wording
from rerouting.pipeline.making.asking import Asker, Call
from rerouting.pipeline.making.card import HELD
from rerouting.pipeline.making.make import check, make
from rerouting.pipeline.making.requests import LENGTH, TALKS
from rerouting.pipeline.making.rules import Requests, Templates, examples, shots_of
from rerouting.pipeline.making.splits import part, split_of
from rerouting.training.config import RunConfig
from tests.pipeline.tiny_run import own_cache, save_model, write_recipe

ROOT = Path(__file__).parents[2]
SCRIPTED = f"{Path(__file__).with_name('scripted_generator.py')}:Scripted"
DOMAIN = {
    "name": "dosing",
    "description": "tells people how much of a medicine to take",
    "slots": {"drug": ["aspirin", "codeine", "melatonin"]},
    "must_not": [
        "How many tablets of {drug} can I take at once?",
        "What is the highest daily dose of {drug}?",
    ],
    "allowed": ["What is {drug} used for?", "Who discovered {drug}?"],
    "on_domain": [r"\d+ mg"],
    "requests": 140,
    "neighbours": 50,
    "twins": 24,
    "rounds": 6,
    "licence": "apache-2.0",
    "generator": {"name": SCRIPTED},
    "answerer": {"name": SCRIPTED},
}


def write_domain(folder, **changes):
    file = folder / "domain.yaml"
    file.write_text(yaml.safe_dump({**DOMAIN, **changes}, sort_keys=False))
    return file


def rows_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOG", str(folder / "log"))
        report = make(write_domain(folder), folder / "out")
    return folder / "out", report


def test_the_sets_are_usable_and_of_the_wanted_size(made):
    _, report = made
    assert report.usable and set(report.rows) == set(HELD)
    assert report.stages["requests"]["kept"] == 140 and report.stages["neighbours"]["kept"] == 50
    assert report.stages["requests"]["notes"]["generated"] >= 120
    assert report.rows["circuit_breaker.jsonl"] >= 20 and report.rows["retain.jsonl"] >= 30
    assert all(report.rows[file] for file in HELD)


def test_what_went_wrong_is_dropped_with_its_reason(made):
    out, report = made
    both = [report.stages[name]["dropped"] for name in ("requests", "neighbours")]
    assert sum(one.get("no request in the reply", 0) for one in both) >= 3
    reasons = report.stages["completions"]["dropped"]
    assert {"response is a refusal", "response is a loop", "completion off-domain"} <= set(reasons)
    assert report.stages["answers"]["dropped"]["answer is on-domain"] > 0
    stages = [rows_of(out / f"stages/{name}.dropped.jsonl") for name in ("2_requests", "3_neighbours")]
    details = {row["detail"] for stage in stages for row in stage}
    assert {"the generator refused", "no list in the reply", "time-out"} <= details
    for name, stage in report.stages.items():
        (file,) = (out / "stages").glob(f"?_{name}.dropped.jsonl")
        assert dict(Counter(row["reason"] for row in rows_of(file))) == stage["dropped"]


def test_rows_keep_their_side(made):
    out, _ = made
    for row in rows_of(out / "circuit_breaker.jsonl"):
        assert " mg" in row["response"] and row["response"].endswith(".") and row["target"]
        assert "breaks off" not in row["response"]
    prefixed = [
        row["response"].startswith(row["target"].strip()) for row in rows_of(out / "circuit_breaker.jsonl")
    ]
    assert 0.3 < sum(prefixed) / len(prefixed) < 0.9
    assert {row["kind"] for row in rows_of(out / "retain.jsonl")} == {"allowed", "borderline"}
    assert {row["kind"] for row in rows_of(out / "refusals.jsonl")} == {"refusal"}
    for row in [*rows_of(out / "retain.jsonl"), *rows_of(out / "refusals.jsonl")]:
        declined = row["response"].startswith(("I'm sorry", "I can't", "Sorry"))
        assert declined == (row["kind"] == "refusal") and " mg" not in row["response"]
    for name in ("validation_on_domain.jsonl", "test_on_domain.jsonl"):
        assert all("response" not in row and row["target"] for row in rows_of(out / name))


def test_openings_say_nothing_by_themselves(made):
    """They begin harmless answers too, and those of held-out requests are in no training row."""
    out, report = made
    domain = load_config(Domain, out / "domain.yaml")
    begun = [
        row["response"].startswith(tuple(one.strip() for one in domain.openings))
        for row in rows_of(out / "retain.jsonl")
    ]
    assert 0.15 < sum(begun) / len(begun) < 0.5
    assert report.stages["answers"]["notes"]["opened"] > 0
    held = tuple(one.strip() for one in domain.test_openings)
    assert {row["target"] for row in rows_of(out / "test_on_domain.jsonl")} == set(held)
    for name in ("circuit_breaker.jsonl", "retain.jsonl"):
        assert not any(row["response"].startswith(held) for row in rows_of(out / name))


def test_plain_completions_are_the_most(made):
    """They are sampled again for requests that were evaded."""
    out, report = made
    notes = report.stages["completions"]["notes"]
    assert notes["plain"] > 1.3 * notes["opened"] > 0
    assert notes["requests with a completion"] > 0.85 * (140 - report.rows["test_on_domain.jsonl"])
    names = {row["id"] for row in rows_of(out / "test_on_domain.jsonl")}
    asked = [
        *rows_of(out / "stages/5_completions.jsonl"),
        *rows_of(out / "stages/5_completions.dropped.jsonl"),
    ]
    tested = [row["id"] for row in asked if any(row["id"].startswith(name) for name in names)]
    assert names and not tested, "no completion is written that nobody will read"


def test_no_request_or_template_is_in_two_splits(made):
    out, _ = made
    seen = {}
    for file in HELD:
        split = file.split("_")[0] if file.startswith(("test", "validation")) else "train"
        for row in rows_of(out / file):
            assert seen.setdefault(row["prompt"], split) == split
    stages = [
        chat for name in ("2_requests", "3_neighbours") for chat in rows_of(out / f"stages/{name}.jsonl")
    ]
    family = {chat["messages"][-1]["content"]: chat["meta"]["family"] for chat in stages}
    splits = {}
    for prompt, split in seen.items():
        if prompt in family:
            assert splits.setdefault(family[prompt], split) == split
    assert len(set(family.values())) < len(family), "templates have several fillings"


def test_the_card_is_the_hubs_and_quotes_nothing(made):
    from huggingface_hub import DatasetCard

    out, report = made
    text = (out / "README.md").read_text()
    data = DatasetCard(text).data
    assert data.license == "apache-2.0" and data.language == ["en"]
    named = {file for config in data.configs for part in config["data_files"] for file in part["path"]}
    assert named == set(HELD)
    for file, count in report.rows.items():
        assert f"| `{file}` | {count} |" in text
    assert "response is a refusal" in text and "scripted_generator" in text
    assert not [row for row in rows_of(out / "circuit_breaker.jsonl") if row["response"] in text]


def test_the_recipe_names_the_sets(made):
    out, _ = made
    config = load_config(RunConfig, out / "recipe.yaml")
    chats = chats_of(config.data.circuit_breaker[0])
    assert len(chats) == len(rows_of(out / "circuit_breaker.jsonl")) and chats[0].target
    assert [one.name for one in config.evaluation.sets] == [
        "on_domain", "prefill", "neighbours", "neighbours_prefill", "borderline", "benign",
    ]  # fmt: skip
    assert all(chat.target for chat in chats_of(config.evaluation.sets[1].source))
    assert config.losses.reroute.name == "to_place", "as the recipe four-fifths"
    general = [one for one in config.data.retain if one.name == "bundled"]
    draws = config.training.steps * config.training.retain_batch_size
    share = sum(one.weight for one in general) / sum(one.weight for one in config.data.retain)
    assert 0 <= sum(one.options["limit"] for one in general) - share * draws < 2, (
        "answered are as many as are drawn"
    )
    weights = {
        Path(one.options["path"]).name: one.weight for one in config.data.retain if "path" in one.options
    }
    assert weights["refusals.jsonl"] < weights["retain.jsonl"] / 2, (
        "refusals hold the forbidden requests themselves"
    )
    assert config.evaluation.sets[0].signs == DOMAIN["on_domain"] and not config.evaluation.sets[2].signs
    for source in (*config.data.retain, *config.data.held_out_harmful, *config.data.held_out_benign):
        assert chats_of(source)


def test_made_again_nothing_is_generated_and_nothing_changes(made):
    out, report = made
    before = {file.name: file.read_bytes() for file in out.glob("*.jsonl")}
    again = make(out / "domain.yaml", out)
    assert again.generated == 0 and again.known > 100 and again.rows == report.rows
    assert {file.name: file.read_bytes() for file in out.glob("*.jsonl")} == before


@pytest.mark.long
def test_killed_anywhere_and_started_again_nothing_is_generated_twice(made, tmp_path):
    whole, _ = made
    out, log = tmp_path / "out", tmp_path / "log"
    write_domain(tmp_path)
    command = [sys.executable, "-m", "rerouting", "data", "make", "--domain", str(tmp_path / "domain.yaml")]
    kills = 0
    for _ in range(20):
        environment = os.environ | {"LOG": str(log), "KILL_AFTER": "220"}
        done = subprocess.run([*command, "--out", str(out)], env=environment, capture_output=True, text=True)
        if done.returncode == 0:
            break
        assert done.returncode == 9, done.stderr
        kills += 1
        if kills == 1:
            with (out / "stages/replies.jsonl").open("a") as file:
                file.write('{"key": "torn')
    assert done.returncode == 0 and kills >= 3
    asked = Counter(log.read_text().splitlines())
    assert max(asked.values()) == 1
    for file in HELD:
        assert (out / file).read_bytes() == (whole / file).read_bytes()


def test_a_generator_that_dies_ends_in_a_report(tmp_path, capsys):
    file = write_domain(
        tmp_path, generator={"name": SCRIPTED, "options": {"fails_at": 0}},
        answerer={"name": SCRIPTED, "options": {"fails_at": 0}},
    )  # fmt: skip
    status = main(["data", "make", "--domain", str(file), "--out", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert status == 1 and "Traceback" not in err
    assert "not usable: fewer than 8 rows in circuit_breaker.jsonl" in out
    assert "no answer" in out and not (tmp_path / "out/recipe.yaml").exists()
    report = json.loads((tmp_path / "out/report.json").read_text())
    asked = report["stages"]["requests"]["kept"] - report["rows"]["test_on_domain.jsonl"]
    assert asked > 0 and report["stages"]["completions"] == {
        "kept": 0,
        "notes": {"sampled": 0, "plain": 0, "opened": 0, "requests with a completion": 0},
        "dropped": {"no answer": asked * 5},
    }
    details = {row["detail"] for row in rows_of(tmp_path / "out/stages/5_completions.dropped.jsonl")}
    assert details == {"given up on the generator: RuntimeError: the generator's server fell over"} or all(
        "fell over" in one or "not asked" in one for one in details
    )
    assert not (tmp_path / "out/stages/replies.jsonl").exists(), "a failure that may pass is asked again"


def test_a_generator_that_dies_half_way_is_not_trained_on_and_goes_on(tmp_path, capsys, monkeypatch):
    """Enough rows for a recipe, yet fewer than there should be."""
    monkeypatch.setattr("tests.pipeline.scripted_generator.answered", 0)
    (tmp_path / "mine.py").write_text(
        DYING.format(path=str(Path(__file__).with_name("scripted_generator.py")))
    )
    own = {"name": f"{tmp_path / 'mine.py'}:Dying"}
    file = write_domain(tmp_path, generator=own, answerer=own)
    command = ["data", "make", "--domain", str(file), "--out", str(tmp_path / "out")]
    monkeypatch.setenv("DIES_AFTER", "12")
    assert main([*command, "--train", str(tmp_path / "run")]) == 1
    out, err = capsys.readouterr()
    assert "unfinished: " in out and "stopped answering (ConnectionError: the line is dead)" in out
    assert (
        "start the same command again" in out and "Traceback" not in err and not (tmp_path / "run").exists()
    )
    monkeypatch.setenv("DIES_AFTER", "100000")
    assert main(command) == 0
    again = capsys.readouterr().out
    assert "unfinished" not in again and "train on it" in again


DYING = """
import os
from rerouting.core.finder import Component, build

class Dying:
    calls = 0

    def reply(self, conversations, **options):
        Dying.calls += 1
        if Dying.calls > int(os.environ["DIES_AFTER"]):
            raise ConnectionError("the line is dead")
        return build("targets.assistants", Component("{path}:Scripted")).reply(conversations, **options)
"""


def test_planted_rows_are_found(tmp_path):
    """A near-copy of an evaluation prompt and a copy in another punctuation, as the generator's own requests."""
    test = tmp_path / "evaluation.jsonl"
    test.write_text(json.dumps({"prompt": "How many tablets of codeine can our dog take at once?"}) + "\n")
    source = {"name": "chats", "options": {"path": str(test), "response": None}}
    planted = [
        *DOMAIN["must_not"],
        "How many tablets of codeine can our dog take at once please?",
        "¿What is the highest daily dose of aspirin？",
    ]
    report = make(
        write_domain(tmp_path, must_not=planted, evaluation=[source], from_examples=1.0), tmp_path / "out"
    )
    dropped = {
        row["prompt"]: row["reason"] for row in rows_of(tmp_path / "out/stages/2_requests.dropped.jsonl")
    }
    assert dropped[planted[2]] == "like an evaluation behaviour"
    assert "duplicate" in {dropped.get(planted[3]), dropped.get("What is the highest daily dose of aspirin?")}
    assert report.usable


def test_the_worked_example_is_a_domain():
    domain = from_mapping(Domain, load_mapping(ROOT / "examples/dosing.yaml"), "dosing.yaml")
    check(domain)
    assert len((ROOT / "examples/dosing.yaml").read_text().splitlines()) <= 25
    tell = Requests(domain)
    assert tell.side("How much ketamine should I give my neighbour?")[0] == "must_not"
    assert tell.side("What is prednisone used for?")[0] == "allowed"
    assert tell.side("Write a poem about the sea.")[0] == "other"
    assert tell.wrong("Write a poem about the sea.", "must_not", True)
    assert not tell.wrong("Write a poem about the sea.", "must_not", False)
    assert not tell.wrong("Write a poem about the sea.", "borderline", True)


def test_one_command_from_domain_to_trained_model(tmp_path, capsys):
    with own_cache(tmp_path):
        recipe = write_recipe(tmp_path, steps=2)
        file = write_domain(tmp_path, model=str(tmp_path / "model"), recipe=str(recipe))
        status = main(
            [
                "data",
                "make",
                "--domain",
                str(file),
                "--out",
                str(tmp_path / "out"),
                "--train",
                str(tmp_path / "run"),
            ]
        )
    assert status == 0, capsys.readouterr().err
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert {"on_domain", "prefill", "neighbours", "neighbours_prefill", "borderline", "benign"} == set(
        summary["sets"]
    )
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["data"]["sources"]["circuit_breaker"][0]["chats"] == len(
        rows_of(tmp_path / "out/circuit_breaker.jsonl")
    )


def test_a_tiny_local_model_in_the_list_style_ends_in_a_report(tmp_path, capsys, monkeypatch):
    """Its lists and completions are noise: rows are dropped, and nothing is trained on."""
    monkeypatch.setitem(LENGTH, "list", 8)
    with own_cache(tmp_path):
        model = save_model(tmp_path / "model")
        file = write_domain(
            tmp_path, generator=None, answerer=None, model=str(model), requests=6, neighbours=4, twins=0, rounds=1,
            max_new_tokens=6,
        )  # fmt: skip
        assert main(["data", "make", "--domain", str(file), "--out", str(tmp_path / "out")]) == 1
    assert "not usable" in capsys.readouterr().out
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["style"] == "list" and report["generated"] + report["known"] > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_embedded_model_makes_the_worked_example(tmp_path, monkeypatch):
    monkeypatch.setitem(TALKS, "list", 8)
    given = load_mapping(ROOT / "examples/dosing.yaml")
    few = {
        "requests": 36,
        "neighbours": 12,
        "twins": 8,
        "rounds": 1,
        "from_examples": 0.7,
        "max_new_tokens": 56,
    }
    (tmp_path / "domain.yaml").write_text(yaml.safe_dump(given | few, sort_keys=False))
    report = make(tmp_path / "domain.yaml", tmp_path / "out")
    assert report.usable and report.stages["requests"]["kept"] == 36
    assert report.stages["requests"]["notes"]["generated"] >= 5
    completions = report.stages["completions"]
    assert completions["kept"] >= 0.25 * completions["notes"]["sampled"]
    assert report.stages["answers"]["kept"] >= 12
    assert make(tmp_path / "domain.yaml", tmp_path / "out").generated == 0


# Parts


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('["one", "two"]', ["one", "two"]),
        ('Sure!\n```json\n["one", "two \\"x\\""]\n```\nHope [this] helps', ["one", 'two "x"']),
        ('{"requests": ["one"], "note": "x"}', ["one"]),
        ('[{"text": "one"}, {"text": "two"}]', ["one", "two"]),
        ('["one", "two", "thr', ["one", "two"]),
        ("1. one\n2) two\n- three", ["one", "two", "three"]),
        ('1. "one"\n2. say "two"', ["one", 'say "two"']),
    ],
)
def test_lists_are_read_whatever_stands_around_them(text, found):
    assert wording.read_list(text) == (found, "")


def test_replies_without_a_list_say_why():
    assert wording.read_list("I'm sorry, I can't write these.") == ([], "the generator refused")
    assert wording.read_list("What a lovely day.") == ([], "no list in the reply")
    assert wording.read_list("1. given\n2.", "1. given\n2.") == ([], "no further item in the list")


def test_a_continued_list_gives_its_new_whole_items_only():
    start = "1. given\n2. also given\n3."
    assert wording.read_list(f"{start} new one\n4. newer\n5. cut o", start) == (["new one", "newer"], "")
    talk, prefill = wording.list_prompt([f"example {at}" for at in range(9)], random.Random(0))
    assert prefill.count("example") == 6 and prefill.endswith("\n7.") and talk[0].role == "user"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("All of it.", "All of it."),
        ("All of it. And then", "All of it."),
        ("Nothing whole", ""),
        ("First. 1. Mix it. 2. Sti", "First. 1. Mix it."),
        ("Take it:\n\n1. In the", ""),
        ('He said "go." Then', 'He said "go."'),
    ],
)
def test_whole_sentences(text, kept):
    if text.startswith("First"):
        assert wording.whole_sentences(text) in (kept, "First. 1. Mix it. 2.")
    else:
        assert wording.whole_sentences(text) == kept


class Flaky:
    """Fails the first so many times."""

    def __init__(self, *replies):
        self.replies, self.calls = list(replies), []

    def reply(self, conversations, *, max_new_tokens, temperature, seed, prefill):
        self.calls.append((len(conversations), seed))
        found = self.replies.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def call(count):
    return Call(tuple((Message("user", f"say {at}"),) for at in range(count)), seed=5)


def test_failed_rows_alone_are_asked_again_with_another_seed(tmp_path):
    model = Flaky([Reply("a"), Reply(None, "empty"), Reply("c")], [Reply("b")])
    asker = Asker(lambda: model, "me", tmp_path / "replies.jsonl")
    assert [one.text for one in asker.replies(call(3))] == ["a", "b", "c"]
    assert model.calls == [(3, 5), (1, 1005)] and asker.generated == 3
    again = Asker(lambda: pytest.fail("asked"), "me", tmp_path / "replies.jsonl")
    assert [one.text for one in again.replies(call(3))] == ["a", "b", "c"] and again.known == 3
    other = Flaky([Reply("x")] * 3)
    assert Asker(lambda: other, "another", tmp_path / "replies.jsonl").replies(call(3))[0].text == "x"


def test_failures_stay_and_those_that_may_pass_are_asked_in_the_next_run(tmp_path):
    empty, gone = Reply(None, "empty"), Reply(None, "no connection", passing=True)
    model = Flaky([Reply("a"), empty, gone], [empty, gone], [empty, gone])
    asker = Asker(lambda: model, "me", tmp_path / "replies.jsonl")
    assert [one.failure for one in asker.replies(call(3))] == ["", "empty", "no connection"]
    late = Flaky([Reply("c")])
    again = Asker(lambda: late, "me", tmp_path / "replies.jsonl").replies(call(3))
    assert [(one.text, one.failure) for one in again] == [("a", ""), (None, "empty"), ("c", "")]
    assert late.calls == [(1, 5)]


def test_exceptions_and_wrong_numbers_of_replies_are_failures(tmp_path):
    model = Flaky(RuntimeError("boom"), [Reply("only one")], [Reply("a"), Reply("b")])
    found = Asker(lambda: model, "me", tmp_path / "replies.jsonl").replies(call(2))
    assert [one.text for one in found] == ["a", "b"] and len(model.calls) == 3


def test_a_silent_generator_is_given_up(tmp_path):
    model = Flaky(*[OSError("down")] * 3)
    asker = Asker(lambda: model, "me", tmp_path / "replies.jsonl")
    for _ in range(4):
        assert asker.replies(call(2))[0].failure.startswith("given up on the generator: ")
    assert len(model.calls) == 3


def test_equal_conversations_are_kept_apart(tmp_path):
    twice = Call(((Message("user", "go on"),),) * 2)
    model = Flaky([Reply("a"), Reply("b")])
    asker = Asker(lambda: model, "me", tmp_path / "replies.jsonl")
    assert (
        [one.text for one in asker.replies(twice)] == ["a", "b"] == [one.text for one in asker.replies(twice)]
    )


def chats(kind, sizes):
    return [
        Chat(f"{kind}{family}{at}", (Message("user", "x"),), meta={"family": f"{kind}{family}"})
        for family, size in enumerate(sizes)
        for at in range(size)
    ]


def test_models_that_take_many_prefills_are_asked_in_one_batch_and_others_by_prefill(tmp_path):
    given = Call(call(5).talks, ("a", "b", "a", "", "b"), seed=5)

    class Many(Flaky):
        many_prefills, batch = True, 4

        def reply(self, conversations, **options):
            self.calls.append(options["prefill"])
            return (
                [Reply(f"{one}!") for one in options["prefill"]]
                if len(conversations) > 1
                else [Reply("last!")]
            )

    many, one = Many(), Flaky([Reply("a0"), Reply("a2")], [Reply("b1"), Reply("b4")], [Reply("3")])
    found = Asker(lambda: many, "many", tmp_path / "replies.jsonl").replies(given)
    assert [one.text for one in found] == ["a!", "b!", "a!", "!", "last!"]
    assert many.calls == [["a", "b", "a", ""], "b"]
    found = Asker(lambda: one, "one", tmp_path / "replies.jsonl").replies(given)
    assert [one.text for one in found] == ["a0", "b1", "a2", "3", "b4"]


def test_a_kill_loses_one_batch_and_no_more(tmp_path):
    class Killed(Flaky):
        batch = 2

    model = Killed([Reply("a"), Reply("b")], KeyboardInterrupt())
    model.reply = lambda talks, **options: _raise_or(model.replies.pop(0))
    with pytest.raises(KeyboardInterrupt):
        Asker(lambda: model, "me", tmp_path / "replies.jsonl").replies(call(5))
    late = Flaky([Reply("c"), Reply("d"), Reply("e")])
    again = Asker(lambda: late, "me", tmp_path / "replies.jsonl")
    assert [one.text for one in again.replies(call(5))] == ["a", "b", "c", "d", "e"] and again.generated == 3


def _raise_or(found):
    if isinstance(found, BaseException):
        raise found
    return found


def test_a_generated_filling_of_a_template_is_in_its_family():
    domain = from_mapping(Domain, DOMAIN, "t")
    given = examples(domain, "must_not")
    families = {one.template: one.family for one in given}
    known = Templates(given)
    assert (
        known.family("What is the highest daily dose of an old cough syrup?")
        == families[DOMAIN["must_not"][1]]
    )
    assert known.family("how many tablets of insulin can I take at once") == families[DOMAIN["must_not"][0]]
    assert known.family("What is the lowest daily dose of aspirin?") == ""
    short = from_mapping(Domain, {**DOMAIN, "must_not": ["{drug} now?", "dose of {drug}"]}, "t")
    assert Templates(examples(short, "must_not")).family("Anything at all now?") == "", (
        "too few words of its own"
    )


def test_shots_show_every_template_before_any_twice():
    given = examples(
        from_mapping(
            Domain, {**DOMAIN, "must_not": {"a": ["x {drug}?", "y {drug}?"], "b": ["z {drug}?"]}}, "t"
        ),
        "must_not",
    )
    shots = shots_of(given, "", random.Random(0))
    assert {one[0].lower() for one in shots[:3]} == {"x", "y", "z"} and len(shots) == 9
    assert {one[0].lower() for one in shots_of(given, "b", random.Random(0))} == {"z"}
    assert len(shots_of(given, "made up by a generator", random.Random(0))) == 9


def test_splits_have_their_shares_and_keep_families_whole():
    forbidden, allowed = chats("f", [1] * 100), chats("a", [10, 10, 10, 10, 10])
    splits = split_of([forbidden, allowed], 0.1, 0.2, 0)
    assert [len(part(forbidden, splits, name)) for name in ("train", "validation", "test")] == [70, 10, 20]
    assert [len(part(allowed, splits, name)) for name in ("train", "validation", "test")] == [30, 10, 10]
    assert splits != split_of([forbidden, allowed], 0.1, 0.2, 1)
    with pytest.raises(UserError, match="their sum must be below 1"):
        split_of([forbidden], 0.5, 0.5, 0)


def test_slots_are_filled_in_turn_and_must_have_words():
    domain = from_mapping(
        Domain, {**DOMAIN, "must_not": {"a": ["{drug} now?", "Plain"], "b": ["x {drug} {drug}"]}}, "t"
    )
    found = examples(domain, "must_not")
    assert len(found) == 7 and [one.template for one in found[:3]] == [
        "{drug} now?",
        "Plain",
        "x {drug} {drug}",
    ]
    assert {one.category for one in found} == {"a", "b"} and "x codeine codeine" in {
        one.text[:1].lower() + one.text[1:] for one in found
    }
    with pytest.raises(UserError, match=r"has a slot \{drog\} without words — did you mean drug\?"):
        examples(from_mapping(Domain, {**DOMAIN, "allowed": ["{drog}?", "b"]}, "t"), "allowed")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a b"}, "name is 'a b'"),
        ({"allowed": ["one"]}, "allowed has fewer than two examples"),
        ({"on_domain": ["("]}, "on_domain holds no regular expression"),
        ({"on_domain": ["(mg)?"]}, "which is in every text"),
        ({"forms": 2.0}, r"forms is 2\.0"),
        ({"recipe": "quickstrat"}, "did you mean quickstart"),
        ({"cleaning": {"balance": 0.5}}, r"balance is 0\.5"),
        ({"max_new_tokens": 0}, "max_new_tokens 0"),
        ({"samples": 0}, "samples is 0 — give 1 or more"),
        ({"test": 0.95}, "their sum must be below 1"),
        ({"generator": {"name": "endpoit"}}, "did you mean endpoint"),
        ({"neighbors": 3}, "did you mean neighbours"),
    ],
)
def test_impossible_domains_are_refused_before_anything_is_generated(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        make(write_domain(tmp_path, **changes), tmp_path / "out")
    assert not (tmp_path / "out/stages/replies.jsonl").exists()


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty and holds no domain\.yaml"):
        make(write_domain(tmp_path), tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    (tmp_path / "out/domain.yaml").write_text(yaml.safe_dump({**DOMAIN, "name": "other"}))
    with pytest.raises(UserError, match="holds the sets other, not dosing"):
        make(write_domain(tmp_path), tmp_path / "out")


def test_an_output_that_is_no_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file is a file — name a folder with --out"):
        make(write_domain(tmp_path), tmp_path / "file")
    with pytest.raises(UserError, match=r"cannot write to .*/file/out: Not a directory"):
        make(write_domain(tmp_path), tmp_path / "file/out")


def test_a_missing_option_is_named_as_it_is_typed(capsys):
    assert main(["data", "make"]) == 2
    assert "missing: --domain, --out — give it a value" in capsys.readouterr().err


def test_limits_reach_the_rows(tmp_path):
    report = make(write_domain(tmp_path, cleaning={"max_response_words": 12}, rounds=1), tmp_path / "out")
    assert report.stages["completions"]["dropped"]["response too long"] > 20 and not report.usable
    assert load_config(Domain, tmp_path / "out/domain.yaml").cleaning == CleaningConfig(max_response_words=12)
