"""English by its function words."""

import pytest

from rerouting.core.english import reads_english


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
