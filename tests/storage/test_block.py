import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.block import plan_blocks


@given(n_samples=st.integers(0, 500), block=st.integers(1, 60))
def test_blocks_cover_every_sample_once_in_order(n_samples: int, block: int) -> None:
    planned = plan_blocks([n_samples], block=block)
    assert [row for part in planned for row in range(part.start, part.stop)] == list(range(n_samples))
    assert [part.index for part in planned] == list(range(len(planned)))
    assert all(part.start == part.index * block and 0 < part.n_samples <= block for part in planned)


def test_a_block_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        plan_blocks([3], block=0)
