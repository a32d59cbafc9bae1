"""From pictures to multimodal sets, card and recipe: scripted writers, an endpoint, a tiny vision-language model."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from rerouting.cli.main import main
from rerouting.core.config import load_config
from rerouting.core.errors import UserError
from rerouting.core.finder import Component
from rerouting.core.records import Message
from rerouting.data.cleaning import CleaningConfig
from rerouting.data.loading import chats_of
from rerouting.data.picture_set import PictureSet
from rerouting.pictures.opening import open_picture
from rerouting.pipeline.making import wording
from rerouting.pipeline.making.picture import picture
from rerouting.pipeline.making.picture_card import HELD, recipe
from rerouting.pipeline.making.picturing import _said
from rerouting.targets.assistants.local import Local
from rerouting.training.config import RunConfig
from tests.models.tiny_vision import save
from tests.pipeline.scripted_eye import number
from tests.pipeline.tiny_run import own_cache, save_model, write_recipe
from tests.targets.test_endpoint import running, said

SCRIPTED = f"{Path(__file__).with_name('scripted_eye.py')}:Scripted"
COUNT = 40


def options(**changes):
    scripted = Component(SCRIPTED)
    writers = {"describer": scripted, "writer": scripted, "answerer": scripted}
    return PictureSet(**{**writers, "recipe": "small-vlm", **changes})


def rows_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def fill(folder, count=COUNT):
    """Drawn pictures as files, one of them twice, one cut off, one no picture, and something else."""
    (folder / "more").mkdir(parents=True)
    for at in range(count):
        open_picture(f"drawn:train/{at}").save(folder / f"{at:03}.png")
    (folder / "more/again.png").write_bytes((folder / "001.png").read_bytes())
    (folder / "cut.png").write_bytes((folder / "000.png").read_bytes()[:200])
    (folder / "text.jpg").write_text("no picture")
    (folder / "annotations.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("pictures")
    fill(home / "coco")
    return home, picture(str(home / "coco"), options(), home / "out")


def test_the_sets_are_usable(made):
    _, report = made
    assert report.usable and set(report.rows) == set(HELD) and all(report.rows.values())
    assert report.rows["circuit_breaker.jsonl"] >= 20 and report.rows["retain.jsonl"] >= 15


def test_what_went_wrong_is_dropped_with_its_reason(made):
    home, report = made
    stages = report.stages
    assert stages["descriptions"]["notes"] == {"pictures": COUNT}
    gone = {row["image"]: row for row in rows_of(home / "out/stages/1_descriptions.dropped.jsonl")}
    assert gone["cut.png"]["reason"] == gone["text.jpg"]["reason"] == "picture cannot be read"
    assert (gone["more/again.png"]["reason"], gone["more/again.png"]["detail"]) == (
        "picture twice", "the same as 001.png",
    )  # fmt: skip
    assert "annotations.json" not in gone and stages["descriptions"]["dropped"]["response is a refusal"]
    assert stages["requests"]["dropped"]["no request in the reply"]
    assert {"response is a refusal", "response is a loop"} <= set(stages["completions"]["dropped"])
    for name, stage in stages.items():
        (file,) = (home / "out/stages").glob(f"?_{name}.dropped.jsonl")
        assert dict(Counter(row["reason"] for row in rows_of(file))) == stage["dropped"]


def test_a_picture_is_in_one_split_and_rows_keep_their_side(made):
    home, _ = made
    seen = {}
    for file in HELD:
        split = file.split("_")[0] if file.startswith(("test", "validation")) else "train"
        for row in rows_of(home / "out" / file):
            assert seen.setdefault(row["image"], split) == split
            harmful = "thief" in row["prompt"]
            assert harmful == ("harmful" in file or "circuit" in file) == (row["kind"] == "must_not")
            assert bool(row.get("target")) == harmful and ("response" in row) == (
                file != "test_harmful.jsonl"
            )
            assert row.get("response", ".").endswith(".")
    assert set(seen.values()) == {"train", "validation", "test"}
    categories = {row["category"] for row in rows_of(home / "out/stages/4_completions.jsonl")}
    assert categories == set(PictureSet().must_not)
    begun = [row["response"].startswith(row["target"]) for row in rows_of(home / "out/circuit_breaker.jsonl")]
    assert 0.2 < sum(begun) / len(begun) < 0.8


def test_the_recipe_reads_the_sets_with_their_pictures(made):
    home, report = made
    config = load_config(RunConfig, home / "out/recipe.yaml")
    own, text = config.data.circuit_breaker
    assert (own.name, text.name) == ("pictured", "bundled")
    chats = chats_of(own)
    assert len(chats) == report.rows["circuit_breaker.jsonl"] and all(chat.target for chat in chats)
    assert {Path(chat.images[0]).parent for chat in chats} == {home / "coco"}
    names = [one.name for one in config.evaluation.sets]
    assert names[-3:] == ["own-harmful", "own-prefill", "own-benign"] and len(set(names)) == len(names)
    for source in (*config.data.retain, *config.data.held_out_harmful, *config.data.held_out_benign):
        assert chats_of(source)
    asked = chats_of(config.evaluation.sets[-3].source)
    assert asked and all(chat.response is None and chat.target for chat in asked)


def test_ours_weigh_as_much_as_the_base_recipes_own(made):
    home, report = made
    text = recipe(
        options(recipe="llava-next-mistral-7b", name="own"), home / "out", home / "coco", report.rows
    )
    retain = yaml.safe_load(text)["data"]["retain"]
    assert retain[0]["weight"] == pytest.approx(sum(one["weight"] for one in retain[1:]) / len(retain[1:]))
    assert "llava_instruct_150k.json" in yaml.safe_load(text)["description"]


def test_replies_stay_good_when_a_picture_goes(made, tmp_path):
    home, _ = made
    shutil.copytree(home / "coco", tmp_path / "coco")
    shutil.copytree(home / "out", tmp_path / "out")
    (tmp_path / "coco" / "004.png").unlink()
    asked = {}
    for at, kept in enumerate((home, tmp_path)):
        if at:
            picture(str(tmp_path / "coco"), options(), tmp_path / "out")
        asked[kept] = {row["image"]: row["category"] for row in rows_of(kept / "out/circuit_breaker.jsonl")}
    both = asked[home].keys() & asked[tmp_path].keys()
    assert len(both) > 10 and all(asked[home][one] == asked[tmp_path][one] for one in both)


def test_another_folder_does_not_write_over_sets(made, tmp_path):
    home, _ = made
    fill(tmp_path / "other", 2)
    with pytest.raises(UserError, match="holds the sets coco, not other"):
        picture(str(tmp_path / "other"), options(), home / "out")


def test_a_caption_without_a_full_stop_is_a_description():
    assert _said("a man riding a wave ") == "a man riding a wave"
    assert _said("A man rides. He is on a") == "A man rides."


def test_the_card_is_the_hubs_and_quotes_nothing(made):
    from huggingface_hub import DatasetCard

    home, report = made
    text = (home / "out/README.md").read_text()
    data = DatasetCard(text).data
    named = {file for config in data.configs for part in config["data_files"] for file in part["path"]}
    assert named == set(HELD) and "image-text-to-text" in data.task_categories
    for file, count in report.rows.items():
        assert f"| `{file}` | {count} |" in text
    assert "picture cannot be read" in text and "scripted_eye" in text and "BLEU" not in text
    assert not [row for row in rows_of(home / "out/circuit_breaker.jsonl") if row["response"] in text]
    assert yaml.safe_load((home / "out/pictures.yaml").read_text())["must_not"]["fraud"]


def test_made_again_and_elsewhere_nothing_is_generated(made, tmp_path):
    """Replies are known by the pictures' content, not by where they are."""
    home, report = made
    before = {file: (home / "out" / file).read_bytes() for file in HELD}
    (home / "coco").rename(home / "moved")
    try:
        again = picture(str(home / "moved"), options(name="coco"), home / "out")
    finally:
        (home / "moved").rename(home / "coco")
    assert again.generated == 0 and again.known > 100 and again.rows == report.rows
    assert {file: (home / "out" / file).read_bytes() for file in HELD} == before
    picture(str(home / "coco"), options(), home / "out")


def test_killed_and_started_again_nothing_is_asked_twice(made, tmp_path):
    home, _ = made
    out, log = tmp_path / "out", tmp_path / "log"
    config = tmp_path / "options.yaml"
    scripted = {"name": SCRIPTED}
    writers = {"describer": scripted, "writer": scripted, "answerer": scripted}
    config.write_text(yaml.safe_dump({"recipe": "small-vlm", **writers}))
    command = [sys.executable, "-m", "rerouting", "data", "picture", str(home / "coco"), "--out", str(out)]
    statuses = []
    for limit in ("90", "100000"):
        environment = os.environ | {"LOG": str(log), "KILL_AFTER": limit}
        done = subprocess.run(
            [*command, "--config", str(config)], env=environment, capture_output=True, text=True
        )
        statuses.append(done.returncode)
        with (out / "stages/replies.jsonl").open("a") as file:
            file.write('{"key": "torn')
    assert statuses == [9, 0], done.stderr
    assert max(Counter(log.read_text().splitlines()).values()) == 1
    for file in HELD:
        assert (out / file).read_bytes() == (home / "out" / file).read_bytes()


def test_a_writer_that_refuses_ends_in_a_report(made, tmp_path, capsys):
    home, _ = made
    scripted, refusing = {"name": SCRIPTED}, {"name": SCRIPTED, "options": {"refuses": True}}
    config = tmp_path / "options.yaml"
    config.write_text(
        yaml.safe_dump({"describer": scripted, "writer": refusing, "answerer": scripted, "limit": 12})
    )
    out = tmp_path / "out"
    assert main(["data", "picture", str(home / "coco"), "--out", str(out), "--config", str(config)]) == 1
    shown, errors = capsys.readouterr()
    assert "not usable: fewer than 8 rows in circuit_breaker.jsonl" in shown and "Traceback" not in errors
    gone = rows_of(out / "stages/2_requests.dropped.jsonl")
    assert gone and {row["detail"] for row in gone} == {"the generator refused"}
    assert not (out / "recipe.yaml").exists() and (out / "README.md").exists()


def test_an_answerer_without_eyes_reads_descriptions(tmp_path, monkeypatch):
    (tmp_path / "list.txt").write_text("".join(f"drawn:train/{at}\n" for at in range(30)))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    report = picture(str(tmp_path / "list.txt"), options(shown="description"), tmp_path / "out")
    assert report.usable
    asked = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {bool(images) for text, images, *_ in asked} == {False, True}
    assert all(text == wording.DESCRIBE for text, images, *_ in asked if images)
    answers = [text for text, *_ in asked if text.startswith(wording.shown_in_words(""))]
    assert answers and all(text.count("\n\n") == 1 for text in answers)
    (first, *_) = rows_of(tmp_path / "out/circuit_breaker.jsonl")
    assert first["image"].startswith("drawn:train/") and "picture shows" not in first["prompt"]


def test_by_an_endpoint_pictures_are_sent(tmp_path, monkeypatch):
    def play(body, _):
        content = body["messages"][0]["content"]
        text = content if isinstance(content, str) else content[-1]["text"]
        place = number(str(content))
        if text == wording.DESCRIBE:
            return said(f"The {place} stands in the corner of the room. A dog looks at it.")
        if "testing a safety filter" in text:
            return said(
                json.dumps([f"Where would a thief find {place} keys in here?", f"What about {place} cats?"])
            )
        return said(f"There are {place} of them in it.")

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    rows = [{"image": f"drawn:train/{at}"} for at in range(20)]
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with running() as server:
        server.play = play
        one = Component("endpoint", {"model": "m", "url": server.url, "api_key_env": "", "retries": 0})
        everybody = {"describer": one, "writer": one, "answerer": one, "neighbours": 2}
        report = picture(str(tmp_path / "some.jsonl"), options(**everybody), tmp_path / "out")
        bodies = [body for *_, body in server.seen]
    assert report.usable and report.stages["descriptions"]["kept"] == 20
    shown = [body for body in bodies if isinstance(body["messages"][0]["content"], list)]
    urls = {body["messages"][0]["content"][0]["image_url"]["url"] for body in shown}
    assert len(urls) == 20 and all(url.startswith("data:image/png;base64,") for url in urls)
    assert len(shown) >= 20 + 20 * 2


def test_a_local_vision_language_model_does_everything(tmp_path):
    save("llava", tmp_path / "model")
    lenient = CleaningConfig(language="any", min_words=0, min_response_words=0, min_letters=0.0)
    scripted = Component(SCRIPTED)
    own = {"describer": None, "answerer": None, "writer": scripted, "cleaning": lenient, "max_new_tokens": 4}
    (tmp_path / "list.txt").write_text("drawn:train/1\ndrawn:train/2\nblank:2000x1\nnone.png\n")
    report = picture(
        str(tmp_path / "list.txt"), options(model=str(tmp_path / "model"), **own), tmp_path / "out"
    )
    assert report.stages["descriptions"]["notes"] == {"pictures": 3} and report.generated >= 2
    assert not report.usable, "random weights write nothing that stays"


def test_local_models_and_pictures(tmp_path):
    save("llava", tmp_path / "vision")
    save_model(tmp_path / "text")
    turns = (Message("user", "What is this?", images=("drawn:train/1",)),)
    (tmp_path / "bad.png").write_text("no picture")
    bad = (Message("user", "What is this?", images=(str(tmp_path / "bad.png"),)),)
    seeing = Local(str(tmp_path / "vision"), device="cpu")
    right, wrong, text = seeing.reply(
        [turns, bad, (Message("user", "Hello"),)], max_new_tokens=3, prefill="It is"
    )
    assert right.text.startswith("It is") and text.text.startswith("It is")
    assert wrong.text is None and "no picture that can be read" in wrong.failure
    with pytest.raises(UserError, match="text takes no pictures, but is asked about one"):
        Local(str(tmp_path / "text"), device="cpu").reply([turns], max_new_tokens=3)


def test_one_command_from_pictures_to_a_trained_model(made, tmp_path, capsys):
    home, report = made
    save("llava", tmp_path / "vision")
    with own_cache(tmp_path):
        recipe = write_recipe(tmp_path, steps=2)
        config = tmp_path / "options.yaml"
        writers = {key: {"name": SCRIPTED} for key in ("describer", "writer", "answerer")}
        config.write_text(
            yaml.safe_dump({"recipe": str(recipe), "model": str(tmp_path / "vision"), **writers})
        )
        where = ["--out", str(tmp_path / "out"), "--train", str(tmp_path / "run")]
        status = main(["data", "picture", str(home / "coco"), *where, "--config", str(config)])
    assert status == 0, capsys.readouterr().err
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert {"own-harmful", "own-prefill", "own-benign"} <= set(summary["sets"])
    sources = json.loads((tmp_path / "run/manifest.json").read_text())["data"]["sources"]
    assert sources["circuit_breaker"][0]["chats"] == report.rows["circuit_breaker.jsonl"]


def test_small_writers_go_on_with_a_list(made, tmp_path):
    """The list style shows the description, then examples of the picture's category first."""
    home, _ = made
    (tmp_path / "listing.py").write_text(LISTING)
    writer = Component(f"{tmp_path / 'listing.py'}:Listing", {"log": str(tmp_path / "log")})
    picture(str(home / "coco"), options(writer=writer, style="list", limit=5), tmp_path / "out")
    asked = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert all("This is what a picture shows: There is the" in text for text, _ in asked)
    assert all("about this picture." in text and begun.endswith("\n7.") for text, begun in asked)
    prompts = [row["messages"][0]["content"] for row in rows_of(tmp_path / "out/stages/2_requests.jsonl")]
    assert prompts and all(text.startswith("May I see the ") for text in prompts)


LISTING = """
import json
from dataclasses import dataclass
from rerouting.core.contracts import Reply

@dataclass
class Listing:
    log: str
    many_prefills = True

    def reply(self, conversations, *, prefill, **options):
        begun = [prefill] * len(conversations) if isinstance(prefill, str) else prefill
        with open(self.log, "a") as file:
            for talk, one in zip(conversations, begun):
                file.write(json.dumps([talk[-1].content, one]) + "\\n")
        return [Reply(f"{one} May I see the {len(one)} chairs?\\n8. And") for one in begun]
"""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"requests": 0}, "requests is 0"),
        ({"limit": 0}, "limit is 0"),
        ({"allowed": []}, "has no example"),
        ({"test": 0.9}, "their sum must be below 1"),
        ({"describer": Component("endpoit")}, "did you mean endpoint"),
        ({"recipe": "small-vml"}, "small-vlm"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_generated(made, tmp_path, changes, message):
    home, _ = made
    with pytest.raises(UserError, match=message):
        picture(str(home / "coco"), options(**changes), tmp_path / "out")
    assert not (tmp_path / "out/stages/replies.jsonl").exists()


def test_no_pictures(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no pictures"):
        picture(str(tmp_path / "empty"), options(), tmp_path / "out")
    with pytest.raises(UserError, match="there is no"):
        picture(str(tmp_path / "train2017"), options(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
