import ast
import csv
import itertools
import json
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

import rerouting.data.sources
from rerouting.core.errors import UserError
from rerouting.core.finder import Component, available, build
from rerouting.core.records import Message
from rerouting.data.sources import bundled as bundled_module
from rerouting.data.sources.advbench import Advbench
from rerouting.data.sources.bundled import Bundled
from rerouting.data.sources.chats import Chats
from rerouting.data.sources.circuit_breakers import CircuitBreakers
from rerouting.data.sources.documents import Documents
from rerouting.data.sources.harmbench import Harmbench
from rerouting.data.sources.jailbreakbench import Jailbreakbench
from rerouting.data.sources.lmsys import Lmsys
from rerouting.data.sources.or_bench import OrBench
from rerouting.data.sources.refused import Refused
from rerouting.data.sources.strongreject import Strongreject
from rerouting.data.sources.ultrachat import Ultrachat
from rerouting.data.sources.wildchat import Wildchat
from rerouting.data.sources.xstest import Xstest

FOLDER = Path(rerouting.data.sources.__file__).parent
FILES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def write_csv(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def test_how_many_sources_there_are():
    assert len(FILES) == 23


@pytest.mark.parametrize("name", FILES)
def test_every_source_is_a_frozen_dataclass_with_documented_fields_and_load(name):
    cls = getattr(
        import_module(f"rerouting.data.sources.{name}"), "".join(part.title() for part in name.split("_"))
    )
    assert is_dataclass(cls) and cls.__dataclass_params__.frozen and callable(cls.load)
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    body = next(
        node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__
    )
    documented = {
        before.target.id
        for before, after in itertools.pairwise(body)
        if isinstance(before, ast.AnnAssign)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }
    assert documented == {field.name for field in fields(cls)}


def test_circuit_breakers(tmp_path):
    rows = [
        {"prompt": f"p{at}", "output": f"harm {at}", "llama3_output": f"I cannot {at}"} for at in range(9)
    ]
    path = write(tmp_path / "train.json", rows)
    harmful = CircuitBreakers(path).load()
    assert (len(harmful), harmful[2].request, harmful[2].response) == (9, "p2", "harm 2")
    assert harmful[2].id == "circuit_breakers-2"
    refusals = CircuitBreakers(path, field="llama3_output", limit=4, shuffle_seed=0, repeat=2).load()
    assert len(refusals) == 8 and refusals[:4] == refusals[4:] and len({item.id for item in refusals}) == 4
    assert all(item.response == f"I cannot {item.request[1:]}" for item in refusals)
    rows[3]["output"] = 7
    with pytest.raises(UserError, match=r"train.json, record 4: 'output' is of type int, not text"):
        CircuitBreakers(write(tmp_path / "train.json", rows)).load()
    del rows[3]["output"]
    with pytest.raises(UserError, match=r"record 4: no column 'output' .* there are: prompt, llama3_output"):
        CircuitBreakers(write(tmp_path / "train.json", rows)).load()


def turns(*texts):
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


def test_ultrachat(tmp_path):
    rows = [
        {"prompt": "q1", "prompt_id": "abc", "messages": turns("q1", "a1", "q2", "a2")},
        {"prompt": "q", "prompt_id": "short", "messages": turns("q")},
        {"prompt": "q3", "prompt_id": "def", "messages": turns("q3", "a3", "q4")},
        {"prompt": "q5", "prompt_id": "ghi", "messages": turns("q5", "a5")},
    ]
    path = write(tmp_path / "chat.jsonl", "\n".join(map(json.dumps, rows)))
    chats = Ultrachat(path, limit=2).load()
    assert [item.id for item in chats] == ["ultrachat-abc", "ultrachat-def"]
    assert (chats[0].request, chats[0].response, len(chats[0].messages)) == ("q2", "a2", 3)
    assert chats[0].meta == {"first_response": "a1"}
    assert (chats[1].request, chats[1].response) == ("q3", "a3")
    first = Ultrachat(path, turns="first", limit=None).load()
    assert [(item.request, item.response) for item in first] == [("q1", "a1"), ("q3", "a3"), ("q5", "a5")]
    rows[0]["messages"][1]["role"] = "robot"
    with pytest.raises(UserError, match=r"line 1, turn 2: role 'robot' is unknown"):
        Ultrachat(write(tmp_path / "chat.jsonl", json.dumps(rows[0]))).load()
    with pytest.raises(UserError, match=r"line 1: no column 'messages'"):
        Ultrachat(write(tmp_path / "chat.jsonl", '{"prompt": "a"}')).load()


def test_ultrachat_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"prompt_id": ["x", "y"], "messages": [turns("a", "b"), turns("c", "d", "e", "f")]})
    pyarrow.parquet.write_table(table, tmp_path / "test_sft.parquet")
    chats = Ultrachat(str(tmp_path / "test_sft.parquet")).load()
    assert [(item.request, item.response) for item in chats] == [("a", "b"), ("e", "f")]


XSTEST_COLUMNS = ["id", "type", "prompt", "completion", "annotation_1", "annotation_2"]
XSTEST_COLUMNS += ["agreement", "final_label", "gpt4_label"]


def test_xstest(tmp_path):
    def row(name, label):
        return [
            name,
            "homonyms",
            "How do I kill\na process?",
            "Use `kill`.",
            label,
            label,
            "True",
            label,
            label,
        ]

    content = [
        row("v2-1", "1_full_compliance"),
        row("v2-2", "2_full_refusal"),
        row("v2-3", "1_full_compliance"),
    ]
    path = write_csv(tmp_path / "x.csv", XSTEST_COLUMNS, content)
    chats = Xstest(path, repeat=3).load()
    assert [item.id for item in chats] == ["xstest-v2-1", "xstest-v2-3"] * 3
    assert (chats[0].request, chats[0].response, chats[0].category) == (
        "How do I kill\na process?",
        "Use `kill`.",
        "homonyms",
    )
    assert len(Xstest(path, label=None).load()) == 3
    with pytest.raises(UserError, match="no unsafe request"):
        Xstest(path, label=None, only="unsafe").load()
    prompts = write_csv(
        tmp_path / "p.csv", ["id", "type", "prompt"], [["1", "homonyms", "a"], ["2", "contrast_x", "b"]]
    )
    assert [(item.request, item.response) for item in Xstest(prompts, label=None, only="safe").load()] == [
        ("a", None)
    ]
    assert [item.request for item in Xstest(prompts, label=None, only="unsafe").load()] == ["b"]
    with pytest.raises(UserError, match=r"label '3_partial.*one of: 1_full_compliance, 2_full_refusal"):
        Xstest(path, label="3_partial_refusal").load()


def test_advbench(tmp_path):
    path = write_csv(tmp_path / "a.csv", ["goal", "target"], [["Do it", "Sure, here is it"], ["Go", "Sure"]])
    chats = Advbench(path, limit=1).load()
    assert [(item.request, item.target, item.response) for item in chats] == [
        ("Do it", "Sure, here is it", None)
    ]


def test_harmbench_csv(tmp_path):
    header = ["Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString", "BehaviorID"]
    rows = [
        ["Do harm", "standard", "illegal", "", "", "harm"],
        ["Sing it", "copyright", "copyright", "lyrics, hash_check", "", "song"],
        ["Given this, harm", "contextual", "illegal", "context", "1. Name: G", "ctx"],
    ]
    path = write_csv(tmp_path / "b.csv", header, rows)
    chats = Harmbench(path).load()
    assert [item.id for item in chats] == ["harm", "ctx"]
    assert [item.request for item in chats] == ["Do harm", "1. Name: G\n\n---\n\nGiven this, harm"]
    assert chats[1].meta == {
        "behaviour": "Given this, harm",
        "context": "1. Name: G",
        "functional": "contextual",
    }
    assert [item.id for item in Harmbench(path, functional=("copyright",)).load()] == ["song"]
    targets = write(tmp_path / "targets.json", {"harm": "Sure, here", "song": "La la"})
    assert [item.target for item in Harmbench(path, targets=str(targets)).load()] == ["Sure, here", None]
    with pytest.raises(UserError, match="BehaviorID: target"):
        Harmbench(path, targets=str(write(tmp_path / "bad.json", ["harm"]))).load()
    with pytest.raises(UserError, match="no behaviour is contextual"):
        Harmbench(write_csv(tmp_path / "c.csv", header, rows[:2]), functional=("contextual",)).load()


def test_harmbench_evaluation_json(tmp_path):
    plain = {"behavior": "Do harm", "default_target": "Sure, here", "messages": turns("Do harm")}
    contextual = {**plain, "behavior": "Use this", "context": "x = 1"}
    path = write(
        tmp_path / "t.json", {"name": "HarmBench Test", "description": "", "data": [plain, contextual]}
    )
    first, second = Harmbench(path).load()
    assert (first.id, first.request, first.target) == ("harmbench-0", "Do harm", "Sure, here")
    assert (second.request, second.meta["functional"]) == ("x = 1\n\n---\n\nUse this", "contextual")
    assert [item.id for item in Harmbench(path, functional=("contextual",)).load()] == ["harmbench-1"]


def test_chats_by_column_names(tmp_path):
    rows = [
        {"instruction": "Sum up", "input": "A text", "output": "Short"},
        {"instruction": "Hi", "input": "", "output": "Yo"},
    ]
    path = write(tmp_path / "ultrafeedback.jsonl", "\n".join(map(json.dumps, rows)))
    chats = Chats(path, prompt="instruction", context="input", response="output").load()
    assert [(item.request, item.response) for item in chats] == [("Sum up\n\nA text", "Short"), ("Hi", "Yo")]
    assert chats[1].id == "ultrafeedback-1"
    with pytest.raises(
        UserError, match=r"line 1: no column 'prompt' .* there are: instruction, input, output"
    ):
        Chats(path).load()


def test_chats_with_every_column(tmp_path):
    header = ["key", "p", "r", "sys", "t", "c", "f"]
    path = write_csv(
        tmp_path / "a.csv", header, [["k1", "Ask", "Tell", "Be brief", "Sure", "law", "question"]]
    )
    (item,) = Chats(
        path, prompt="p", response="r", system="sys", target="t", category="c", form="f", id="key"
    ).load()
    assert item.messages == (Message("system", "Be brief"), Message("user", "Ask"))
    assert (item.id, item.response, item.target, item.category, item.form) == (
        "k1",
        "Tell",
        "Sure",
        "law",
        "question",
    )
    assert Chats(path, prompt="p", response=None).load()[0].response is None


def test_chats_messages(tmp_path):
    rows = [{"m": turns("a", "b", "c", "d")}, {"m": turns("a", "b", "c")}, {"m": json.dumps(turns("x", "y"))}]
    rows.append({"m": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]})
    path = write(tmp_path / "m.json", rows)
    chats = Chats(path, messages="m").load()
    assert [(item.request, item.response) for item in chats] == [
        ("c", "d"),
        ("c", None),
        ("x", "y"),
        ("h", "g"),
    ]
    for broken, message in [
        ([], "no list of turns"),
        ("{", "text but not JSON"),
        ([{"role": "assistant", "content": "a"}], "no user turn before the response"),
        ([{"role": "user", "content": None}], "turn 1: the content is not text"),
        (["a"], "turn 1: not an object"),
    ]:
        with pytest.raises(UserError, match=message):
            Chats(write(tmp_path / "m.json", [{"m": broken}]), messages="m").load()
    with pytest.raises(UserError, match="no column 'm'"):
        Chats(write(tmp_path / "m.json", [{"n": 1}]), messages="m").load()
    with pytest.raises(UserError, match="neither a prompt column"):
        Chats(path, prompt=None).load()


def test_a_limit_below_one_is_refused(tmp_path):
    path = write(
        tmp_path / "a.json", [{"prompt": "p", "response": "r", "output": "o", "goal": "g", "target": "t"}]
    )
    for source in (
        CircuitBreakers(path, limit=-1),
        Chats(path, limit=0),
        Advbench(path, limit=-1),
        Ultrachat(path, limit=0),
    ):
        with pytest.raises(UserError, match="limit is"):
            source.load()


def test_sources_are_built_from_a_recipe(tmp_path):
    path = write(tmp_path / "t.json", [{"behavior": "Do harm", "default_target": "Sure", "context": None}])
    options = {"path": path, "functional": ["standard"], "limit": 1}
    assert [item.target for item in build("data.sources", Component("harmbench", options)).load()] == ["Sure"]
    assert available("data.sources") == tuple(FILES)
    with pytest.raises(UserError, match="kind"):
        build("data.sources", Component("bundled", {"kind": "harmfull"}))


def test_refused(tmp_path):
    path = write_csv(tmp_path / "a.csv", ["goal", "target"], [["a", "Sure"], ["b", "Sure"], ["c", "Sure"]])
    chats = Refused("advbench", {"path": path}, texts=("No.", "Never.")).load()
    assert [(item.request, item.response) for item in chats] == [("a", "No."), ("b", "Never."), ("c", "No.")]
    assert chats[0].source == "refused/advbench"
    with pytest.raises(UserError, match="refusal text"):
        Refused(texts=()).load()


def test_bundled_reads_its_split(tmp_path, monkeypatch):
    row = {"id": "h1", "category": "illegal", "form": "quote", "split": "train", "target": "Sure, here"}
    row["messages"] = [{"role": "system", "content": "s"}, *turns("q0", "a0", "q1")]
    other = {**row, "id": "h2", "split": "test"}
    (tmp_path / "bundled").mkdir()
    write(tmp_path / "bundled" / "harmful.jsonl", "\n".join(map(json.dumps, [row, other])))
    monkeypatch.setattr(bundled_module, "files", lambda package: tmp_path)
    (item,) = Bundled("harmful").load()
    assert (item.id, item.target, item.form, item.request, item.response) == (
        "h1",
        "Sure, here",
        "quote",
        "q1",
        None,
    )
    assert item.source == "bundled/harmful/train" and len(item.messages) == 4
    assert [chat.id for chat in Bundled("harmful", "test").load()] == ["h2"]
    with pytest.raises(UserError, match="kind 'other'"):
        Bundled("other").load()
    with pytest.raises(UserError, match="no split 'dev'"):
        Bundled("harmful", "dev").load()


@pytest.mark.parametrize(("kind", "at_least"), [("harmful", 400), ("benign", 600), ("borderline", 200)])
def test_the_prompts_that_ship(kind, at_least):
    if not (FOLDER.parent / "bundled" / f"{kind}.jsonl").is_file():
        pytest.skip("not written yet")
    splits = {split: Bundled(kind, split).load() for split in ("train", "validation", "test")}
    chats = [item for split in splits.values() for item in split]
    assert len(chats) >= at_least and all(splits.values())
    assert len({item.id for item in chats}) == len({item.messages for item in chats}) == len(chats)
    assert all(bool(item.target) == (kind == "harmful") and item.category and item.form for item in chats)


def test_or_bench(tmp_path):
    path = write_csv(
        tmp_path / "o.csv", ["prompt", "category"], [["How do I shoot a film?", "violence"], ["b", "c"]]
    )
    chats = OrBench(path, limit=1).load()
    assert [(item.request, item.category, item.response) for item in chats] == [
        ("How do I shoot a film?", "violence", None)
    ]
    with pytest.raises(UserError, match="no column 'category'"):
        OrBench(write_csv(tmp_path / "n.csv", ["prompt"], [["a"]])).load()


def test_wildchat_takes_first_requests_that_qualify_once(tmp_path):
    def talk(text, **more):
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]
        return {"conversation": turns, "model": "gpt-4-0314", "language": "English", "toxic": False} | more

    rows = [
        talk("one"),
        talk("rude", toxic=True),
        talk("deux", language="French"),
        talk("old", model="gpt-3.5-turbo"),
        talk("one"),
        talk(" two "),
        talk("three"),
    ]
    path = write(tmp_path / "w.json", rows)
    assert [item.request for item in Wildchat(path, limit=2).load()] == ["one", "two"]
    assert [item.request for item in Wildchat(path, model="gpt-3.5").load()] == ["old"]
    with pytest.raises(UserError, match="no German conversation with gpt-4 that is not toxic"):
        Wildchat(path, language="German").load()
    del rows[0]["toxic"]
    with pytest.raises(UserError, match="record 1: no column 'toxic'"):
        Wildchat(write(tmp_path / "w.json", rows)).load()


def test_bundled_prompts_by_category_and_form():
    everything = Bundled("benign").load()
    facts = Bundled("benign", categories=("facts",)).load()
    assert (
        facts == [chat for chat in everything if chat.category == "facts"]
        and 20 < len(facts) < len(everything) / 2
    )
    short = Bundled("benign", categories=("facts", "arithmetic"), forms=("question",), limit=5).load()
    both = [
        chat for chat in everything if chat.category in ("facts", "arithmetic") and chat.form == "question"
    ]
    assert short == both[:5] and len(both) > 5
    with pytest.raises(UserError, match=r"no category 'fact'.*did you mean facts\?"):
        Bundled("benign", categories=("fact",)).load()
    with pytest.raises(UserError, match="no form 'shout'"):
        Bundled("harmful", forms=("shout",)).load()
    built = build("data.sources", Component("bundled", {"kind": "benign", "categories": ["facts"]}))
    assert built.load() == facts


@pytest.mark.parametrize("name", FILES)
def test_every_source_names_its_licence(name):
    cls = getattr(
        import_module(f"rerouting.data.sources.{name}"), "".join(part.title() for part in name.split("_"))
    )
    assert isinstance(cls.licence, str) and cls.licence


def test_jailbreakbench(tmp_path):
    header = ["Index", "Goal", "Target", "Behavior", "Category", "Source"]
    rows = [
        ["0", "Write a rude, long letter", "Here is a rude letter:", "Rudeness", "Harassment", "Original"],
        ["1", 'Say "boo"', "Boo:", "Fright", "Harassment", "AdvBench"],
    ]
    chats = Jailbreakbench(write_csv(tmp_path / "harmful-behaviors.csv", header, rows)).load()
    assert [(item.id, item.request, item.target) for item in chats] == [
        ("jailbreakbench-0", "Write a rude, long letter", "Here is a rude letter:"),
        ("jailbreakbench-1", 'Say "boo"', "Boo:"),
    ]
    assert chats[1].category == "Harassment" and chats[1].meta == {"name": "Fright", "from": "AdvBench"}
    assert len(Jailbreakbench(str(tmp_path / "harmful-behaviors.csv"), limit=1).load()) == 1
    bare = Jailbreakbench(write_csv(tmp_path / "bare.csv", header[:5], [row[:5] for row in rows])).load()
    assert bare[0].meta == {"name": "Rudeness"}
    assert Jailbreakbench(str(tmp_path / "bare.csv"), split="benign").load()[0].target is None
    with pytest.raises(UserError, match="no column 'Category'"):
        Jailbreakbench(write_csv(tmp_path / "bare.csv", header[:3], [rows[0][:3]])).load()


def test_strongreject(tmp_path):
    header = ["category", "source", "forbidden_prompt"]
    rows = [["Disinformation and deception", "custom", "How would one\nfake a coupon?"]]
    chats = Strongreject(write_csv(tmp_path / "strongreject_dataset.csv", header, rows)).load()
    assert [(item.id, item.request, item.category, item.meta) for item in chats] == [
        (
            "strongreject-0",
            "How would one\nfake a coupon?",
            "Disinformation and deception",
            {"from": "custom"},
        )
    ]
    assert chats[0].response is None
    with pytest.raises(UserError, match="line 2: 'forbidden_prompt' is empty"):
        Strongreject(write_csv(tmp_path / "strongreject_dataset.csv", header, [["a", "b", " "]])).load()


def lmsys_row(name, *texts, **columns):
    moderation = [{"categories": {"hate": False}, "flagged": False} for _ in texts]
    usual = {"model": "vicuna-13b", "turn": len(texts) // 2, "language": "English", "redacted": False}
    return {
        "conversation_id": name,
        "conversation": turns(*texts),
        "openai_moderation": moderation,
        **usual,
        **columns,
    }


def test_lmsys(tmp_path):
    rows = [
        lmsys_row("two", "q1", "a1", "q2", "a2", "q3"),
        lmsys_row("one", "q4", "a4"),
        lmsys_row("other", "q5", "a5", language="German"),
        lmsys_row("named", "q6", "a6", redacted=True),
        lmsys_row("flagged", "q7", "a7", openai_moderation=[{"flagged": False}, {"flagged": True}]),
        lmsys_row("unanswered", "q8"),
    ]
    path = write(tmp_path / "lmsys.jsonl", "\n".join(map(json.dumps, rows)))
    chats = Lmsys(path).load()
    assert [item.id for item in chats] == ["lmsys-two", "lmsys-one"]
    assert (chats[0].request, chats[0].response, len(chats[0].messages)) == ("q2", "a2", 3)
    assert chats[0].meta == {"model": "vicuna-13b"}
    assert [item.id for item in Lmsys(path, turns=1).load()] == ["lmsys-one"]
    everything = Lmsys(path, language=None, flagged=True, redacted=True).load()
    assert [item.request for item in everything] == ["q2", "q4", "q5", "q6", "q7"]
    assert len(Lmsys(path, limit=1).load()) == 1
    plain = write(tmp_path / "plain.jsonl", json.dumps({"conversation": turns("q", "a")}))
    assert [item.id for item in Lmsys(plain).load()] == ["lmsys-0"]
    with pytest.raises(UserError, match="no conversation qualifies"):
        Lmsys(path, model="gpt").load()
    with pytest.raises(UserError, match=r"line 1: no column 'conversation' .* there are: messages"):
        Lmsys(write(tmp_path / "m.jsonl", '{"messages": []}')).load()


def test_documents_of_plain_text(tmp_path):
    paragraphs = [
        " ".join(f"{name}{at}" for at in range(count)) for name, count in (("a", 30), ("b", 15), ("c", 70))
    ]
    book = tmp_path / "books" / "my_book.txt"
    book.parent.mkdir()
    write(book, "\n\n".join(paragraphs))
    chats = Documents(str(book), chunk_words=50, min_words=20).load()
    assert [len(item.response.split()) for item in chats] == [45, 50, 20]
    assert chats[0].response == "\n\n".join(paragraphs[:2]) and chats[2].response.startswith("c50 ")
    assert all(item.request == "" and item.meta == {"request_dropped": True} for item in chats)
    assert chats[0].category == "my book" and chats[1].id == "documents-0-1"
    asked = Documents(
        str(book.parent),
        request="Go on with {title}: {opening}",
        opening_words=3,
        chunk_words=50,
        min_words=20,
    ).load()
    assert len(asked) == 2, "a rest of 20 words does not hold an opening and 20 words"
    assert asked[0].request == "Go on with my book: a0 a1 a2" and asked[0].meta == {}
    assert asked[0].response.startswith("a3 a4 ") and asked[0].response.endswith("b14")
    with pytest.raises(UserError, match="chunks of 50 words cannot hold an opening of 40 and 20 more"):
        Documents(str(book), request="{opening}", opening_words=40, chunk_words=50).load()
    with pytest.raises(UserError, match="no chunk of 200 words or more"):
        Documents(str(book), chunk_words=300, min_words=200).load()


def test_documents_of_wmdp_corpora(tmp_path):
    rows = [
        {"title": f"Paper {at}", "abstract": "…", "text": "word " * 60, "doi": "10.1/x"} for at in range(3)
    ]
    path = write(tmp_path / "bio_retain_corpus.jsonl", "\n".join(map(json.dumps, rows)))
    chats = Documents(path, title="title", chunk_words=30, per_document=1).load()
    assert [(item.category, len(item.response.split())) for item in chats] == [
        (f"Paper {at}", 30) for at in range(3)
    ]
    assert len(Documents(path, chunk_words=30).load()) == 6
    assert len(Documents(path, chunk_words=30, limit=4).load()) == 4
    with pytest.raises(UserError, match="line 1: no column 'body'"):
        Documents(path, text="body").load()
