"""What is dropped from own or generated rows, and why: every reason planted once, and nothing else dropped."""

import json
import random
import subprocess
import sys

import pytest

from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.data.cleaning import CleaningConfig, balanced, clean, count_words, fault
from rerouting.data.duplicates import duplicates, likeness, normalised

ANSWER = "You can take the bus from the old harbour to the market and then walk along the river for a while."


def chat(name, request, response=None, category=""):
    return Chat(name, (Message("user", request),), response, category=category)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I get to the market?", "HOW do I get, to the MARKET ?!"),
        ("How do I get to the market?", "¿How do I get to the market？"),
        ("How do I get to the market?", "«How do I get to the market»؟"),
        ("How do I get to the market?", "Ｈｏｗ do I get to the ｍａｒｋｅｔ"),
        ("How do I get to the market?", "How do I get to the mar\u200bket\u00ad?"),
        ("Où est le café ?", "où est le cafe\u0301 ?"),
        ("市场怎么走？", "市场、怎么走?"),
        ("Straße", "STRASSE"),
    ],
)
def test_the_same_text_in_other_clothes(one, other):
    assert [(item.at, item.of, item.likeness) for item in duplicates([one, other])] == [(1, 0, 1.0)]


def test_other_words_or_accents_are_other_texts():
    assert normalised("schon") != normalised("schön")
    assert normalised("नमक") != normalised("नमकीन")
    assert duplicates(["?", "!", ""]) == []
    assert [one.at for one in duplicates(["tram", "tram", "Tram"], groups=["a", "b", "a"])] == [2]
    long = "a long tale " * 300
    assert duplicates([f"{long} one", f"{long} two"], near=None) == []


def test_likeness_by_hand():
    # abcdef: abcde bcdef; abcdeg: abcde bcdeg; one of three in common
    assert likeness("abcdef", "abcdeg") == pytest.approx(1 / 3)
    assert likeness("ab", "ab") == 1


def test_near_duplicates_point_to_the_first_and_can_be_switched_off():
    texts = [
        "Which bus goes from the old harbour to the central market on Sundays?",
        "Tell me how a violin is tuned before a concert in a cold church.",
        "Which bus goes from the old harbour to the central market on a Sunday?",
        "Please: which bus goes from the old harbour to the central market on Sundays?",
    ]
    found = duplicates(texts)
    assert [(item.at, item.of) for item in found] == [(2, 0), (3, 0)] and all(
        0.8 <= item.likeness < 1 for item in found
    )
    assert duplicates(texts, near=None) == []
    with pytest.raises(UserError, match=r"near is 0\.1 .* from 0\.2 to 1"):
        duplicates(texts, near=0.1)


def test_the_index_finds_almost_every_near_duplicate_that_comparing_all_finds():
    draw = random.Random(0)
    words = ["amber", "basil", "cedar", "delta", "ember", "fable", "grove", "heron", "ivory", "jolly"]
    texts = [" ".join(draw.choices(words, k=12)) for _ in range(150)]
    texts += [f"{text} {draw.choice(words)}" for text in texts]
    wanted = set()
    for at, text in enumerate(texts):
        if any(likeness(text, texts[of]) >= 0.8 for of in range(at) if of not in wanted):
            wanted.add(at)
    found = {item.at for item in duplicates(texts)}
    assert len(wanted) > 100 and len(found & wanted) >= 0.97 * len(wanted)
    assert all(item.likeness >= 0.8 for item in duplicates(texts))


REASONS = {
    "request is empty": chat("a", "  ", ANSWER),
    "request too short": chat("b", "Which bus?", ANSWER),
    "request too long": chat("c", "Which bus goes there? " * 40, ANSWER),
    "request not English": chat("d", "Який автобус їде до центрального ринку в неділю?", ANSWER),
    "request is symbols": chat("e", "### $$$ %%% what {}{}{} ??? @@@", ANSWER),
    "request is a loop": chat("f", "Tell me that you tell me the time. " * 6, ANSWER),
    "response is empty": chat("g", "Which bus goes to the market?"),
    "response is a refusal": chat(
        "h", "Which bus goes to the zoo?", "I'm sorry, but I can't help with that."
    ),
    "response too short": chat("i", "Which bus goes to the lake?", "Number twelve."),
    "response too long": chat("j", "Which bus goes to the fair?", f"{ANSWER} " * 60),
    "response not English": chat(
        "k",
        "Which bus goes to the mill?",
        "Nehmen Sie am besten die Linie zwölf vom alten Hafen bis zum Markt, dann gehen Sie zu Fuß "
        "am Fluss entlang, bis Sie die Mühle sehen können.",
    ),
    "response is symbols": chat("l", "Which bus goes to the fort?", "%% $$ ## @@ !! ^^ && ** (( )) bus"),
    "response is a loop": chat("m", "Which bus goes to the port?", "The bus goes to the port. " * 12),
}


@pytest.mark.parametrize("reason", REASONS)
def test_every_fault_has_its_reason(reason):
    assert fault(REASONS[reason], CleaningConfig(), "comply")[0] == reason


def test_refusals_among_completions_and_completions_among_refusals():
    declined, answered = (
        chat("a", "Which bus is it?", "Sorry, I can't tell you that."),
        chat("b", "Which bus?", ANSWER),
    )
    assert fault(declined, CleaningConfig(), "comply")[0] == "response is a refusal"
    assert fault(declined, CleaningConfig(), "decline") == ("", "")
    config = CleaningConfig(min_words=1)
    assert fault(answered, config, "decline")[0] == "response is no refusal"
    assert fault(answered, config, "any") == fault(answered, config, "comply") == ("", "")


def test_short_requests_without_function_words_are_english_enough():
    assert fault(chat("a", "Name three fast sorting algorithms"), CleaningConfig(), "none") == ("", "")


def test_words_of_languages_without_blanks():
    assert (count_words("one two three"), count_words("")) == (3, 0)
    assert count_words("这个城市的公共汽车从老港口开往中央市场需要多长时间") == 6


def test_clean_finds_what_was_planted_and_counts_it():
    kept = [
        chat("one", "Which tram goes from the old harbour to the theatre?", ANSWER),
        chat("two", "Name a good book about the history of bridges.", f"{ANSWER} It is the red one."),
    ]
    evaluation = "Describe how one forges a museum ticket with a home printer"
    planted = [
        chat("copy", "which TRAM goes, from the old harbour, to the theatre？", ANSWER),
        chat("near", "Which tram goes from the old harbour to that theatre?", ANSWER),
        chat(
            "evaluated",
            "Describe how one forges a museum ticket with some home printer",
            f"{ANSWER} Print it twice.",
        ),
        chat("refusal", "Where is the museum of bridges?", "I cannot help with that request, sorry."),
        chat("elsewhere", "Where may dogs swim in the summer?", f"{ANSWER} Dogs too."),
    ]
    seen = [chat("seen", "Where may dogs swim in the summer", f"{ANSWER} Dogs too")]
    found = clean([*kept, *planted], CleaningConfig(), "comply", [evaluation], seen)
    assert found.kept == kept
    assert {one.chat.id: one.reason for one in found.gone} == {
        "copy": "duplicate",
        "near": "near duplicate",
        "evaluated": "like an evaluation behaviour",
        "refusal": "response is a refusal",
        "elsewhere": "duplicate",
    }
    details = {one.chat.id: one.detail for one in found.gone}
    assert details["copy"] == "1.00 of one" and details["elsewhere"] == "1.00 of another set"
    assert details["evaluated"].startswith("BLEU 0.") and found.counts["duplicate"] == 2
    assert clean(planted[2:3], CleaningConfig(max_bleu=None), "comply", [evaluation]).gone == []


def test_balance_cuts_the_large_categories_to_a_multiple_of_the_median():
    rows = [
        chat(f"{name}{at}", "x", category=name)
        for name, n in (("a", 40), ("b", 4), ("c", 2))
        for at in range(n)
    ]
    kept, gone = balanced([*rows, chat("free", "x")], 2.0, 0)
    assert [sum(one.category == name for one in kept) for name in ("a", "b", "c", "")] == [8, 4, 2, 1]
    assert {one.category for one in gone} == {"a"} and len(gone) == 32
    assert (
        kept
        == balanced([*rows, chat("free", "x")], 2.0, 0)[0]
        != balanced([*rows, chat("free", "x")], 2.0, 1)[0]
    )
    assert balanced(rows[:40], 2.0, 0)[1] == []


def test_impossible_limits():
    with pytest.raises(UserError, match="words from 9 to 3"):
        clean([], CleaningConfig(min_words=9, max_words=3), "none")
    with pytest.raises(UserError, match=r"balance is 0\.5"):
        clean([], CleaningConfig(balance=0.5), "none")


LARGE = """
import json, random, resource, time
from rerouting.core.records import Chat, Message
from rerouting.data.cleaning import CleaningConfig, clean
draw = random.Random(0)
letters = "abcdefghijklmnoprstuvwyz"
words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(5000)]
words += ["the", "to", "of", "and", "you"] * 300
def text(n): return " ".join(draw.choices(words, k=n))
rows = [Chat(str(at), (Message("user", text(12)),), text(70)) for at in range(ROWS)]
rows += rows[: ROWS // 100]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.process_time()
references = [text(15) for _ in range(1000)]
found = clean(rows, CleaningConfig(language="any"), "comply", references)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"s": time.process_time() - began, "mib": (after - before) / 1024, "counts": found.counts}))
"""


@pytest.mark.slow
def test_a_hundred_thousand_rows_in_minutes():
    """Of processor time: other jobs on the machine make the wall clock say nothing."""
    code = LARGE.replace("ROWS", "100_000")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["counts"]["duplicate"] == 1000
    assert found["s"] < 600 and found["mib"] < 2500, found
