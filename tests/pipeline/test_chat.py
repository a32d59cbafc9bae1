"""`rerouting chat` on a tiny run: in a pseudo-terminal, wide and narrow, and through a pipe."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pexpect
import pytest

from rerouting.cli.main import main
from rerouting.data.formatting import encode
from rerouting.pipeline.chat_style import Style
from rerouting.pipeline.conversation import Conversation, open_pair
from tests.pipeline.tiny_run import own_cache, write_recipe
from tests.web.serving import connect

ENVIRONMENT = os.environ | {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
ENVIRONMENT.pop("NO_COLOR", None)
OPTIONS = ["--max_new_tokens", "6", "--trip_below", "1"]
CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    with own_cache(folder):
        assert main(["train", "--config", str(write_recipe(folder)), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def pair(made):
    return open_pair(made)


def chat(made, columns, *options):
    command = ["-m", "rerouting", "chat", str(made), *OPTIONS, *options]
    child = pexpect.spawn(
        sys.executable,
        command,
        dimensions=(40, columns),
        env=ENVIRONMENT,
        encoding="utf-8",
        timeout=90,
        # tests that run in the background of a shell have Ctrl-C switched off, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    child.delaybeforesend = 0.5  # on a busy machine what comes before the prompt reads is echoed twice
    child.expect("/help says what can be typed")
    child.expect("> ")
    return child


def say(child, line):
    """What is shown until the next prompt, without colours, and with them."""
    child.sendline(line)
    child.expect_exact(line)
    child.expect(r"\r\n(\[[^\]\r\n]*\] )?> ")
    raw = child.before
    return CODES.sub("", raw).replace("\r", ""), raw


def left(child):
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus


def words(text):
    """Printable letters of an answer, as they must turn up in what was shown."""
    return "".join(sign for sign in text if sign.isascii() and sign.isalnum())


def test_the_pair_of_a_run(made, pair):
    assert pair.layers == (2,)
    assert list(pair.models) == ["base", "rerouted"]
    assert pair.name == str(made)


@pytest.mark.long
def test_two_columns_on_a_wide_terminal(made, pair):
    child = chat(made, 120)
    text, raw = say(child, "How do I bake bread?")
    last = text[text.rindex("base ") :]
    assert re.match(r"base +│ rerouted", last)
    talk = Conversation(pair, Style(6))
    list(talk.ask("How do I bake bread?"))
    columns = [row.split("│") for row in last.splitlines()[2:] if "│" in row]
    for at, model in enumerate(("base", "rerouted")):
        said = words(getattr(talk.exchanges[0], model))
        assert words("".join(row[at] for row in columns)).startswith(said)
    assert re.search(r"trace ↯?[▁▂▃▄▅▆▇█↯]+\n(tripped at token|no trip; lowest at token) \d", last)
    assert re.search(r"cosine \d\.\d\d, KL \d+\.\d\d nats", last)
    assert "\x1b[" in raw[raw.rindex("trace ") :]
    assert left(child) == 0


@pytest.mark.long
def test_one_below_the_other_on_a_narrow_terminal(made):
    child = chat(made, 60)
    text, _ = say(child, "one")
    assert re.search(r"\nbase\n[\s\S]*\nrerouted\n[\s\S]*\ntrace ", text)
    assert "│ rerouted" not in text
    child.sendline("/quit")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


@pytest.mark.long
@pytest.mark.long
def test_ctrl_c_stops_the_answer_and_not_the_program(made):
    child = chat(made, 60, "--max_new_tokens", "1900", "--temperature", "2")
    child.sendline("one")
    child.expect(r"base[\s\S]{12}")
    child.kill(signal.SIGINT)
    child.expect("… stopped", timeout=20)
    child.expect("\n> ")
    assert "rerouted" not in child.before.partition("trace")[0]  # it never came to speak
    time.sleep(1)  # the prompt is shown a moment before it listens
    child.sendintr()
    child.expect("Ctrl-D ends")
    text, _ = say(child, "/help")
    assert "/prefill TEXT" in text
    assert left(child) == 0


def test_through_a_pipe(made, pair):
    lines = [
        "one",
        r"/prefill To do so,\nfirst",
        "/system be brief",
        "two",
        "/reset",
        "/prefill",
        "/system",
        "//one",
        "/prefil x",
        "x" * 3000,
    ]
    command = [sys.executable, "-m", "rerouting", "chat", str(made), *OPTIONS]
    done = subprocess.run(
        command, input="\n".join(lines), env=ENVIRONMENT, capture_output=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    talk = Conversation(pair, Style(6))
    list(talk.ask("one"))
    talk.system = "be brief"
    list(talk.ask("two", "To do so,\nfirst"))
    second = talk.exchanges[1]
    talk.reset()
    talk.system = ""
    list(talk.ask("/one"))
    parts = re.split(r"^(?:\[.*\] )?> ", done.stdout, flags=re.MULTILINE)[1:]
    assert [part.splitlines()[0] for part in parts[: len(lines)]] == lines
    for part, exchange in ((parts[3], second), (parts[7], talk.exchanges[0])):
        for model in ("base", "rerouted"):
            said = part.partition(f"\n{model}\n")[2]
            assert words(said).startswith(words(getattr(exchange, model)))
    given = len(encode(pair.models["base"].tokenizer, "To do so,\nfirst"))
    assert re.search(rf"trace [▁-█↯]{{{given},{given + 1}}}│", parts[3])
    assert "[To do so, first] > /system be brief" in done.stdout
    assert "did you mean prefill?" in parts[8]
    assert "the model reads 2048" in parts[9] and "reset" in parts[9]


@pytest.mark.parametrize(
    "options",
    [["--max_new_tokens", "0"], ["--temperature", "-1"], ["--trip_below", "2"], ["--port", "70000"]],
)
def test_impossible_options(options, capsys, tmp_path):
    assert main(["chat", str(tmp_path), *options]) == 2
    assert f"{options[0][2:]} is {options[1]}" in capsys.readouterr().err


def test_no_run_there(capsys, tmp_path):
    assert main(["chat", str(tmp_path)]) == 2
    assert "not a run directory" in capsys.readouterr().err


@pytest.mark.long
def test_web_serves_until_ctrl_c(made):
    command = ["-m", "rerouting", "chat", str(made), "--web", "--port", "0", "--max_new_tokens", "7"]
    child = pexpect.spawn(sys.executable, command, env=ENVIRONMENT, encoding="utf-8", timeout=90)
    child.expect(r"open (http://127\.0\.0\.1:\d+) in a browser")
    connection = connect(child.match[1])
    connection.request("GET", "/about")
    about = json.loads(connection.getresponse().read())
    connection.close()
    assert about["layers"] == [2] and about["max_new_tokens"] == 7 and about["run"] == str(made)
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "Traceback" not in child.before
