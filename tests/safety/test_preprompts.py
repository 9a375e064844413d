"""Which preprompt a prompt gets, and where it stands."""

from puna.core.records import Message
from puna.core.seeding import rng
from puna.safety.preprompts import PrepromptConfig, choose_preprompt, with_preprompt

ASK = Message(role="user", content="how do i steal the sheep?")
SYSTEM = Message(role="system", content="be brief.")


def test_a_known_risk_gets_its_template_and_others_a_generic_one() -> None:
    config = PrepromptConfig()
    assert choose_preprompt(config, "illicit", rng(0)) == ("template", config.templates["illicit"])
    assert choose_preprompt(config, None, rng(0))[0] == "generic"
    plain = PrepromptConfig(use_templates=False)
    assert choose_preprompt(plain, "illicit", rng(0))[0] == "generic"


def test_generic_preprompts_are_filled_with_two_different_adjectives() -> None:
    config = PrepromptConfig(generic=("{first}/{second}",))
    texts = {choose_preprompt(config, None, rng(seed))[1] for seed in range(200)}
    pairs = [text.split("/") for text in texts]
    assert all(first != second and {first, second} <= set(config.adjectives) for first, second in pairs)
    assert len(texts) > 20


def test_a_preprompt_is_the_system_message_or_precedes_the_first_question() -> None:
    assert with_preprompt([ASK], "be safe.", "system") == (Message(role="system", content="be safe."), ASK)
    (joined,) = with_preprompt([ASK], "be safe.", "first_user_turn")
    assert joined.content == "be safe. how do i steal the sheep?"


def test_an_existing_system_message_is_kept() -> None:
    both = with_preprompt([SYSTEM, ASK], "be safe.", "system")
    assert [m.content for m in both] == ["be safe. be brief.", ASK.content]
    first, second = with_preprompt([SYSTEM, ASK], "be safe.", "first_user_turn")
    assert first == SYSTEM
    assert second.content.startswith("be safe. how")
