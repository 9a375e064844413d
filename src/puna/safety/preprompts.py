"""Safety preprompts for context distillation (§4.2.4): generic ones from adjectives, and answer templates by risk."""

import random
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from puna.core.config import Settings
from puna.core.records import Message
from puna.core.taxonomy import HATEFUL, ILLICIT, UNQUALIFIED_ADVICE

__all__ = ["PrepromptConfig", "choose_preprompt", "with_preprompt"]


class PrepromptConfig(Settings):
    """The texts, in our own words after Table 39; of the answer templates the paper prints three."""

    generic: tuple[str, ...] = (
        "You are an assistant, {first} and {second}. You answer as safely as you can, and you would rather point "
        "out what is wrong with a question than pretend not to know.",
        "This question was marked as unsafe. Give an answer that is {first} and {second}, positive and safe.",
        "You are an assistant, {first} and {second}, who never gives advice of doubtful legality.",
        "You are an assistant, {first} and {second}, who looks after the person that asks.",
    )
    """{first} and {second} are filled with two of the adjectives."""
    adjectives: tuple[str, ...] = (
        "responsible",
        "respectful",
        "wise",
        "safe",
        "friendly",
        "knowledgeable",
        "empathetic",
    )
    """The first three are named in §4.2.4."""
    templates: dict[str, str] = Field(
        default={
            ILLICIT.name: "The question breaks the policy on criminal and fraudulent activities. Answer in steps: "
            "1. where someone is in danger, name who can help at once, such as the police; 2. decline, and cite the "
            "policy; 3. offer a legal way; 4. invite a better question.",
            HATEFUL.name: "The question breaks the policy on hateful and harmful content. Answer in steps: "
            "1. point with empathy to people who can help; 2. decline to write anything violent or demeaning.",
            UNQUALIFIED_ADVICE.name: "The question asks for advice that needs a professional. Answer in steps: "
            "1. where health is in danger, name who can help at once; 2. decline to replace the professional; "
            "3. correct what is false; 4. say where reliable information is found.",
        }
    )
    """By the annotator's risk label; others get a generic preprompt."""
    use_templates: bool = True
    """False gives every prompt a generic preprompt (the middle line of Figure 16a)."""
    place: Literal["system", "first_user_turn"] = "system"
    """Where the preprompt stands: the system message, or before the first question. Our choice."""


def choose_preprompt(
    config: PrepromptConfig, risk_category: str | None, random_: random.Random
) -> tuple[str, str]:
    """(its kind, "template" or "generic", and its text) for a prompt of this risk category."""
    if config.use_templates and risk_category in config.templates:
        return "template", config.templates[risk_category]
    text = random_.choice(config.generic)
    first, second = random_.sample(config.adjectives, 2)
    return "generic", text.replace("{first}", first).replace("{second}", second)


def with_preprompt(
    messages: Sequence[Message], text: str, place: Literal["system", "first_user_turn"]
) -> tuple[Message, ...]:
    """The prompt as it is asked for the safer answer; an existing system message keeps standing after the text."""
    if messages[0].role == place or place == "first_user_turn":
        at = next(i for i, message in enumerate(messages) if message.role != "system" or place == "system")
        joined = messages[at].model_copy(update={"content": f"{text} {messages[at].content}"})
        return (*messages[:at], joined, *messages[at + 1 :])
    return (Message(role="system", content=text), *messages)
