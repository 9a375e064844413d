"""The three bins, and the pair that has none."""

from puna.core.safety_bins import LABELS_OF_BIN, safety_bin


def test_only_an_unsafe_choice_over_a_safe_one_is_excluded() -> None:
    bins = {
        (chosen, rejected): safety_bin(chosen_is_safe=chosen, rejected_is_safe=rejected)
        for chosen in (True, False)
        for rejected in (True, False)
    }
    assert bins == {
        (True, False): "chosen_safe_rejected_unsafe",
        (True, True): "both_safe",
        (False, False): "both_unsafe",
        (False, True): None,
    }


def test_labels_of_a_bin_make_that_bin() -> None:
    for name, (chosen, rejected) in LABELS_OF_BIN.items():
        assert safety_bin(chosen_is_safe=chosen, rejected_is_safe=rejected) == name
