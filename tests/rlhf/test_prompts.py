"""The tag is_safety(p) of §3.2.3 comes from the prompt's own field."""

from puna.core.records import Message, Prompt
from puna.rlhf.prompts import EncodedPrompt, is_safety

ASK = (Message(role="user", content="how do i burn the hay?"),)


def test_the_tag_decides_and_not_the_guideline() -> None:
    prompts = [
        Prompt(id="adversarial", messages=ASK, guideline="safety", is_safety=True),
        Prompt(id="borderline", messages=ASK, guideline="safety", is_safety=False),
        Prompt(id="tagged", messages=ASK, guideline="helpfulness", is_safety=True),
    ]
    assert is_safety([EncodedPrompt(prompt, [1]) for prompt in prompts]).tolist() == [True, False, True]
