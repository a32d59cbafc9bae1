"""Pictures in the report: what was sent, the clean one, the change; and what is missing, by name."""

import base64
import io
import json

from PIL import Image

from rerouting.pictures.opening import open_picture
from rerouting.report.node import Node
from rerouting.report.page import render
from rerouting.report.pictures import pictures_of
from rerouting.report.reading import open_runs
from tests.report.made_up import make_run


def decoded(picture):
    head, _, data = picture.data.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def row(*images, clean=None):
    trace = {"clean": clean} if clean else {}
    return Node(
        {"messages": [{"role": "user", "content": "x", "images": list(images)}], "trace": trace}, "row"
    )


def test_a_changed_picture_with_the_clean_one_and_the_change(tmp_path):
    (tmp_path / "pictures").mkdir()
    changed = open_picture("blank:40x30").copy()
    changed.paste((147, 107, 127), (0, 0, 20, 30))
    changed.save(tmp_path / "pictures" / "a.png")
    clean, change, sent = pictures_of(tmp_path, row("moved/elsewhere/pictures/a.png", clean="blank:40x30"))
    assert [clean.caption, sent.caption] == ["clean", "sent"] and "4 times" in change.caption
    left, right = decoded(change).getpixel((8, 15)), decoded(change).getpixel((34, 15))
    assert abs(left[0] - 207) < 8 and abs(left[1] - 47) < 8
    assert all(abs(value - 127) < 5 for value in right)
    assert abs(decoded(sent).getpixel((8, 15))[0] - 147) < 8


def test_large_ones_are_made_small_and_missing_ones_named(tmp_path):
    (shown,) = pictures_of(tmp_path, row("blank:1000x500"))
    assert decoded(shown).size == (160, 80)
    (missing,) = pictures_of(tmp_path, row("pictures/gone.png"))
    assert missing.data == "" and "gone.png" in missing.caption
    assert pictures_of(tmp_path, Node({"messages": [{"role": "user", "content": "x"}]}, "row")) == []


def test_they_stand_on_the_page(tmp_path):
    folder = make_run(tmp_path / "run")
    file = folder / "attacks-quick" / "results.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for one in rows:
        one["messages"][-1]["images"] = ["drawn:test/1"]
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    page = render(open_runs([folder])).decode()
    assert page.count('<img src="data:image/jpeg;base64,') >= 2
