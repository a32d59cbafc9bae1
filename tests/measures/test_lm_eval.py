"""The harness run for real on tiny random models, with tasks of our own and no network."""

import copy
import logging
import socket
import sys
from dataclasses import replace
from pathlib import Path

import lm_eval.tasks
import pytest
import torch

from rerouting.core.contracts import Aids
from rerouting.core.errors import UserError
from rerouting.core.files import read_jsonl
from rerouting.core.finder import Component, build
from rerouting.core.findings import Finding
from rerouting.data.filtering import sentence_bleu
from rerouting.measures import _harness, _short_facts
from rerouting.measures import lm_eval as module
from rerouting.measures._mean_of_tasks import mean_of_tasks
from rerouting.measures.lm_eval import HarnessTask, LmEval
from tests.attacks.tiny_target import tiny_target, wordy

TASKS = str(Path(__file__).parent / "tasks")
AIDS = Aids(0, label=lambda chats, judged: [], assistant=None)


@pytest.fixture(autouse=True)
def no_network_and_a_small_index(monkeypatch, tmp_path):
    """Any connection fails the test; reading the harness's fourteen thousand task files would take its time."""

    def refused(*_, **__):
        raise AssertionError("the measure reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    whole = lm_eval.tasks.TaskManager
    monkeypatch.setattr(
        lm_eval.tasks,
        "TaskManager",
        lambda include_path=None, include_defaults=True: whole(
            include_path=include_path, include_defaults=False
        ),
    )


def pair():
    """A random model, and one with other weights in its last block."""
    base = tiny_target(wordy())
    model = copy.deepcopy(base.model)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(-2.0)
    return base, tiny_target(base.tokenizer, model)


def measured(tasks, base=None, rerouted=None, aids=AIDS, **options):
    one, two = pair()
    return LmEval(tasks, include_path=TASKS, **options).measure(base or one, rerouted or two, aids)


def likelihood(target, context, choice):
    """Of a choice after a context, in nats; the context's last blanks are the choice's, as the harness has it."""
    tokenizer = target.tokenizer
    before = tokenizer(context.rstrip(), add_special_tokens=False)["input_ids"]
    ids = tokenizer(context + choice, add_special_tokens=False)["input_ids"]
    assert ids[: len(before)] == before
    logits = target.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(logits[at - 1, ids[at]]) for at in range(len(before), len(ids)))


def test_choices_have_the_likelihoods_and_scores_of_our_own_computation():
    base, rerouted = pair()
    found = measured({"tiny_colours": HarnessTask(shots=0)}, base, rerouted)
    documents = read_jsonl(Path(TASKS) / "colours.jsonl")
    assert len(found.rows) == len(documents) == 5
    for row, document in zip(found.rows, documents, strict=True):
        turns = [{"role": "user", "content": document["question"]}]
        context = base.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        for name, target in (("base", base), ("rerouted", rerouted)):
            own = [likelihood(target, context, choice) for choice in document["choices"]]
            assert row[f"{name}_said"] == pytest.approx(own, abs=1e-4)
            best = max(range(3), key=lambda at: own[at])
            by_length = [value / len(text) for value, text in zip(own, document["choices"], strict=True)]
            best_by_length = max(range(3), key=lambda at: by_length[at])
            right = document["answer"]
            assert row[name] == {"acc": best == right, "acc_norm": best_by_length == right}
    pairs = [(row["base"]["acc"] == 1, row["rerouted"]["acc"] == 1) for row in found.rows]
    assert found.findings[0] == Finding.of_rates("acc", pairs, "tiny_colours")
    assert any(row["base_said"] != row["rerouted_said"] for row in found.rows)


def test_examples_are_earlier_turns_and_the_same_for_both_models(monkeypatch):
    base, rerouted = pair()
    rendered = []
    whole = base.tokenizer.apply_chat_template

    def spy(turns, **options):
        rendered.append([(turn["role"], turn["content"]) for turn in turns])
        return whole(turns, **options)

    monkeypatch.setattr(base.tokenizer, "apply_chat_template", spy)
    measured({"tiny_colours": HarnessTask(shots=2)}, base, rerouted)
    half = len(rendered) // 2
    assert half == 5 and rendered[:half] == rendered[half:]
    for turns in rendered:
        assert [role for role, _ in turns] == ["user", "assistant"] * 2 + ["user"]
        assert turns[-1] not in turns[:-1], "the question is not among its own examples"


def test_the_seed_decides_and_nothing_is_left_changed():
    base, rerouted = pair()
    base.tokenizer.padding_side = "right"
    weights = copy.deepcopy(rerouted.model.state_dict())
    log = logging.getLogger("lm_eval")
    before = (log.level, log.propagate, list(log.handlers))
    tasks = {"tiny_colours": HarnessTask(1), "tiny_echo": HarnessTask()}
    one, two = (measured(tasks, base, rerouted) for _ in range(2))
    assert one == two
    other = measured(tasks, base, rerouted, Aids(1, AIDS.label, None))
    assert [row["prompt"] for row in other.rows] != [row["prompt"] for row in one.rows]
    assert (log.level, log.propagate, list(log.handlers)) == before
    assert base.tokenizer.padding_side == "right" and not rerouted.model.training
    assert all(torch.equal(weights[name], value) for name, value in rerouted.model.state_dict().items())


def test_answers_under_each_filter_and_the_mean_over_tasks(capsys):
    found = measured({"tiny_echo": HarnessTask(metric="exact_match"), "tiny_colours": HarnessTask()})
    names = [(one.name, one.part) for one in found.findings]
    assert names == [
        ("exact_match,whole", "tiny_echo"),
        ("exact_match,digits", "tiny_echo"),
        ("acc", "tiny_colours"),
        ("acc_norm", "tiny_colours"),
        ("mean over tasks", ""),
    ]
    whole, _, acc, _, mean = found.findings
    assert mean.base == pytest.approx((whole.base + acc.base) / 2) and mean.n == 2
    assert isinstance(found.rows[0]["base_said"][0], str)
    shown = capsys.readouterr()
    assert shown.out == shown.err == "", "the harness is kept quiet"


def test_the_mean_over_tasks_by_hand():
    one = Finding("acc", "a", "share", 9, 0.5, 0.2, (0.3, 0.6), (0.1, 0.4), -0.3, (-0.7, -0.3), unscored=1)
    two = Finding("acc", "b", "share", 4, 0.9, 1.0, (0.6, 1.0), (1.0, 1.0), 0.1, (-0.2, 0.4), unscored=2)
    (mean,) = mean_of_tasks([one, two])
    assert (mean.n, mean.base, mean.rerouted, mean.unscored) == (2, pytest.approx(0.7), pytest.approx(0.6), 3)
    assert mean.difference == pytest.approx(-0.1)
    # distances down 0.4 and 0.3, together 0.5; up 0 and 0.3, together 0.3; halved
    assert mean.interval == pytest.approx((-0.1 - 0.25, -0.1 + 0.15))
    assert mean_of_tasks([one]) == []
    assert mean_of_tasks([one, replace(two, unit="score")]) == []
    assert mean_of_tasks([one, Finding("acc", "b", "share", 0, None, None)]) == []
    assert mean_of_tasks([one, replace(two, interval=None)])[0].interval is None
    same = [Finding.of_rates("acc", [(True, True)] * 20, part) for part in "ab"]
    assert mean_of_tasks(same)[0].interval[1] > 0.05, "no difference seen is not certainty"


def test_a_group_is_one_score_over_all_documents():
    found = measured({"tiny_group": HarnessTask(metric="acc")})
    (acc,) = found.findings
    assert (acc.part, acc.n) == ("tiny_group", 7)
    assert [row["subtask"] for row in found.rows] == ["tiny_colours"] * 5 + ["tiny_greetings"] * 2
    assert acc.base == pytest.approx(sum(row["base"]["acc"] for row in found.rows) / 7)
    assert measured({"tiny_group": HarnessTask(metric="acc")}, limit=1).findings[0].n == 2


def test_an_aggregate_that_is_no_mean_has_no_interval():
    found = measured({"tiny_text": HarnessTask()})
    (one,) = found.findings
    base, _ = pair()
    texts = [row["question"] for row in read_jsonl(Path(TASKS) / "echo.jsonl")]
    nats = -sum(likelihood(base, base.tokenizer.bos_token, text) for text in texts)
    assert one.base == pytest.approx(torch.tensor(nats / sum(map(len, texts))).exp().item(), rel=1e-4)
    assert one.interval is None and one.difference == pytest.approx(one.rerouted - one.base)


def test_likelihoods_that_are_no_numbers_are_unscored():
    base, rerouted = pair()
    with torch.no_grad():
        rerouted.model.lm_head.weight.fill_(float("nan"))
    found = measured({"tiny_colours": HarnessTask()}, base, rerouted)
    assert (found.findings[0].n, found.findings[0].unscored, found.findings[0].rerouted) == (0, 5, None)
    assert found.rows[0]["rerouted_said"] == [None] * 3 and found.rows[0]["rerouted"] == {}


def test_prompts_that_are_longer_than_the_context_are_counted():
    base, _ = pair()
    base.model.config.max_position_embeddings = 24
    found = measured({"tiny_colours": HarnessTask(3)}, base, base)
    (note,) = [note for note in found.notes if "longer" in note]
    assert note.startswith("tiny_colours: ") and int(note.split()[1]) >= 5


def test_memory_that_runs_out_halves_the_batch(monkeypatch):
    whole, tried = _harness._evaluate, []

    def small(leaf, target, asking):
        tried.append(asking.batch)
        if asking.batch > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(leaf, target, asking)

    monkeypatch.setattr(_harness, "_evaluate", small)
    assert measured({"tiny_colours": HarnessTask()}).findings[0].n == 5
    assert tried == [8, 4, 2, 2]


def test_a_chat_model_without_its_template_is_refused_unless_asked_for():
    base, rerouted = pair()
    with pytest.raises(
        UserError, match=r"chat_template is false, and tiny is a chat model.*without_template"
    ):
        measured({"tiny_colours": HarnessTask()}, base, rerouted, chat_template=False)
    plain = measured(
        {"tiny_colours": HarnessTask(0)}, base, rerouted, chat_template=False, without_template=True
    )
    assert plain.notes[0].startswith("No chat template was applied to a chat model")
    document = read_jsonl(Path(TASKS) / "colours.jsonl")[0]
    own = [likelihood(base, document["question"], " " + choice) for choice in document["choices"]]
    assert plain.rows[0]["base_said"] == pytest.approx(own, abs=1e-4)
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(UserError, match="different chat templates"):
        measured({"tiny_colours": HarnessTask()}, base, tiny_target(tokenizer, rerouted.model))


def test_a_model_that_is_no_chat_model_needs_no_template():
    base, _ = pair()
    base.tokenizer.chat_template = None
    found = measured({"tiny_colours": HarnessTask()}, base, base)
    assert found.notes[0] == "No chat template was applied: the tokenizer has none."


def write(folder, text):
    (folder / "task.yaml").write_text(text)
    return str(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dataset_path: nobody/nothing\n", r"is on the hub, which cannot be reached.*short_facts"),
        ("custom_dataset: !function broken.load\n", "cannot be loaded"),
        ("dataset_path: json\ndataset_kwargs: {data_files: {test: none.jsonl}}\n", "cannot be loaded"),
    ],
)
def test_tasks_that_cannot_be_loaded(tmp_path, text, said):
    folder = write(tmp_path, f"task: odd\noutput_type: generate_until\ntest_split: test\n{text}")
    with pytest.raises(UserError, match=said):
        LmEval({"odd": HarnessTask()}, include_path=folder).measure(*pair(), AIDS)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("unsafe_code: true\n", "runs code that the model wrote"),
        ("generation_kwargs: {max_gen_toks: 99999}\n", "the harness failed on odd: AssertionError"),
    ],
)
def test_tasks_that_cannot_be_run(tmp_path, more, said):
    (tmp_path / "some.jsonl").write_text('{"q": "one", "a": "two"}\n')
    text = (
        "task: odd\ndataset_path: json\ndataset_kwargs: {data_files: {test: some.jsonl}}\ntest_split: test\n"
    )
    folder = write(tmp_path, f"{text}doc_to_text: q\ndoc_to_target: a\noutput_type: generate_until\n{more}")
    with pytest.raises(UserError, match=said):
        LmEval({"odd": HarnessTask()}, include_path=folder).measure(*pair(), AIDS)


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ({"tiny_colour": {}}, r"unknown task 'tiny_colour' — did you mean tiny_colours\?"),
        ({"tiny_colours": {"metric": "f1"}}, "tiny_colours has no metric 'f1' — allowed: acc, acc_norm"),
        ({"tiny_echo": {"shots": 5}}, "tiny_echo is fixed at 0 shots by its own file, 5 were asked for"),
        ({"tiny_colours": {"shot": 5}}, "unknown key tasks.tiny_colours.shot"),
    ],
)
def test_mistakes_are_caught_before_a_model_works(tasks, said, monkeypatch):
    monkeypatch.setattr(_harness, "answer", None)
    with pytest.raises(UserError, match=said):
        build("measures", Component("lm_eval", {"tasks": tasks, "include_path": TASKS})).measure(
            *pair(), AIDS
        )


def test_impossible_options():
    with pytest.raises(UserError, match="there is no folder /nowhere"):
        LmEval({"tiny_colours": HarnessTask()}, include_path="/nowhere").measure(*pair(), AIDS)
    for options in ({"limit": 0}, {"batch": 0}):
        with pytest.raises(UserError, match="give positive numbers"):
            LmEval(**options)


def test_not_installed_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "lm_eval")
    monkeypatch.setattr(_harness, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'rerouting\[capability\]'"):
        LmEval()


def test_the_default_is_the_papers_six_or_offline_the_bundled_questions(monkeypatch):
    asked = []

    def stop(names, include_path):
        asked.extend(names)
        raise UserError("stop")

    monkeypatch.setattr(_harness, "load_tasks", stop)
    monkeypatch.setattr(module, "_offline", lambda: False)
    with pytest.raises(UserError, match="stop"):
        LmEval().measure(*pair(), AIDS)
    assert asked == ["arc_challenge", "hellaswag", "truthfulqa_mc2", "mmlu", "winogrande", "gsm8k"]
    assert [task.shots for task in module.OPEN_LLM.values()] == [25, 10, 0, 5, 5, 5]
    monkeypatch.undo()
    found = LmEval().measure(*pair(), AIDS)
    assert [(one.name, one.part, one.n) for one in found.findings] == [("acc", "short_facts", 60)]
    assert found.notes[1].startswith("No network, so the Open LLM tasks were not run. short_facts: 60 own")


def test_the_bundled_questions():
    rows = read_jsonl(_short_facts.FILE)
    questions = [row for row in rows if row["split"] == "test"]
    assert len(questions) == 60 and len(rows) == 64
    assert len({row["question"] for row in rows}) == len({row["id"] for row in rows}) == 64
    assert all(len(set(row["choices"])) == 4 for row in rows)
    assert [sum(row["answer"] == place for row in questions) for place in range(4)] == [15] * 4
    trained_on = [
        chat.request
        for kind in ("benign", "borderline")
        for chat in build("data.sources", Component("bundled", {"kind": kind, "split": "train"})).load()
    ]
    copies = [row["question"] for row in questions if row["question"] in trained_on]
    assert len(trained_on) > 500 and copies == []
    likeness = {
        (row["question"], other): sentence_bleu(row["question"], other)
        for row in questions
        for other in trained_on
    }
    worst = max(likeness, key=likeness.__getitem__)
    assert likeness[worst] < 0.75, worst
