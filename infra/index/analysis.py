"""Analyzers of the index. Fields in `mapping.py` refer to the names here."""

from collections.abc import Sequence
from typing import Any


def _edge(first: int) -> dict[str, Any]:
    return {"type": "edge_ngram", "min_gram": first, "max_gram": 255}


def _analyzer(tokenizer: str, *filters: str, chars: Sequence[str] = ()) -> dict[str, Any]:
    return {"type": "custom", "tokenizer": tokenizer, "filter": [*filters], "char_filter": [*chars]}


APOSTROPHES = "'’‘ʼ`´＇′‛׳״ʹʻʽʾʿˈ՚‵᾽᾿Ꞌꞌ"
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
        # St.John and john_smith are two words. Unicode's rules would join each to a single word.
        "joints": {"type": "mapping", "mappings": [". => \\u0020", "_ => \\u0020"]},
        "punctuation": {"type": "pattern_replace", "pattern": r"[\p{P}\p{S}\s]+", "replacement": " "},
    },
    "tokenizer": {"address_parts": {"type": "char_group", "tokenize_on_chars": ["@", ".", "_", "+", "-"]}},
    "filter": {
        "starts": _edge(1),
        "digit_starts": _edge(3),
        # Keeps words of scripts without spaces; every other token becomes empty.
        "unspaced": {
            "type": "pattern_replace",
            "pattern": r".*[^\p{IsHan}\p{IsHiragana}\p{IsKatakana}\p{IsThai}\p{IsLao}\p{IsKhmer}\p{IsMyanmar}ー].*",
            "replacement": "",
        },
        "not_empty": {"type": "length", "min": 1},
    },
    "analyzer": {
        "words": _analyzer("icu_tokenizer", "icu_folding", chars=["apostrophes", "compatible", "joints"]),
        "word_starts": _analyzer(
            "icu_tokenizer", "icu_folding", "starts", chars=["apostrophes", "compatible", "joints"]
        ),
        "runs": _analyzer("whitespace", *UNSPACED, chars=["apostrophes", "compatible", "punctuation"]),
        "run_starts": _analyzer("whitespace", *UNSPACED, "starts", chars=["apostrophes", "compatible", "punctuation"]),
        "whole_name": _analyzer("keyword", "icu_folding", "trim", chars=["apostrophes", "compatible", "punctuation"]),
        "address": _analyzer("keyword", "icu_folding"),
        "parts": _analyzer("address_parts", "icu_folding"),
        "part_starts": _analyzer("address_parts", "icu_folding", "starts"),
        "digit_starts": _analyzer("keyword", "digit_starts"),
        "form_starts": _analyzer("keyword", "starts"),
    },
    "normalizer": {"folded": {"type": "custom", "filter": ["icu_folding"]}},
}
