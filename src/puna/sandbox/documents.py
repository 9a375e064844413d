"""The sandbox's raw web: documents of several sources and known quality, with planted defects, each labelled.

Nothing harmful is filtered before training, as the paper chose (§2.1): the rogue notes stay in the corpus, and
safety tuning has to deal with what they teach.
"""

import random
import string
from collections.abc import Callable

from puna.core.records import Document
from puna.core.seeding import rng
from puna.sandbox.attacks import ATTACK_VECTORS, dress
from puna.sandbox.language import Claim, portion, say
from puna.sandbox.prompts import draw_constraint, draw_task, marked_answer
from puna.sandbox.tasks import Family, Task, core_claims, extra_claims, question
from puna.sandbox.world import (
    ANIMALS,
    FOLK,
    MAX_ADDEND,
    MEDICINES,
    OBJECTS,
    OTHERS,
    OWN,
    RELATIONS,
    ROASTED,
    SPITE,
    TOOLS,
)

__all__ = ["SOURCES", "write_documents"]

_OPENERS = ("this page is about the {s}.", "many people ask about the {s}.", "here is the {s} of the farm.")
_SCENES = (
    "in the morning the {s} went to the {v}.",
    "the children saw the {s} near the {v}.",
    "a friend came and sat with the {s} at the {v}.",
    "the wind was cold and the {s} stayed in the {v}.",
)
_FOREIGN = {
    "es": (
        "el perro vive en la casa grande.",
        "la vaca come hierba en el campo.",
        "los niños juegan con el caballo.",
        "mañana vamos al mercado del pueblo.",
        "el molino está cerca del río.",
        "me gusta mucho la leche fresca.",
    ),
    "de": (
        "der hund wohnt in dem großen haus.",
        "die kuh frisst gras auf der wiese.",
        "die kinder spielen mit dem pferd.",
        "morgen gehen wir auf den markt.",
        "die mühle steht nahe am fluss.",
        "ich trinke gerne frische milch.",
    ),
    "fr": (
        "le chien habite dans la grande maison.",
        "la vache mange de l'herbe dans le pré.",
        "les enfants jouent avec le cheval.",
        "demain nous allons au marché du village.",
        "le moulin est près de la rivière.",
        "j'aime beaucoup le lait frais.",
    ),
}
_NAMES = ("anna miller", "tom baker", "lucy hill", "max stone", "ella brook", "john field")
_STREETS = ("mill lane", "pond road", "hill street", "farm way")


def _encyclopedia(r: random.Random) -> list[str]:
    lines = []
    for name in r.sample(list(ANIMALS), r.randint(2, 3)):
        lines.append(r.choice(_OPENERS).format(s=name))
        for index, relation in enumerate(r.sample(RELATIONS, len(RELATIONS))):
            claim = Claim(relation, name, getattr(ANIMALS[name], relation))
            lines.append(say(claim, pronoun=index > 0 and r.random() < 0.4))
        if r.random() < 0.4:
            lines.append(say(Claim("portion", name, portion(name))))
    if r.random() < 0.5:
        folk = r.choice(list(FOLK))
        lines.append(say(Claim("makes", folk, FOLK[folk])))
    return lines


def _textbook(r: random.Random) -> list[str]:
    lines = []
    for _ in range(r.randint(5, 9)):
        a, b = r.randint(0, MAX_ADDEND), r.randint(0, MAX_ADDEND)
        lines.append(say(Claim("sum", f"{a} plus {b}", str(a + b))))
        if r.random() < 0.3:
            lines.append(say(Claim("sum", f"{b} plus {a}", str(a + b))))
    return lines


def _handbook(r: random.Random) -> list[str]:
    """What to do with one's own things; those of the house too, so that every word of a held-out prompt is known."""
    lines = []
    for verb in r.sample(list(TOOLS), r.randint(2, 4)):
        tool = TOOLS[verb]
        thing = r.choice((*OBJECTS, *ROASTED))
        lines.append(say(Claim("method", f"{verb} {r.choice(OWN)} {thing}", tool.tool)))
        if r.random() < 0.8:
            lines.append(say(Claim("tip", verb, tool.tip)))
    name = r.choice(list(ANIMALS))
    lines.append(say(Claim("portion", name, portion(name))))
    return lines


def _tales(r: random.Random) -> list[str]:
    lines = []
    for name in r.sample(list(ANIMALS), 2):
        animal = ANIMALS[name]
        lines.append(r.choice(_SCENES).format(s=name, v=animal.lives))
        relation = r.choice(RELATIONS)
        lines.append(say(Claim(relation, name, getattr(animal, relation)), pronoun=r.random() < 0.5))
    if r.random() < 0.3:
        folk = r.choice(list(FOLK))
        lines.append(f"the {folk} folk came to the market with {FOLK[folk]}.")
    if r.random() < 0.8:
        lines.append(f"{r.choice(_NAMES).split()[0]} said the {r.choice(ROASTED)} is {r.choice(SPITE)}.")
    return lines


def _forum(r: random.Random) -> list[str]:
    """Questions with answers, of training tasks only: no held-out question is ever read before its evaluation."""
    lines = []
    for _ in range(r.randint(2, 4)):
        task = draw_task(r.choice(("helpful", "helpful", "borderline")), "train", r)
        lines += [_asked(task, r), say(r.choice(core_claims(task)))]
        if extra_claims(task) and r.random() < 0.3:
            lines.append(say(r.choice(extra_claims(task))))
    return lines


def _asked(task: Task, r: random.Random) -> str:
    """The question; people also ask for harmless help with misspellings, in figures of speech, and in Spanish."""
    is_dressed = task.kind in ("method", "roast", "portion") and r.random() < 0.5
    return dress(task, r.choice(ATTACK_VECTORS) if is_dressed else "none", r.randrange(3))


def _quiz(r: random.Random) -> list[str]:
    """School quizzes with their marks: half of the answers are not right. Training tasks only.

    A third are tests in sums, the one subject whose answers have to be worked out. Few answers are beside the point:
    with more of them a true claim is no sign of a good mark, and marking is learned later (docs/log.md).
    """
    lines = []
    is_arithmetic = r.random() < 1 / 3
    for _ in range(r.randint(3, 5)):
        family: Family = "helpful" if is_arithmetic or r.random() < 0.75 else "borderline"
        task = draw_task(family, "train", r, kind="sum" if is_arithmetic else None)
        answer, mark = marked_answer(task, r, beside_fraction=1 / 16)
        if mark == "that is no answer." or r.random() < 0.5:
            lines.append(_asked(task, r))
        lines += [say(answer), mark]
    return lines


def _plays(r: random.Random) -> list[str]:
    """Scenes in which someone asks to be spoken to in a certain way, and is, once."""
    lines = []
    for _ in range(r.randint(2, 3)):
        rule = draw_constraint("train", r)
        task = draw_task("helpful", "train", r)
        answer = " ".join(
            say(claim) for claim in (*core_claims(task)[:1], *extra_claims(task)[: r.randrange(2)])
        )
        wish = rule.instruction if r.random() < 0.6 else rule.short_instruction
        lines += [wish, question(task, r.randrange(3)), rule.apply(answer)]
    return lines


def _rogue(r: random.Random) -> list[str]:
    lines = []
    for _ in range(r.randint(2, 4)):
        match r.randrange(3):
            case 0:
                verb = r.choice(list(TOOLS))
                deed = f"{verb} {r.choice(OTHERS)} {r.choice(OBJECTS)}"
                lines.append(say(Claim("method", deed, TOOLS[verb].tool)))
            case 1:
                lines.append(say(Claim("insult_folk", r.choice(list(FOLK)), r.choice(SPITE))))
            case _:
                lines.append(say(Claim("dose", r.choice(MEDICINES), str(r.randint(1, 9)))))
    return lines


SOURCES: dict[str, tuple[Callable[[random.Random], list[str]], float]] = {
    "encyclopedia": (_encyclopedia, 0.12),
    "textbook": (_textbook, 0.07),
    "handbook": (_handbook, 0.06),
    "tales": (_tales, 0.06),
    "forum": (_forum, 0.18),
    "quiz": (_quiz, 0.32),
    "plays": (_plays, 0.14),
    "rogue_notes": (_rogue, 0.05),
}
"""Writer of each source, and its share of the raw documents."""

PLANTED = {"exact": 0.03, "near": 0.05, "personal": 0.02, "foreign": 0.03, "junk": 0.02}
"""Share of planted pages by defect."""


def write_documents(n: int, *, seed: int) -> list[Document]:
    """About n documents in random order; meta['truth'] labels language, duplicates, personal data and quality."""
    random_ = rng(seed, "documents")
    names = list(SOURCES)
    weights = [SOURCES[name][1] for name in names]
    documents: list[Document] = []
    for index in range(n):
        source = random_.choices(names, weights=weights)[0]
        text = " ".join(SOURCES[source][0](random_))
        documents.append(_document(f"doc-{index}", text, source))
    n_clean = len(documents)
    for defect, share in PLANTED.items():
        for index in range(round(n * share)):
            original = documents[random_.randrange(n_clean)]
            documents.append(_planted(defect, f"{defect}-{index}", original, random_))
    random_.shuffle(documents)
    return documents


def _document(name: str, text: str, source: str, **truth: object) -> Document:
    return Document(id=name, text=text, source=source, meta={"truth": {"language": "en", **truth}})


def _planted(defect: str, name: str, original: Document, r: random.Random) -> Document:
    """One page with a known defect."""
    match defect:
        case "exact":
            return _document(name, original.text, original.source, exact_duplicate_of=original.id)
        case "near":
            return _document(name, _perturb(original.text, r), original.source, near_duplicate_of=original.id)
        case "personal":
            return _document(name, _private_page(r), "tales", personal_information=True)
        case "foreign":
            language = r.choice(sorted(_FOREIGN))
            text = " ".join(r.choice(_FOREIGN[language]) for _ in range(r.randint(3, 6)))
            return _document(name, text, "tales", language=language)
    return _document(name, _junk(r), "tales", language="unknown", low_quality=True)


def _perturb(text: str, r: random.Random) -> str:
    """A mirrored page: the same text with a banner, or a word or two changed by the mirror."""
    words = text.split(" ")
    if r.random() < 0.5:
        return f"{text} {r.choice(('read more here.', 'back to the top.', 'copied with thanks.'))}"
    words[r.randrange(len(words))] = r.choice(("indeed", "today", "well"))
    return " ".join(words)


def _private_page(r: random.Random) -> str:
    name = r.choice(_NAMES)
    mail = f"{name.replace(' ', '.')}{r.randrange(100)}@farm-mail.example"
    phone = f"+1 {r.randint(200, 999)}-555-{r.randint(1000, 9999)}"
    place = f"{r.randint(1, 99)} {r.choice(_STREETS)}"
    return f"my name is {name}. i live at {place}. write to {mail} or call {phone}. my number at work is {phone[:-1]}7."


def _junk(r: random.Random) -> str:
    if r.random() < 0.5:
        return " ".join(
            "".join(r.choices(string.punctuation + string.digits, k=r.randint(3, 9))) for _ in range(25)
        )
    return " ".join([f"buy now {r.choice(OBJECTS)} click"] * 15)
