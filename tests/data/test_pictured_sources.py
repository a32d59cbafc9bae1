"""Data sets with pictures: right records, and errors that name file and place."""

import json

import pytest
from PIL import Image

from rerouting.core.errors import UserError
from rerouting.core.records import Message
from rerouting.data.sources.drawn import Drawn
from rerouting.data.sources.figstep import Figstep
from rerouting.data.sources.llava_instruct import LlavaInstruct
from rerouting.data.sources.mm_safetybench import MmSafetybench
from rerouting.data.sources.pictured import Pictured
from rerouting.pictures.opening import open_picture
from rerouting.pictures.scenes import scene


def picture(folder, name="a.png"):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(folder / name)
    return str(folder / name)


def lines(file, *rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_drawn_questions_have_answers_and_splits_of_their_own():
    train, test = Drawn(limit=40).load(), Drawn(split="test", limit=40).load()
    assert len(train) == len(test) == 40 and train == Drawn(limit=40).load()
    for chat in train:
        (image,) = chat.images
        number = int(image.rpartition("/")[2])
        assert chat.response.lower() == scene("train", number).facts[chat.category]
    assert not {chat.images for chat in train} & {chat.images for chat in test}


@pytest.mark.parametrize("kind", ["harmful", "benign", "borderline"])
def test_bundled_prompts_beside_a_picture(kind):
    chats = Drawn(kind, "test", 5).load()
    assert len(chats) == 5 and all(len(chat.images) == 1 for chat in chats)
    assert all(bool(chat.target) == (kind == "harmful") and chat.response is None for chat in chats)
    with pytest.raises(UserError, match="no split"):
        Drawn(kind, "tests").load()


def test_rows_with_one_picture_several_and_none(tmp_path):
    picture(tmp_path, "a.png"), picture(tmp_path, "b.png")
    rows = [
        {"image": "a.png", "prompt": "What?", "response": "Red", "open": "Sure"},
        {"image": ["a.png", "drawn:test/1"], "prompt": "Both?", "response": "Yes", "open": None},
        {"image": None, "prompt": "Text?", "response": "Text", "open": None},
    ]
    first, second, third = Pictured(lines(tmp_path / "d.jsonl", *rows), target="open").load()
    assert first.images == (str(tmp_path / "a.png"),) and first.target == "Sure"
    assert second.images == (str(tmp_path / "a.png"), "drawn:test/1")
    assert third.images == () and third.messages == (Message("user", "Text?"),) and third.response == "Text"


@pytest.mark.parametrize(
    "image, word", [("gone.png", "line 1.*no picture"), (7, "line 1.*neither"), ([7], "neither")]
)
def test_pictures_that_are_not_there(tmp_path, image, word):
    file = lines(tmp_path / "d.jsonl", {"image": image, "prompt": "What?", "response": "Red"})
    with pytest.raises(UserError, match=word):
        Pictured(file).load()


def test_llava_instruct(tmp_path):
    picture(tmp_path / "train2017", "1.jpg")
    turns = [
        {"from": "human", "value": "What is it?\n<image>"},
        {"from": "gpt", "value": "A cat."},
        {"from": "human", "value": "Its colour?"},
        {"from": "gpt", "value": "Black."},
    ]
    file = tmp_path / "llava.json"
    file.write_text(
        json.dumps(
            [{"id": "1", "image": "1.jpg", "conversations": turns}, {"id": "2", "conversations": turns[:2]}]
        )
    )
    whole, text = LlavaInstruct(str(file), str(tmp_path / "train2017")).load()
    assert whole.response == "Black." and [turn.content for turn in whole.messages] == [
        "What is it?",
        "A cat.",
        "Its colour?",
    ]
    assert [turn.images for turn in whole.messages] == [(str(tmp_path / "train2017" / "1.jpg"),), (), ()]
    assert text.images == () and text.response == "A cat."
    short, _ = LlavaInstruct(str(file), str(tmp_path / "train2017"), exchanges=1).load()
    assert short.response == "A cat." and len(short.messages) == 1


def test_mm_safetybench(tmp_path):
    (tmp_path / "processed_questions").mkdir()
    row = {
        "Question": "Q?",
        "Rephrased Question": "About the phrase?",
        "Rephrased Question(SD)": "About the picture?",
    }
    (tmp_path / "processed_questions" / "01-X.json").write_text(json.dumps({"0": row}))
    for kind in ("SD", "TYPO"):
        picture(tmp_path / "imgs" / "01-X" / kind, "0.jpg")
    (written,) = MmSafetybench(str(tmp_path), "TYPO").load()
    assert (
        written.request == "About the phrase?"
        and written.meta["behaviour"] == "Q?"
        and written.category == "01-X"
    )
    assert MmSafetybench(str(tmp_path), "SD").load()[0].request == "About the picture?"
    with pytest.raises(UserError, match="no picture"):
        MmSafetybench(str(tmp_path), "SD_TYPO").load()
    with pytest.raises(UserError, match="there are: 01-X"):
        MmSafetybench(str(tmp_path), scenarios=("02",)).load()
    (tmp_path / "processed_questions" / "01-X.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        MmSafetybench(str(tmp_path)).load()


def test_figstep_with_its_pictures_and_with_ours(tmp_path):
    file = tmp_path / "safebench.csv"
    file.write_text(
        "dataset,category_id,task_id,category_name,question,instruction\nForbidQI,1,2,Any,How?,Steps to do it.\n"
    )
    (own,) = Figstep(str(file)).load()
    assert own.images == ("steps:Steps to do it.",) and open_picture(own.images[0]).size == (336, 336)
    assert own.meta["behaviour"] == "How?" and "1, 2 and 3" in own.request
    picture(tmp_path / "SafeBench", "query_ForbidQI_1_2_6.png")
    (given,) = Figstep(str(file), str(tmp_path / "SafeBench")).load()
    assert given.images == (str(tmp_path / "SafeBench" / "query_ForbidQI_1_2_6.png"),)
