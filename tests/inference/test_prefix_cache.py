from puna.inference.prefix_cache import Match, PrefixCache
from puna.model.blockwise_attention import BLOCK_TOKENS

LONG = list(range(2 * BLOCK_TOKENS + 10))


def filled() -> PrefixCache:
    cache = PrefixCache(max_idle=3)
    cache.enter(LONG, [1, 2, 3])
    cache.mark_ready([1, 2, 3])
    return cache


def test_a_known_prompt_is_found_up_to_its_last_token() -> None:
    assert filled().match(LONG) == Match([1, 2], tail=3, must_wait=False)
    assert filled().match(LONG[: 2 * BLOCK_TOKENS]) == Match([1], tail=2, must_wait=False)
    assert filled().match(LONG[: BLOCK_TOKENS + 5]) == Match([1], tail=None, must_wait=False)
    assert filled().match([*LONG, 7]) == Match([1, 2], tail=None, must_wait=False)
    assert filled().match([5, *LONG]) == Match([], tail=None, must_wait=False)


def test_who_needs_what_is_being_computed_waits() -> None:
    cache = PrefixCache(max_idle=3)
    cache.enter(LONG, [1, 2, 3])
    assert cache.match(LONG).must_wait
    cache.mark_ready([1])
    assert cache.match(LONG) == Match([1], tail=None, must_wait=True)
    assert not cache.match(LONG[: BLOCK_TOKENS + 5]).must_wait
    assert cache.retire(2) == [2]  # its computer left before it was ready: nobody waits for it any more
    assert cache.match(LONG) == Match([1], tail=None, must_wait=False)


def test_the_least_recently_used_block_goes_first_with_what_continues_it() -> None:
    cache = filled()
    for block in (3, 2, 1):
        assert cache.retire(block) == []
    assert cache.evict() == [3]
    cache.use(1)
    assert cache.evict() == [2]
    assert cache.match(LONG) == Match([1], tail=None, must_wait=False)


def test_only_so_many_idle_blocks_are_kept() -> None:
    cache = filled()
    cache.enter([7] * 10, [4])
    cache.mark_ready([4])
    for block in (3, 2, 1):
        cache.retire(block)
    assert cache.retire(4) == [3]
    assert cache.n_idle == 3


def test_clear_forgets_idle_blocks_and_those_in_use() -> None:
    cache = filled()
    cache.retire(3)
    assert cache.clear() == [3]
    assert cache.retire(2) == [2]
    assert cache.match(LONG) == Match([], tail=None, must_wait=False)
