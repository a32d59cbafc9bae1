"""Every kind of probe on made-up states, the threshold by hand, and saving."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import rerouting
from rerouting.core.errors import UserError
from rerouting.core.finder import Component, available, build
from rerouting.probes.head import Head
from rerouting.probes.kinds.linear import Linear
from rerouting.probes.kinds.mlp import Mlp
from rerouting.probes.kinds.reading import Reading
from rerouting.probes.saved import Probe, load_probe
from rerouting.probes.threshold import threshold_for

KINDS = available("probes.kinds")


def sides(size=80, width=6, apart=3.0):
    """Two clouds, one coordinate a thousand times larger than the rest."""
    draw = torch.Generator().manual_seed(0)
    clouds = [torch.randn(size, width, generator=draw) for _ in range(2)]
    clouds[0][:, 1] += apart
    for cloud in clouds:
        cloud[:, 0] *= 1000
    return clouds


def test_the_contract_is_met_by_every_kind(tmp_path):
    folder = Path(rerouting.__file__).parent / "probes" / "kinds"
    assert len(KINDS) == len([file for file in folder.glob("*.py") if file.stem[0] != "_"]) == 3
    harmful, harmless = sides(apart=6.0)
    harmful[:, 0], harmless[:, 0] = harmful[:, 0] / 1000, harmless[:, 0] / 1000
    for kind in KINDS:
        head = build("probes.kinds", Component(kind)).fit(harmful, harmless, 0)
        scores = head.scores(harmful), head.scores(harmless)
        assert scores[0].shape == (80,) and scores[0].dtype is torch.float32
        assert (scores[0].mean() > scores[1].mean()) and float(
            (scores[0] > scores[1].max()).float().mean()
        ) > 0.9
        assert head.width == 6 and torch.allclose(head.scores(harmful.view(4, 20, 6)), scores[0].view(4, 20))
        again = build("probes.kinds", Component(kind)).fit(harmful, harmless, 0)
        assert torch.equal(again.scores(harmful), scores[0]), "the same seed, the same probe"
        Probe(head, kind, 3, 4, 0.25, about={"auc": 0.9}).save(tmp_path / kind)
        loaded = load_probe(tmp_path / kind)
        assert torch.equal(loaded.head.scores(harmful), scores[0])
        assert (loaded.kind, loaded.layer, loaded.skip, loaded.threshold) == (kind, 3, 4, 0.25)
        assert sorted(file.name for file in (tmp_path / kind).iterdir()) == [
            "probe.json",
            "probe.safetensors",
        ]


def test_linear_is_scikit_learns_on_standardised_states():
    from sklearn.linear_model import LogisticRegression

    harmful, harmless = sides()
    states = torch.cat([harmful, harmless])
    plain = ((states - states.mean(0)) / states.std(0)).numpy()
    labels = np.array([1] * 80 + [0] * 80)
    model = LogisticRegression(C=1e-3, class_weight="balanced").fit(plain, labels)
    ours = Linear().fit(harmful, harmless).scores(states)
    assert ours.numpy() == pytest.approx(model.decision_function(plain), abs=1e-3)


def test_mlp_has_the_papers_layers_and_tells_what_no_plane_can():
    draw = torch.Generator().manual_seed(1)
    angle, near = torch.rand(400, generator=draw) * 6.3, torch.randn(400, 2, generator=draw) * 0.3
    ring = torch.stack([angle.cos(), angle.sin()], dim=1) * 3
    head = Mlp().fit(ring, near, 0)
    assert [tuple(head.tensors[f"weight.{at}"].shape) for at in range(3)] == [(64, 2), (32, 64), (1, 32)]
    assert float((head.scores(ring) > 0).float().mean()) > 0.97
    assert float((head.scores(near) < 0).float().mean()) > 0.97
    plane = Linear(c=1.0).fit(ring, near)
    assert float((plane.scores(ring) > 0).float().mean()) < 0.8


def test_reading_vector_by_hand():
    harmful = torch.tensor([[2.0, 0.0], [4.0, 0.0]])
    harmless = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    head = Reading().fit(harmful, harmless)
    along = torch.tensor([3.0, -2.0])
    assert torch.allclose(head.tensors["direction"], along / along.norm())
    assert torch.allclose(head.tensors["centre"], torch.tensor([1.5, 1.0]))
    assert float(head.scores(torch.tensor([1.5, 1.0]) + 5 * along)) == pytest.approx(1.0)
    assert float(head.scores(torch.tensor([3.0, 1.0]))) == pytest.approx(3 / 13**0.5)


@pytest.mark.parametrize(
    ("rate", "threshold"), [(0.0, 5.0), (0.19, 5.0), (0.2, 4.0), (0.5, 3.0), (0.99, 1.0)]
)
def test_threshold_by_hand(rate, threshold):
    highest = [3.0, 1.0, 5.0, 2.0, 4.0]
    assert threshold_for(highest, rate) == threshold
    assert sum(one > threshold for one in highest) <= rate * 5


@pytest.mark.parametrize(("highest", "rate"), [([], 0.1), ([float("nan")], 0.1), ([1.0], 1.0), ([1.0], -0.1)])
def test_no_threshold_from_nothing(highest, rate):
    with pytest.raises(UserError):
        threshold_for(highest, rate)


@pytest.mark.parametrize(
    "make", [lambda: Linear(c=0), lambda: Mlp(hidden=()), lambda: Head({"bias.0": torch.ones(1)})]
)
def test_impossible_options(make):
    with pytest.raises(UserError):
        make()


def test_a_damaged_probe_is_said_to_be_one(tmp_path):
    with pytest.raises(UserError, match="has no probe"):
        load_probe(tmp_path / "none")
    head = Head({"weight.0": torch.ones(1, 2), "bias.0": torch.zeros(1)})
    for name, content in (("probe.safetensors", b"\x00" * 20), ("probe.json", b'{"kind": "linear"')):
        Probe(head, "linear", 1, 0, 0.0).save(tmp_path / "one")
        (tmp_path / "one" / name).write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            load_probe(tmp_path / "one")
    Probe(head, "linear", 1, 0, 0.0).save(tmp_path / "one")
    card = tmp_path / "one" / "probe.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"more": 1}))
    with pytest.raises(UserError, match="damaged"):
        load_probe(tmp_path / "one")
