"""The tool-tuned child on a tiny model: what it is taught, and that a folder comes of it."""

import pytest
import transformers

from benchmarks import tool_model
from rerouting.data.bundled_tools import tool_requests
from tests.pipeline.tiny_run import save_model


def test_other_functions_are_offered_and_harmful_requests_are_not_taught():
    requests = tool_requests("ordinary", "train")[:5]
    offered = tool_model.offers(requests, 4, seed=0)
    assert offered[:5] == requests and len(offered) == 20
    assert all(one.call.name in one.offered and 2 <= len(set(one.offered)) <= 4 for one in offered[5:])
    assert len({one.offered for one in offered}) > 10
    assert tool_model.offers(requests, 4, seed=0) == offered != tool_model.offers(requests, 4, seed=1)


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
