"""The tool-tuned child on a tiny model: what it is taught, and that a folder comes of it."""

import argparse

import pytest
import transformers

from benchmarks import tool_model
from rerouting.data.bundled_tools import tool_requests
from tests.pipeline.tiny_run import save_model


def test_harmful_requests_are_not_taught():
    given = argparse.Namespace(times=2, seed=0, style="json", requests=3, glaive=None, chats=None)
    chats = tool_model.lessons(given)
    assert [chat.source for chat in chats].count("tools/ordinary/train") == 6
    assert {chat.source for chat in chats} == {"tools/ordinary/train", "tools/borderline/train"}
    assert all(chat.response.startswith('{"name": ') for chat in chats)


def test_a_tuned_model_comes_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tool_model, "tool_requests", lambda kind, split: tool_requests(kind, split)[:2])
    source = save_model(tmp_path / "model")
    out = [
        "--model",
        str(source),
        "--out",
        str(tmp_path / "out"),
        "--times",
        "1",
        "--batch",
        "2",
        "--tokens",
        "900",
    ]
    tool_model.main(out)
    before, after = (
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("model", "out")
    )
    pairs = zip(before.state_dict().values(), after.state_dict().values(), strict=True)
    assert any((one.float() - two.float()).abs().max() > 0 for one, two in pairs), "it was trained and merged"
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    with pytest.raises(SystemExit):
        tool_model.main(out)
