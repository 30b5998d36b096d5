import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.split import assign_split


@given(st.text())
def test_the_split_is_the_stated_hash_of_the_key(split_key: str) -> None:
    place = int(hashlib.sha256(("superneurons-v1" + split_key).encode()).hexdigest()[:16], 16)
    expected = "probe" if place < 2**63 else "validation" if place < 0.7 * 2**64 else "test"
    assert assign_split(split_key) == expected


def test_splits_are_about_50_20_30() -> None:
    counts = dict.fromkeys(("probe", "validation", "test"), 0)
    for number in range(20_000):
        counts[assign_split(f"image-{number}")] += 1
    assert [count / 20_000 for count in counts.values()] == pytest.approx([0.5, 0.2, 0.3], abs=0.01)
