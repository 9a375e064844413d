"""What is held out depends on the content, the share, the seed and the draw's name, and on nothing else."""

from puna.core.splits import is_held_out

KEYS = [f"prompt {n}" for n in range(4000)]
PROMPTS = [5, 7, 9, 13, 14, 17, 21, 22, 24, 31, 33]
DIALOGS = [5, 13, 24, 28, 29, 31, 33, 36, 37]


def test_held_out_share_is_near_the_fraction() -> None:
    """4,000 keys at 0.1: six standard deviations are 0.028."""
    share = sum(is_held_out(key, 0.1) for key in KEYS) / len(KEYS)
    assert abs(share - 0.1) < 0.028
    assert not is_held_out("x", 0.0)


def test_a_larger_share_holds_out_all_of_a_smaller_one() -> None:
    assert all(is_held_out(key, 0.2) for key in KEYS if is_held_out(key, 0.1))


def test_the_draws_are_written_down() -> None:
    """Earlier runs held out exactly these; a change would train on what they tested on."""
    assert [n for n in range(40) if is_held_out(KEYS[n], 0.2)] == PROMPTS
    assert [n for n in range(40) if is_held_out(KEYS[n], 0.2, stream="held out")] == DIALOGS
