"""Languages by BCP 47 code: their English names, and their codes in two families of translation models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """One language; "" where a family lacks it."""

    name: str
    nllb: str
    m2m: str


LANGUAGES = {
    "en": Language("English", "eng_Latn", "__en__"),
    "zh-CN": Language("Simplified Chinese", "zho_Hans", "__zh__"),
    "it": Language("Italian", "ita_Latn", "__it__"),
    "uk": Language("Ukrainian", "ukr_Cyrl", "__uk__"),
    "th": Language("Thai", "tha_Thai", "__th__"),
    "zu": Language("Zulu", "zul_Latn", "__zu__"),
    "gn": Language("Guarani", "grn_Latn", ""),
    "de": Language("German", "deu_Latn", "__de__"),
    "fr": Language("French", "fra_Latn", "__fr__"),
    "es": Language("Spanish", "spa_Latn", "__es__"),
    "ar": Language("Arabic", "arb_Arab", "__ar__"),
    "hi": Language("Hindi", "hin_Deva", "__hi__"),
    "bn": Language("Bengali", "ben_Beng", "__bn__"),
    "sw": Language("Swahili", "swh_Latn", "__sw__"),
    "vi": Language("Vietnamese", "vie_Latn", "__vi__"),
    "ko": Language("Korean", "kor_Hang", "__ko__"),
    "ja": Language("Japanese", "jpn_Jpan", "__ja__"),
    "jv": Language("Javanese", "jav_Latn", "__jv__"),
}


def name_of(code: str) -> str:
    """A language's English name, or its code if it is not known here."""
    return LANGUAGES[code].name if code in LANGUAGES else code
