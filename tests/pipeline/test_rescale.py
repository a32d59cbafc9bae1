"""`rescale` leaves what training with that strength would have left, beside a run that stays as it was."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from rerouting.cli.main import main
from rerouting.core.files import sha256_file
from tests.pipeline.tiny_run import own_cache, write_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rescaled")
    return write_recipe(folder)


@pytest.fixture(scope="module")
def trained(recipe):
    with own_cache(recipe.parent):
        assert main(["train", "--config", str(recipe), "--out", str(recipe.parent / "run")]) == 0
    return recipe.parent / "run"


def files(folder):
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): sha256_file(path) for path in found}


def adapter(run):
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    return config["lora_alpha"], sha256_file(run / "adapter" / "adapter_model.safetensors")


def test_it_is_what_training_with_that_strength_leaves(recipe, trained, tmp_path):
    before = files(trained)
    with own_cache(recipe.parent):
        assert main(["rescale", str(trained), "--strength", "0.75", "--out", str(tmp_path / "less")]) == 0
        again = [
            "train",
            "--config",
            str(recipe),
            "--lora.strength",
            "0.75",
            "--out",
            str(tmp_path / "again"),
        ]
        assert main(again) == 0
        assert main(["reproduce", str(tmp_path / "less"), "--out", str(tmp_path / "third"), "--cached"]) == 0
    alpha, weights = adapter(trained)
    assert adapter(tmp_path / "less") == adapter(tmp_path / "again") == (0.75 * alpha, weights)
    merged, direct = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("less", "again")
    )
    whole = load_file(trained / "model" / "model.safetensors")
    assert all(item.equal(direct[name]) for name, item in merged.items())
    assert any(not item.equal(whole[name]) for name, item in merged.items()), (
        "and not the model at full strength"
    )
    assert json.loads((tmp_path / "less" / "manifest.json").read_text())["rescaled_from"] == str(trained)
    assert "kept at 0.75 of their strength" in (tmp_path / "less" / "README.md").read_text()
    assert files(trained) == before


def test_strengths_are_of_what_was_trained_to_the_last_bit_however_often_it_is_done(
    trained, tmp_path, capsys
):
    alpha = adapter(trained)[0]
    assert main(["rescale", str(trained), "--strength", "0.9", "--out", str(tmp_path / "once")]) == 0
    assert (
        main(["rescale", str(tmp_path / "once"), "--strength", "0.92", "--out", str(tmp_path / "twice")]) == 0
    )
    assert "from 0.9 to 0.92 of what was trained" in capsys.readouterr().err
    assert adapter(tmp_path / "twice")[0] == alpha * 0.92
    assert (
        main(["rescale", str(tmp_path / "once"), "--strength", "0.9", "--out", str(tmp_path / "same")]) == 2
    )
    assert (
        "at 0.9 of what was trained already" in capsys.readouterr().err and not (tmp_path / "same").exists()
    )


def test_another_training_or_base_is_not_mixed_in(trained, tmp_path, capsys):
    other = shutil.copytree(trained, tmp_path / "other")
    facts = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(
        json.dumps(facts | {"model": facts["model"] | {"sha256": "of another"}})
    )
    assert main(["rescale", str(other), "--strength", "0.5", "--out", str(tmp_path / "x")]) == 2
    assert "another base than was trained" in capsys.readouterr().err
    assert not (tmp_path / "x" / "model").exists()
    assert main(["rescale", str(trained), "--strength", "0.5", "--out", str(tmp_path / "half")]) == 0
    again = shutil.copytree(trained, tmp_path / "again")
    weights = again / "adapter" / "adapter_model.safetensors"
    tensors = {name: item + 1 for name, item in load_file(weights).items()}
    save_file(tensors, weights)
    facts["adapter"]["sha256"] = sha256_file(weights)
    (again / "manifest.json").write_text(json.dumps(facts))
    assert main(["rescale", str(again), "--strength", "0.5", "--out", str(tmp_path / "half")]) == 2
    assert "was made of another training" in capsys.readouterr().err


def test_a_copy_that_was_cut_short_goes_on(trained, tmp_path):
    out = tmp_path / "run-x0.5"
    assert main(["rescale", str(trained), "--strength", "0.5", "--out", str(out)]) == 0
    for folder in ("adapter", "model"):
        shutil.rmtree(out / folder)
    (out / "README.md").unlink()
    assert main(["rescale", str(trained), "--strength", "0.5", "--out", str(out)]) == 0
    assert adapter(out)[0] == 0.5 * adapter(trained)[0] and (out / "model" / "config.json").is_file()


@pytest.mark.parametrize("strength", ["0", "-1"])
def test_a_strength_that_is_none_is_refused_and_nothing_is_written(trained, tmp_path, capsys, strength):
    out = tmp_path / "out"
    assert main(["rescale", str(trained), f"--strength={strength}", "--out", str(out)]) == 2
    assert "give a share above 0" in capsys.readouterr().err and not out.exists()


def test_folders_that_do_not_fit_are_refused(trained, recipe, tmp_path, capsys):
    assert main(["rescale", str(trained), "--strength", "0.5", "--out", str(trained)]) == 2
    assert "another configuration" in capsys.readouterr().err
    assert main(["rescale", str(tmp_path), "--strength", "0.5", "--out", str(tmp_path / "x")]) == 2
    assert "is not a run directory" in capsys.readouterr().err
    unfinished = shutil.copytree(trained, tmp_path / "unfinished")
    (unfinished / "README.md").unlink()
    assert main(["rescale", str(unfinished), "--strength", "0.5", "--out", str(tmp_path / "x")]) == 2
    assert "finish it, or train it again" in capsys.readouterr().err and not (tmp_path / "x").exists()
    (unfinished / "README.md").write_text("")
    shutil.rmtree(unfinished / "streams")
    assert main(["rescale", str(unfinished), "--strength", "0.5", "--out", str(tmp_path / "x")]) == 2
    assert "streams is missing" in capsys.readouterr().err and not (tmp_path / "x").exists()
    other = shutil.copytree(trained, tmp_path / "other")
    assert main(["rescale", str(trained), "--strength", "0.5", "--out", str(other)]) == 2
    assert "another configuration" in capsys.readouterr().err and files(other) == files(trained)


def test_a_recipe_with_a_strength_that_is_none_is_refused_before_anything(recipe, tmp_path, capsys):
    command = ["train", "--config", str(recipe), "--lora.strength=0", "--out", str(tmp_path / "run")]
    assert main(command) == 2
    assert "lora.strength is 0" in capsys.readouterr().err and not (tmp_path / "run").exists()
