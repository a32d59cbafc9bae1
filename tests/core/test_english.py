"""English by its function words."""

from importlib.resources import as_file, files

import pytest

from rerouting.core.english import reads_english
from rerouting.core.files import read_jsonl


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("First, you have to mix the flour and the sugar, and then bake it in the oven.", True),
        ("Per prima cosa mescola la farina e lo zucchero, poi cuoci la torta nel forno caldo.", False),
        ("Okokuqala xuba ufulawa noshukela, bese ubhaka ikhekhe kuhhavini oshisayo ihora elilodwa.", False),
        ("Сначала смешайте муку и сахар.", False),
        ("先把面粉和糖混合。", False),
        ("Mix flour.", None),
        ("", None),
    ],
)
def test_reads_english(text, english):
    assert reads_english(text) is english


def test_no_bundled_translation_reads_as_english():
    with as_file(files("rerouting.data") / "bundled" / "translations.jsonl") as file:
        rows = read_jsonl(file)
    assert not [row for row in rows if reads_english(row["translation"])]
    refusal = "Non posso aiutarti in questo, mi dispiace. Posso aiutarti a trovare qualcosa di diverso, a te la scelta."
    assert reads_english(refusal) is False
