"""Renders chat templates in a process of its own: a stranger's template can neither hang us nor eat our memory.

Run as a script, it reads one JSON request a line and answers each with one JSON line. It imports nothing of ours.
Jinja's sandbox keeps a template from Python; the processor time and memory limits here bound what is left, and the
caller sees a process that ended. Globals, filters and block trimming are those that transformers gives templates.
"""

import json
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["MAX_OUTPUT_CHARS", "environment", "render"]

MAX_OUTPUT_CHARS = 4_000_000
"""Longest rendered dialog."""
MAX_SECONDS = 3
"""Processor time for one request."""
MAX_MEMORY_BYTES = 2**30


class GenerationTag(Extension):
    """{% generation %} ... {% endgeneration %} marks answers for trainers; here it only shows its content."""

    tags = {"generation"}  # noqa: RUF012, Jinja's own way

    def parse(self, parser: Parser) -> nodes.Node:
        """The block as its content alone."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def environment() -> ImmutableSandboxedEnvironment:
    """A sandbox with what chat templates expect."""
    found = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    found.filters["tojson"] = _to_json
    found.globals["raise_exception"] = _raise_exception
    found.globals["strftime_now"] = _strftime_now
    return found


def render(source: str, variables: dict[str, Any]) -> str:
    """The rendered text.

    Raises:
        TemplateError: the template is broken, refuses the dialog, or writes too much.
    """
    return _bounded(environment().from_string(source).generate(variables))


def _bounded(parts: Iterable[str]) -> str:
    kept, n_chars = [], 0
    for part in parts:
        kept.append(part)
        n_chars += len(part)
        if n_chars > MAX_OUTPUT_CHARS:
            raise TemplateError(f"more than {MAX_OUTPUT_CHARS} characters of output")
    return "".join(kept)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)  # local time, as transformers has it


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _limit_process() -> None:
    """Memory for the whole process; where the system has no such limits (Windows), only the output is bounded."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_request(seconds: int) -> None:
    """The signal of this timer ends the process, even inside one long operation."""
    try:
        import signal

        signal.setitimer(signal.ITIMER_PROF, seconds)
    except (ImportError, AttributeError):
        return


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"texts": [render(request["source"], variables) for variables in request["jobs"]]}
    except MemoryError:
        return {"error": f"more than {MAX_MEMORY_BYTES} bytes of memory"}
    except Exception as error:  # whatever a stranger's template does is its own error, for the caller to name
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Answer requests until standard input ends."""
    _limit_process()
    for line in sys.stdin:
        _limit_request(MAX_SECONDS)
        answer = _answer(json.loads(line))
        _limit_request(0)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
