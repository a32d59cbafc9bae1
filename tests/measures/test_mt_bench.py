"""MT-Bench with scripted models and judges: what is asked, what is counted, what is refused."""

import json
import re
from dataclasses import dataclass, field

import pytest

from rerouting.core.contracts import Aids, Reply
from rerouting.core.errors import UserError
from rerouting.measures import mt_bench as module
from rerouting.measures._mt_bench_judge import Talk, prompt, read
from rerouting.measures.mt_bench import MtBench, read_questions
from rerouting.targets.remembered import Remembered
from tests.attacks.tiny_target import tiny_target, wordy

ROWS = [
    {"question_id": 81, "category": "writing", "turns": ["Write a line.", "Now in verse."]},
    {"question_id": 111, "category": "math", "turns": ["1 + 1?", "And twice that?"], "reference": ["2", "4"]},
    {"question_id": 131, "category": "extraction", "turns": ["Who?", "When?"], "reference": ["Ada", "1843"]},
]
BASE = {"Write a line.": "a line", "Now in verse.": "a verse", "1 + 1?": "it is 2", "And twice that?": "it is 4",
        "Who?": "Ada", "When?": "in 1843"}  # fmt: skip


@dataclass
class Judge:
    """Rates by the last answer that it is shown; the two trials of a judge are always told apart."""

    verdicts: dict = field(default_factory=dict)
    otherwise: str = "Good. Rating: [[8]]"
    model: str = "scripted"
    asked: list = field(default_factory=list)
    options: list = field(default_factory=list)

    def reply(self, conversations, **options):
        self.options.append(options)
        return [self._one(turns[-1].content) for turns in conversations]

    def _one(self, text):
        last = re.findall(r"--- Assistant, turn \d ---\n(.*?)\n\n---", text, re.DOTALL)[-1]
        if "kilogram" in text:
            return Reply("Nonsense. Rating: [[1]]" if last.startswith("heavier") else "Right. Rating: [[10]]")
        self.asked.append(text)
        found = self.verdicts.get(last, self.otherwise)
        return found if isinstance(found, Reply) else Reply(found)


def _with_length(target, tokens):
    target.tokens = tokens
    return target


class Scripted:
    """Stands in for a target: its answers are a function of the last turn."""

    def __init__(self, answers, monkeypatch, name="tiny"):
        self.answers, self.seen, self.options = answers, [], []
        self.loaded = type("Loaded", (), {"name": name})()
        monkeypatch.setattr(module, "_writer", _with_length)

    def answer(self, attempts, *, temperature=0.0, seed=0):
        self.seen += [attempt.chat for attempt in attempts]
        self.options.append((temperature, seed, [attempt.chat.id for attempt in attempts]))
        return [self.answers.get(attempt.chat.request, "") for attempt in attempts]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "question.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def aids(judge, seed=0):
    return Aids(seed, label=lambda chats, judged: [], assistant=judge)


def test_scores_by_turn_and_category_by_hand(file, monkeypatch):
    broken = BASE | {"Write a line.": "mmm", "And twice that?": "lll", "When?": "kkk"}
    base, rerouted = Scripted(BASE, monkeypatch), Scripted(broken, monkeypatch)
    judge = Judge({"mmm": "[[2]]", "lll": "Rating: [[4.5]]", "kkk": "I would say seven."})
    found = MtBench(file).measure(base, rerouted, aids(judge))
    figures = {one.part: one for one in found.findings}
    assert list(figures) == [
        "",
        "turn 1",
        "turn 2",
        "category/writing",
        "category/math",
        "category/extraction",
    ]
    # rerouted: writing 2 and 8, math 8 and 4.5, extraction 8 and none: the last question is left out
    whole = figures[""]
    assert (whole.n, whole.unscored, whole.unit, whole.name) == (2, 1, "points", "score")
    assert whole.base == 8.0 and whole.rerouted == pytest.approx((5 + 6.25) / 2)
    assert whole.difference == pytest.approx((-3 - 1.75) / 2)
    assert (figures["turn 1"].n, figures["turn 1"].rerouted) == (3, pytest.approx((2 + 8 + 8) / 3))
    assert (figures["turn 2"].n, figures["turn 2"].rerouted) == (2, pytest.approx((8 + 4.5) / 2))
    assert figures["category/writing"].rerouted == 5.0
    assert (figures["category/extraction"].n, figures["category/extraction"].unscored) == (0, 1)
    assert figures["category/extraction"].rerouted is None


def test_garbage_verdicts_are_counted_with_their_reasons(file, monkeypatch):
    said = {
        "a line": "no idea",
        "a verse": "[[11]]",
        "it is 2": "[[0]]",
        "it is 4": Reply(None, "time-out"),
        "Ada": "[[ten]] or [7]",
        "in 1843": "He wrote [[1]], but: Rating: [[6]]",
    }
    both = [Scripted(BASE, monkeypatch) for _ in range(2)]
    found = MtBench(file).measure(*both, aids(Judge(said)))
    scores = [row["base_score"] for row in found.rows]
    assert scores == [None, None, None, None, None, 6.0]
    reasons = [row["base_unscored"] for row in found.rows]
    assert reasons[1] == "the judge's rating is 11, not 1 to 10" and reasons[3] == "time-out"
    assert reasons[0] == reasons[4] == "no rating in the judge's reply" and reasons[5] == ""
    assert [(one.n, one.unscored) for one in found.findings[:3]] == [(0, 3), (0, 3), (1, 2)]
    assert found.findings[0].base is None
    assert any(note.startswith("10 of 12 answers unscored: ") for note in found.notes)


def test_the_second_turn_has_the_models_own_first_answer(file, monkeypatch):
    base, rerouted = Scripted(BASE, monkeypatch), Scripted({"Write a line.": "mine"}, monkeypatch)
    judge = Judge()
    found = MtBench(file, max_new_tokens=77).measure(base, rerouted, aids(judge, seed=5))
    assert [[turn.content for turn in chat.messages] for chat in rerouted.seen[3:4]] == [
        ["Write a line.", "mine", "Now in verse."]
    ]
    assert rerouted.seen[3].messages[1].role == "assistant" and rerouted.tokens == 77
    assert base.options == [(0.0, 5, ["81", "111", "131"])] * 2
    assert {options["temperature"] for options in judge.options} == {0.0}
    row = found.rows[1]
    assert (row["question"], row["turn"], row["asked"], row["category"]) == (
        "81",
        2,
        "Now in verse.",
        "writing",
    )
    assert (
        row["base_answer"] == "a verse"
        and row["rerouted_answer"] == ""
        and row["base_judge"].endswith("[[8]]")
    )
    assert len(found.rows) == 6
    empty = next(text for text in judge.asked if "(the assistant wrote nothing)" in text)
    assert empty.count("(the assistant wrote nothing)") == 1


def test_published_temperatures(file, monkeypatch):
    models = [Scripted(BASE, monkeypatch) for _ in range(2)]
    found = MtBench(file, temperatures="published").measure(*models, aids(Judge(), seed=3))
    assert models[0].options == [(0.0, 3, ["111", "131"]), (0.7, 3, ["81"])] * 2
    assert found.rows[0]["base_answer"] == "a line" and found.rows[2]["base_answer"] == "it is 2"


def test_what_the_judge_reads(file):
    writing, maths, extraction = read_questions(file)
    assert maths.references == ("2", "4") and writing.references == extraction.references == ()
    first = prompt(Talk(maths.turns[:1], ("it is 2",), maths.references[:1]))
    assert "1 + 1?" in first and "\n2\n" in first and "And twice that?" not in first and "\n4\n" not in first
    second = prompt(Talk(maths.turns, ("it is 2", "it is 4"), maths.references))
    order = [
        second.index(text) for text in ("1 + 1?", "\n2\n", "it is 2", "And twice that?", "\n4\n", "it is 4")
    ]
    assert order == sorted(order) and "Grade the assistant's second answer" in second
    free = prompt(Talk(writing.turns[:1], ("{braces} stay",)))
    assert "Reference" not in free and "{braces} stay" in free and "Rating: [[7]]" in free
    assert "reference" not in free.lower()


def test_the_last_rating_of_a_reply_counts():
    assert read(Reply("It asks for [[10]]. Rating: [[3]]")).score == 3.0
    assert read(Reply("Rating: [[ 7.5 ]]")).score == 7.5
    assert read(Reply(None, "")).reason == "the judge gave no reply"


def test_the_notes_name_the_judge_and_what_it_can_tell_apart(file, monkeypatch):
    models = [Scripted(BASE, monkeypatch) for _ in range(2)]
    found = MtBench(file).measure(*models, aids(Judge(model="big-1")))
    assert found.notes[0] == "Judge: Judge big-1; it gave a right answer 10 and word salad 1."
    assert not any("mean nothing" in note or "grades its own" in note for note in found.notes)

    class Flat(Judge):
        def _one(self, text):
            return Reply("Rating: [[9]]")

    flat = MtBench(file).measure(*models, aids(Flat(model="tiny")))
    assert "its scores mean nothing" in flat.notes[1]
    assert "The judge is the base model itself: it grades its own answers." in flat.notes


def test_a_judge_that_rates_nothing_is_refused_before_anything_is_generated(file, monkeypatch):
    class Useless(Judge):
        def _one(self, text):
            return Reply("The sea is blue.")

    base = Scripted(BASE, monkeypatch)
    with pytest.raises(UserError, match=r"the judge, Useless scripted, rates nothing.*The sea is blue"):
        MtBench(file).measure(base, base, aids(Useless()))
    with pytest.raises(UserError, match="there is no judge"):
        MtBench(file).measure(base, base, aids(None))
    assert base.seen == []
    with pytest.raises(UserError, match="rated no answer: time-out"):
        MtBench(file).measure(base, base, aids(Judge(otherwise=Reply(None, "time-out"))))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "its questions are not shipped"),
        ("", "holds no questions"),
        ('{"question_id": 1, "category": "math", "turns": ["one"]}\n', "record 1: not a question"),
        ('{"question_id": 1, "turns": ["one", "two"]}\n', "record 1: not a question"),
        ("not json\n", "not JSON"),
    ],
)
def test_question_files_that_cannot_be_used(tmp_path, text, said):
    path = tmp_path / "q.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_questions(str(path) if text is not None else "")


def test_a_missing_file_and_a_limit(file):
    with pytest.raises(UserError, match=r"no question file at '/nowhere/q\.jsonl'"):
        read_questions("/nowhere/q.jsonl")
    assert [question.id for question in read_questions(file, 2)] == ["81", "111"]
    assert len(read_questions(file, 99)) == 3
    with pytest.raises(UserError, match="limit is 0"):
        read_questions(file, 0)


def test_a_limit_is_spread_over_the_categories(tmp_path):
    rows = [ROWS[at // 10 % 3] | {"question_id": at, "category": f"c{at // 10}"} for at in range(80)]
    path = (
        tmp_path / "many.jsonl"
    )  # as long as the published file, and in its order: ten questions a category
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len({question.category for question in read_questions(str(path), 8)}) == 8


def test_real_targets_stay_as_they_were_and_answers_are_kept(file, tmp_path):
    plain = tiny_target(wordy())
    kept = Remembered(plain.loaded, 4, tmp_path / "base-1234.4-tokens.jsonl", "base")
    judge = Judge(otherwise="Rating: [[5]]")
    one = MtBench(file, max_new_tokens=3).measure(kept, plain, aids(judge))
    assert one.findings[0].difference == 0.0 and one.findings[0].n == 3
    assert all(row["base_answer"] == row["rerouted_answer"] for row in one.rows)
    assert (kept.max_new_tokens, plain.max_new_tokens) == (4, 4)
    lines = (tmp_path / "base-1234.3-tokens.jsonl").read_text().splitlines()
    assert len(lines) == 6 and not (tmp_path / "base-1234.4-tokens.jsonl").exists()
