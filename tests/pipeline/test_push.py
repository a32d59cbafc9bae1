"""`rerouting push`: only known files go up, without local paths, after a yes, and every failure is one clear line."""

import http.server
import json
import re
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import LocalTokenNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file

from rerouting.cli.main import main
from rerouting.pipeline import push as pushing
from tests.pipeline.tiny_run import own_cache, write_recipe

PLAIN = ["README.md", "adapter_config.json", "adapter_model.safetensors", "config.yaml", "manifest.json"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run in a folder that has a person's name in it, with a dropped prompt in its manifest."""
    folder = tmp_path_factory.mktemp("home") / "annabel" / "files"
    folder.mkdir(parents=True)
    recipe = yaml.safe_load(write_recipe(folder).read_text())
    recipe["data"]["max_bleu"] = 0.3
    recipe["description"] = f"Made in {folder} by annabel."
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with own_cache(folder):
        assert main(["train", "--config", str(folder / "recipe.yaml"), "--out", str(folder / "run")]) == 0
    out = folder / "run"
    facts = json.loads((out / "manifest.json").read_text())
    facts["data"]["sources"]["circuit_breaker"][0]["dropped_like_evaluation"] = [{"prompt": "forge a stamp"}]
    (out / "manifest.json").write_text(json.dumps(facts))
    (out / "attacks-quick").mkdir()
    (out / "attacks-quick" / "results.jsonl").write_text("{}\n")
    return out


class FakeApi:
    """The hub, as far as `push` talks to it; keeps what was uploaded."""

    def __init__(self, existing=None, license_="mit"):
        self.existing, self.license, self.made, self.uploaded, self.patterns = (
            existing,
            license_,
            None,
            None,
            None,
        )

    def whoami(self):
        return {"name": "someone"}

    def repo_info(self, repo):
        if self.existing is None:
            raise RepositoryNotFoundError(
                "404", response=SimpleNamespace(headers={}, request=None, status_code=404)
            )
        return SimpleNamespace(private=self.existing == "private")

    def model_info(self, name):
        return SimpleNamespace(card_data=SimpleNamespace(license=self.license))

    def create_repo(self, repo, private, exist_ok):
        self.made = (repo, private)

    def upload_folder(self, repo_id, folder_path, allow_patterns, commit_message):
        assert self.made, "the repository comes first"
        self.patterns = allow_patterns
        self.uploaded = {str(path.relative_to(folder_path)): path.read_bytes()
                         for path in Path(folder_path).rglob("*") if path.is_file()}  # fmt: skip
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/1")


@pytest.fixture
def api(monkeypatch):
    fake = FakeApi()
    monkeypatch.setattr(pushing, "HfApi", lambda: fake)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/annabel"))
    return fake


def push(run, *options):
    return main(["push", str(run), "--repo", "team/breaker", "--base", "owner/base", *options])


def test_the_adapter_its_card_and_its_record_are_uploaded_and_nothing_else(run, api, capsys):
    assert push(run, "--yes") == 0
    assert sorted(api.uploaded) == sorted(api.patterns) == PLAIN
    assert api.made == ("team/breaker", False)
    shown = capsys.readouterr().out
    assert "to team/breaker (new, PUBLIC), as someone:" in shown
    assert all(re.search(rf"^  {re.escape(name)}  [\d.]+ [kM]B$", shown, re.MULTILINE) for name in PLAIN)
    assert "https://huggingface.co/team/breaker/commit/1" in shown
    assert (
        api.uploaded["adapter_model.safetensors"]
        == (run / "adapter" / "adapter_model.safetensors").read_bytes()
    )
    adapter = json.loads(api.uploaded["adapter_config.json"])
    assert adapter["base_model_name_or_path"] == "owner/base" and adapter["r"] == 4


def test_no_path_name_or_prompt_of_the_user_goes_up(run, api):
    assert push(run, "--yes", "--merged") == 0
    for name, content in api.uploaded.items():
        if not name.endswith(".safetensors"):
            text = content.decode()
            assert str(run.parent) not in text and "annabel" not in text, name
            assert "/tmp" not in text and "forge a stamp" not in text and "steal a car" not in text, name
    facts = json.loads(api.uploaded["manifest.json"])
    assert facts["data"]["sources"]["circuit_breaker"][0]["dropped_like_evaluation"] == 1
    assert facts["model"]["sha256"] and facts["processes"][0]["packages"]["torch"], "what it is for stays"
    config = yaml.safe_load(api.uploaded["config.yaml"])
    assert config["model"]["name"] == "owner/base"
    assert config["data"]["retain"][0]["options"]["path"] == "benign.jsonl"


def test_the_card_on_the_hub_names_the_repository_the_base_and_its_license(run, api):
    assert push(run, "--yes") == 0
    card = ModelCard(api.uploaded["README.md"].decode())
    assert card.data.base_model == "owner/base" and card.data.license == "mit"
    assert (
        'adapter = "team/breaker"' in card.text and "merged" not in card.text.lower().split("## results")[0]
    )
    assert "rerouting train --config config.yaml" in card.text


def test_the_merged_model_goes_into_a_folder_of_its_own(run, api, tmp_path):
    from transformers import AutoModelForCausalLM

    assert push(run, "--yes", "--merged") == 0
    merged = {name for name in api.uploaded if name.startswith("merged/")}
    assert {"merged/model.safetensors", "merged/config.json", "merged/tokenizer.json"} <= merged
    assert "merged/merged_from.json" not in merged, "it names folders"
    for name in merged:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(api.uploaded[name])
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict()
    for name, tensor in load_file(run / "model" / "model.safetensors").items():
        assert (loaded[name] == tensor).all()
    assert 'subfolder="merged"' in ModelCard(api.uploaded["README.md"].decode()).text


@pytest.mark.parametrize(
    ("said", "uploads"), [("y", True), ("yes", True), ("", False), ("n", False), (None, False)]
)
def test_it_asks_and_only_yes_is_yes(run, api, monkeypatch, capsys, said, uploads):
    def answer(question):
        assert "team/breaker" in capsys.readouterr().out, "the list comes first"
        if said is None:
            raise EOFError
        return said

    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", answer)
    assert push(run) == (0 if uploads else 1)
    assert (api.uploaded is not None) == uploads and (api.made is not None) == uploads


def test_without_a_terminal_it_wants_yes_as_an_option(run, api, capsys):
    assert push(run) == 2
    assert "--yes" in capsys.readouterr().err and api.made is None


@pytest.mark.parametrize(
    ("existing", "options", "private"),
    [
        (None, ["--private"], True),
        ("private", [], True),
        ("private", ["--private"], True),
        ("public", [], False),
    ],
)
def test_who_will_see_it(run, api, capsys, existing, options, private):
    api.existing = existing
    assert push(run, "--yes", *options) == 0
    shown = capsys.readouterr().out
    assert api.made == ("team/breaker", private)
    assert ("private" if private else "PUBLIC") in shown and ("existing" if existing else "new") in shown


def test_private_refuses_a_public_repository(run, api, capsys):
    api.existing = "public"
    assert push(run, "--yes", "--private") == 2
    assert "is public" in capsys.readouterr().err and api.uploaded is None


@pytest.mark.parametrize("name", ["breaker", "a/b/c", "team/brea ker", ".../x"])
def test_impossible_names(run, api, capsys, name):
    assert main(["push", str(run), "--repo", name, "--base", "owner/base", "--yes"]) == 2
    assert "OWNER/NAME" in capsys.readouterr().err and api.made is None


def test_a_base_that_nobody_else_has_and_an_unfinished_run_are_explained(run, api, tmp_path, capsys):
    assert main(["push", str(run), "--repo", "team/breaker", "--yes"]) == 2
    assert "--base OWNER/NAME" in capsys.readouterr().err
    unfinished = shutil.copytree(run, tmp_path / "run")
    (unfinished / "README.md").unlink()
    assert push(unfinished, "--yes") == 2
    assert "not a finished run" in capsys.readouterr().err
    (unfinished / "README.md").touch()
    (unfinished / "adapter" / "adapter_model.safetensors").unlink()
    assert push(unfinished, "--yes") == 2
    assert "missing" in capsys.readouterr().err and api.made is None


@contextmanager
def hub(status):
    """A server that answers everything with one status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = b'{"error": "told so"}'
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "message"), [(401, "does not know this token"), (403, "may not write"), (418, "refused (418)")]
)
def test_what_the_hub_says_is_passed_on(run, monkeypatch, capsys, status, message):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with hub(status) as address:
        monkeypatch.setattr(pushing, "HfApi", lambda: HfApi(endpoint=address, token="hf_none"))
        assert push(run, "--yes") == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_without_network_login_or_with_offline_mode(run, monkeypatch, capsys):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with hub(200) as address:
        pass  # closed again: nobody listens there
    monkeypatch.setattr(pushing, "HfApi", lambda: HfApi(endpoint=address, token="hf_none"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert push(run, "--yes") == 2
    assert "HF_HUB_OFFLINE" in capsys.readouterr().err
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert push(run, "--yes") == 2
    assert "cannot be reached" in capsys.readouterr().err

    def nobody(self):
        raise LocalTokenNotFoundError("no token")

    monkeypatch.setattr(HfApi, "whoami", nobody)
    assert push(run, "--yes") == 2
    assert "hf auth login" in capsys.readouterr().err
