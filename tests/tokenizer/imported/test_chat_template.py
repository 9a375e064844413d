"""A stranger's template can render, and nothing else: not hang, not eat memory, not reach Python."""

import datetime
import gc
import signal
import threading

import pytest

from puna.core.errors import ProtocolError
from puna.tokenizer.imported import template_worker
from puna.tokenizer.imported.chat_template import ChatTemplate

MESSAGES = [{"role": "user", "content": "hé <b>"}]


def rendered(source: str, **variables: object) -> str:
    return ChatTemplate(source, name="test", variables=variables).render([(MESSAGES, True)])[0]


def test_blocks_leave_no_blank_lines_as_in_transformers() -> None:
    source = "{% for m in messages %}\n    {% if true %}\n{{ m.role }}\n    {% endif %}\n{% endfor %}"
    assert rendered(source) == "user\n"


def test_the_usual_globals_filters_and_tags() -> None:
    year = str(datetime.datetime.now().year)
    assert rendered("{{ strftime_now('%Y') }}") == year
    assert rendered("{{ messages[0] | tojson }}") == '{"role": "user", "content": "hé <b>"}'
    assert rendered("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"
    assert rendered("{% generation %}{{ bos_token }}{% endgeneration %}", bos_token="<s>") == "<s>"
    assert rendered("{{ add_generation_prompt }}{{ tools is defined }}") == "TrueFalse"
    assert rendered("{% set ns = namespace(n=1) %}{% set ns.n = 2 %}{{ ns.n }}") == "2"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ raise_exception('No such role.') }}", "No such role"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ missing.attribute }}", "UndefinedError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ raise_exception.__globals__['json'] }}", "SecurityError"),
        ("{% include 'x' %}", "Error"),
        ("{% for i in range(1000000) %}{% endfor %}", "OverflowError"),
        ("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", "characters of output"),
        ("{{ 'x' * 99999999999 }}", "memory|characters"),
        ("{{ '%9999999999d' % 1 }}", "memory|Overflow"),
        ("{{ 'x' | center(9999999999) }}", "memory"),
        (
            "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}"
            "{{ ns.l }}",
            "too long|memory",
        ),
    ],
)
def test_broken_and_hostile_templates_are_named(source: str, problem: str) -> None:
    with pytest.raises(ProtocolError, match=f"chat template of test.*({problem})"):
        rendered(source)


def test_endless_work_is_cut_off() -> None:
    """By the timer of processor time that the worker set itself: the signal that ended it says so."""
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    template = ChatTemplate(
        "{% if messages[0].content == 'x' %}" + loop + "{% endif %}fine", name="test", variables={}
    )
    assert template.render([(MESSAGES, True)]) == ["fine"]
    worker = template._process
    assert worker is not None
    with pytest.raises(ProtocolError, match="runs too long"):
        template.render([([{"role": "user", "content": "x"}], True)])
    assert worker.returncode == -signal.SIGPROF
    assert template.render([(MESSAGES, True)]) == ["fine"]  # the next request starts another process


def test_the_limit_of_time_is_for_one_request() -> None:
    template = ChatTemplate("{{ messages[0].content }}", name="test", variables={})
    assert [template.render([(MESSAGES, True)] * 3) for _ in range(3)] == [["hé <b>"] * 3] * 3


def test_threads_share_a_process() -> None:
    template = ChatTemplate("{{ messages[0].content }}", name="test", variables={})
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        found[number] = template.render([([{"role": "user", "content": str(number)}], True)])[0]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: str(number) for number in range(8)}


def test_the_process_ends_with_its_template() -> None:
    template = ChatTemplate("x", name="test", variables={})
    template.render([(MESSAGES, True)])
    process = template._process
    assert process is not None
    assert process.poll() is None
    del template
    gc.collect()
    assert process.poll() is not None


def test_the_worker_renders_what_the_template_does() -> None:
    assert template_worker.render("{{ messages[0].role }}", {"messages": MESSAGES}) == "user"
