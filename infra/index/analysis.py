"""Analyzers of the index. Fields in `mapping.py` refer to the names here.

Most texts are normalized before, in Python (`search_texts.py`), because an analyzer with filters for characters takes
several times as long as its tokenizer.
"""

from collections.abc import Sequence
from typing import Any


def _edge(first: int, last: int = 255) -> dict[str, Any]:
    return {"type": "edge_ngram", "min_gram": first, "max_gram": last}


def _analyzer(tokenizer: str, *filters: str, chars: Sequence[str] = ()) -> dict[str, Any]:
    return {"type": "custom", "tokenizer": tokenizer, "filter": [*filters], "char_filter": [*chars]}


DIGIT_STARTS = range(3, 7)
"""Digits of an indexed start of a phone number. Few numbers have a longer start in common: they are looked up among the
whole numbers, by their prefix."""
APOSTROPHES = "'’‘ʼ`´＇′‛׳״ʹʻʽʾʿˈ՚‵᾽᾿Ꞌꞌ"
TEXT_END = "\ufdd0"
"""Before and between the texts of a document. Unicode reserves this character for the internal use of programs."""
HEBREW = "אבגדהוזחטיךכלםמןנסעףפץצקרשתװױײ"
UNSPACED = ("icu_folding", "unspaced", "not_empty")

ANALYSIS: dict[str, Any] = {
    "char_filter": {
        # O'Brien, O’Brien and OBrien are the same word. In Hebrew, a quotation mark inside a word stands for gershayim.
        "apostrophes": {
            "type": "mapping",
            "mappings": [*(f"{mark} => " for mark in APOSTROPHES), *(f'{letter}" => {letter}' for letter in HEBREW)],
        },
        # The normalization of queries: Yu² becomes yu2, half-width kana become usual kana.
        "compatible": {"type": "icu_normalizer", "name": "nfkc", "mode": "compose"},
        "punctuation": {"type": "pattern_replace", "pattern": r"[\p{P}\p{S}\s]+", "replacement": " "},
    },
    "tokenizer": {
        # Yields the text, and the text after each space.
        "ends": {"type": "path_hierarchy", "delimiter": " ", "reverse": True},
        # By default a token is split after 255 characters.
        "texts": {"type": "char_group", "tokenize_on_chars": [TEXT_END], "max_token_length": 100_000},
    },
    "filter": {
        "starts": _edge(1),
        "digit_starts": _edge(DIGIT_STARTS.start, DIGIT_STARTS.stop - 1),
        # Keeps words of scripts without spaces; every other token becomes empty.
        "unspaced": {
            "type": "pattern_replace",
            "pattern": r".*[^\p{IsHan}\p{IsHiragana}\p{IsKatakana}\p{IsThai}\p{IsLao}\p{IsKhmer}\p{IsMyanmar}ー].*",
            "replacement": "",
        },
        "not_empty": {"type": "length", "min": 1},
        "empty": {"type": "length", "max": 0},
    },
    "analyzer": {
        "nothing": _analyzer("keyword", "empty"),
        "words": _analyzer("icu_tokenizer", "icu_folding"),
        "word_starts": _analyzer("icu_tokenizer", "icu_folding", "starts"),
        "runs": _analyzer("whitespace", *UNSPACED, chars=["apostrophes", "compatible", "punctuation"]),
        "run_starts": _analyzer("whitespace", *UNSPACED, "starts", chars=["apostrophes", "compatible", "punctuation"]),
        "texts": _analyzer("texts"),
        "part_starts": _analyzer("whitespace", "starts"),
        "part_ends": _analyzer("ends"),
        "digit_starts": _analyzer("keyword", "digit_starts"),
        "form_starts": _analyzer("keyword", "starts"),
    },
}
