"""What an id is, against Unicode's own idea of a control character."""

import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import ID_PATTERN, MAX_ID_CHARS, is_id, wrong_with

texts = st.text(st.characters(exclude_categories=()), max_size=MAX_ID_CHARS + 2)


@given(texts | st.text(max_size=8).map(lambda text: text * 64))
def test_an_id_is_1_to_256_characters_without_control_characters_or_halves_of_surrogate_pairs(text):
    wanted = 1 <= len(text) <= 256 and not {unicodedata.category(c) for c in text} & {"Cc", "Cs"}
    assert is_id(text) is wanted
    assert (wrong_with(text) is None) is wanted


@given(st.text(max_size=MAX_ID_CHARS + 2))
def test_the_pattern_in_the_document_says_the_same(text):
    assert (re.fullmatch(ID_PATTERN, text) is not None) is is_id(text)
