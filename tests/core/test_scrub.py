"""Local paths and personal names leave a text; addresses, relative paths and all else stay."""

import getpass
import socket
from pathlib import Path

import pytest

from rerouting.core.scrub import scrubbed


@pytest.fixture(autouse=True)
def _somebody(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/annabel"))
    monkeypatch.setattr(getpass, "getuser", lambda: "annabel")
    monkeypatch.setattr(socket, "gethostname", lambda: "lab7.example.org")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/annabel/data/harmful.jsonl", "harmful.jsonl"),
        ("~/data/harmful.jsonl", "harmful.jsonl"),
        (r"C:\Users\annabel\mine.py", "mine.py"),
        ("/work/mine.py:MyLoss (weight 2)", "mine.py:MyLoss (weight 2)"),
        ('read "/srv/x/y.csv", then go on', 'read "y.csv", then go on'),
        ("file:///srv/x/y.csv", "y.csv"),
        ("data/annabel/secret.jsonl", "data/user/secret.jsonl"),
        ("made by Annabelle on lab7", "made by Annabelle on host"),
        ("https://huggingface.co/owner/name/", "https://huggingface.co/owner/name/"),
        ("Qwen/Qwen3-0.6B and/or base / rerouted", "Qwen/Qwen3-0.6B and/or base / rerouted"),
        ("../runs/x", "../runs/x"),
        (":\n\n\n", ":\n\n\n"),
    ],
)
def test_texts(text, expected):
    assert scrubbed(text) == expected


def test_keys_lists_and_names_that_are_public():
    value = {"/srv/mine.py": ["annabel", 1, None, ("/a/b",)], "n": 0.5}
    assert scrubbed(value) == {"mine.py": ["user", 1, None, ["b"]], "n": 0.5}
    assert scrubbed("annabel/model on lab7", {"annabel"}) == "annabel/model on host"


def test_an_account_called_root_is_no_name(monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "root")
    monkeypatch.setattr(Path, "home", lambda: Path("/root"))
    assert scrubbed("the root of the tree") == "the root of the tree"
