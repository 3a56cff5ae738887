"""Forms of names: a name is found however the name and the query are joined, split, elided or spelled."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.consumers import words
from infra.index import names
from infra.index.analysis import APOSTROPHES
from infra.index.folding import plain


def is_found(name: str, text: str) -> bool:
    """Return whether every word of a query is a word of the name, or meets a form, as the clauses of the index do."""
    query = words.read(text)
    forms = set(names.forms(name, None).whole)
    stored = {"".join(piece.key for piece in names.parts(part).pieces) for part in _words_of_index(name)}
    for word in (word for unit in query.units for word in unit):
        keys, spellings, symbols = query.forms_of(word)
        if symbols:
            if not forms.issuperset(symbols):
                return False
        elif forms.isdisjoint(keys) and stored.isdisjoint([*spellings, *keys]):
            parts = [names.key(part) for part in _words_of_index(word)]
            if not stored.issuperset(parts):
                return False
    return True


def _words_of_index(text: str) -> list[str]:
    """Split a text as the analyzer `words` does, except in scripts without spaces."""
    without = "".join("" if letter in APOSTROPHES else letter for letter in text)
    return "".join(letter if letter.isalnum() else " " for letter in without).split()


PARTICLES = [
    "o",
    "d",
    "l",
    "n",
    "de",
    "la",
    "du",
    "al",
    "el",
    "mc",
    "van",
    "der",
    "von",
    "den",
    "ben",
    "abu",
    "ibn",
    "san",
]
FAMILIES = ["quill", "angelo", "vries", "berg", "müller", "haddad", "brien", "cruz", "ångström", "núñez", "Đorđević"]
JOINTS = ["", " ", "-", "'", "’", "ʼ", "＇", "´", "\u1fbd", "\u1fbf", ".", ". ", "‐", " - "]
pairs = st.tuples(
    st.sampled_from(PARTICLES), st.sampled_from([*FAMILIES, *(part for part in PARTICLES if len(part) > 1)])
)
joints = st.sampled_from(JOINTS)


@given(pairs | st.tuples(st.sampled_from(FAMILIES), st.sampled_from(FAMILIES)), joints, joints, st.booleans())
@settings(max_examples=300)
def test_two_parts_are_found_however_they_are_joined(
    parts: tuple[str, str],
    stored: str,
    typed: str,
    is_capital: bool,  # noqa: FBT001
) -> None:
    name = stored.join(parts).title() if is_capital else stored.join(parts)
    assert is_found(f"Anna {name}", typed.join(parts))
    assert is_found(name, f"{typed.join(parts)}")


@given(st.lists(st.sampled_from(PARTICLES), min_size=2, max_size=3), st.sampled_from(FAMILIES), joints, joints)
@settings(max_examples=300)
def test_particles_are_found_however_they_are_joined(
    particles: list[str], family: str, stored: str, typed: str
) -> None:
    parts = [*particles, family]
    assert is_found(f"Anna {stored.join(parts)}", f"anna {typed.join(parts)}")


@given(st.text("abc", min_size=2, max_size=4), st.sampled_from(JOINTS), st.sampled_from(JOINTS))
def test_initials_are_found_however_they_are_joined(initials: str, stored: str, typed: str) -> None:
    assert is_found(f"{stored.join(initials)} Tolkien".upper(), f"{typed.join(initials)} tolkien")


SPELLED = {"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa", "ß": "ss", "æ": "ae", "đ": "dj"}


@given(st.text("".join(SPELLED) + "mlrt", min_size=2, max_size=6), st.booleans())
@settings(max_examples=300)
def test_umlauts_are_found_spelled_out_and_the_other_way_round(word: str, is_capital: bool) -> None:  # noqa: FBT001
    spelled = "".join(SPELLED.get(letter, letter) for letter in word)
    for one, other in ((word, spelled), (spelled, word), (word, plain(word))):
        assert is_found(f"Ann {one.upper() if is_capital else one}", other)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Martin Ødegård", ["odegaard", "oedegaard", "oedegard", "odegard", "ødegaard"]),
        ("Martin Odegaard", ["Ødegård", "odegaard"]),
        ("Luca D'Angelo", ["angelo", "dangelo", "d angelo", "D’ANGELO", "D´Angelo", "D\u1fbdAngelo", "D\u1fbfAngelo"]),
        *((f"Anna May O{mark}Quill", ["quill", "oquill", "o'quill", "o quill"]) for mark in APOSTROPHES if mark != "ʻ"),
        ("Anna Dell’Acqua", ["acqua", "dellacqua", "dell acqua"]),
        ("DeShawn De'Andre", ["de andre", "deandre"]),
        ("J.R.R. Tolkien", ["jrr", "j.r.r.", "j r r", "jrr tolkien", "jrrtolkien"]),
        ("JRR Tolkien", ["j.r.r. tolkien", "j r r tolkien"]),
        ("김민준", ["민준", "김민준", "김 민준"]),
        ("김 민준", ["민준", "김민준"]),
        ("남궁민수", ["민수", "남궁민수", "남궁 민수"]),
        ("선우진", ["진", "우진"]),
        ("황보 관", ["황보관"]),
        ("王子涵", ["子涵", "王 子涵"]),
        ("欧阳娜娜", ["娜娜", "欧阳 娜娜"]),
        ("山田太郎", ["太郎", "山田 太郎"]),
        ("山田 太郎", ["山田太郎"]),
        ("佐々木希", ["希", "佐々木 希"]),
        ("勅使河原宏", ["宏", "勅使河原 宏"]),
        ("山田ハナコ", ["はなこ", "ハナコ"]),
        ("ヤマダ タロウ", ["やまだ", "たろう", "ﾀﾛｳ"]),
        ("やまだ たろう", ["ヤマダ", "タロウ"]),
        ("محمد الإدريسي", ["ادريسي", "الادريسي", "الإدريسي"]),
        ("محمد إدريسي", ["الإدريسي"]),
        ("عبدالرحمن", ["عبد الرحمن"]),
        ("عبد الرحمن", ["عبدالرحمن"]),
        ("Zoe❤️Fan", ["❤", "❤️", "zoe"]),
        ("👨\u200d👩\u200d👧 Family", ["👨\u200d👩\u200d👧"]),
        ("Wave 👍🏽", ["👍", "👍🏿"]),
    ],
)
def test_name_is_found_by_its_forms(name: str, found: Sequence[str]) -> None:
    assert [text for text in found if not is_found(name, text)] == []


@pytest.mark.parametrize(
    ("name", "missed"),
    [
        ("Luca D'Angelo", ["gelo", "luca"[1:], "lucadang"]),
        ("Ka'ahumanu", ["ahumanu"]),
        ("Ng'ang'a", ["ang", "anga"]),
        ("ג'ורג'ט", ["ורג", "ורגט"]),
        ("Oʻtkir Gʻaniyev", ["tkir", "aniyev"]),
        ("Jean-Luc Grand'Maison", ["maison"]),
        ("독고준휘", ["고준휘"]),
        ("慕容雪瑶", ["容雪瑶", "瑶"]),
        ("Anna Smith", ["ann a", "nasmith", "smithanna", "annasmit"]),
        ("김민준", ["준"]),
        ("마이클 잭슨", ["이클"]),
        ("田中太郎", ["中太"]),
        ("フィッツジェラルド", ["ィッツジェラルド", "ッツジェラルド"]),
        ("Müller", ["mueler"]),
        ("Muller", ["mueller"]),
        ("Wave 🎂", ["🎁", "🎂🎁", "👍"]),
        ("👨\u200d👩\u200d👧", ["👨", "👨\u200d👩"]),
        ("-", ["🎂", "❤"]),
    ],
)
def test_name_is_not_found_by_its_middle_or_by_other_symbols(name: str, missed: Sequence[str]) -> None:
    assert [text for text in missed if is_found(name, text)] == []


@pytest.mark.parametrize(
    ("address", "starts"),
    [
        ("o'neil@example.com", ["@oneil", "@neil"]),
        ("anna.d’angelo+x@example.com", ["@dangelo", "@angelo"]),
        ("oneil@example.com", []),
        (None, []),
    ],
)
def test_address_with_an_apostrophe_is_found_without(address: str | None, starts: list[str]) -> None:
    assert names.forms(None, address).starts == starts


def test_usual_name_has_one_form() -> None:
    assert names.forms("Anna Smith", "anna.smith@example.com") == (["annasmith"], [])


@pytest.mark.parametrize("name", ["José García", "O'Quill", "王小明", "Mary-Ann"])
def test_usual_capitals_need_no_form(name: str) -> None:
    assert names.as_sent(name) is None


@pytest.mark.parametrize("name", ["josé garcía", "McDonald", "ANN LEE", "van der Berg", "d'Angelo"])
def test_unusual_capitals_are_kept(name: str) -> None:
    assert names.as_sent(name) == f"={name}"
    assert {"=", f"={name}"} <= set(names.forms(name, None).whole)


parts_of_names = st.sampled_from(
    [*PARTICLES, *FAMILIES, "Müller", "Ann", "Ødegård", "O'Quill", "김민준", "王小明", "राम"]
)


@given(st.lists(parts_of_names, min_size=1, max_size=3).map(" ".join) | st.text("김민王小 aÄ", min_size=1, max_size=5))
def test_fast_ways_make_the_same_forms(name: str) -> None:
    fast, slow = names.forms(name, None), names.forms_of_any_name(name)
    assert [set(terms) for terms in fast] == [set(terms) for terms in slow]


@given(st.text(max_size=255) | st.text("aÄ' -.", max_size=255) | st.text("王金やヤ", max_size=255))
@settings(max_examples=500)
def test_forms_are_few_and_short_for_any_name(name: str) -> None:
    whole, starts = names.forms(name, name)
    letters = [form for form in whole if not form.startswith(names.AS_SENT)]
    assert len(letters) <= names.MAX_FORMS + len(name)
    assert len(starts) <= 2 * names.MAX_FORMS
    assert max((len(form.encode()) for form in [*whole, *starts]), default=0) < 32_766
