"""Llama 2's chat format once more, in Jinja: for software that reads tokenizer_config.json."""

from collections.abc import Sequence

from puna.tokenizer.chat_format import B_INST, B_SYS, E_INST, E_SYS

__all__ = ["CHAT_TEMPLATE", "chat_template", "is_llama2_template"]


def chat_template(controls: Sequence[str]) -> str:
    """The same format in Jinja, for software that reads tokenizer_config.json.

    Such software encodes the rendered text, where a "</s>" typed by a user cannot be told from ours: the template
    raises.

    Args:
        controls: The tokens that text must not hold.
    """
    listed = ", ".join("'" + control.replace("\\", "\\\\").replace("'", "\\'") + "'" for control in controls)
    begin_system, end_system = (marker.replace("\n", "\\n") for marker in (B_SYS, E_SYS))
    return (
        f"{{%- for message in messages -%}}{{%- for control in [{listed}] -%}}"
        "{%- if control in message['content'] -%}"
        "{{- raise_exception('A message contains ' + control + ', which would become a control token.') -}}"
        "{%- endif -%}{%- endfor -%}{%- endfor -%}"
        "{%- if messages[0]['role'] == 'system' -%}"
        f"{{%- set system = '{begin_system}' + messages[0]['content'] + '{end_system}' -%}}"
        "{%- set turns = messages[1:] -%}"
        "{%- else -%}{%- set system = '' -%}{%- set turns = messages -%}{%- endif -%}"
        "{%- for turn in turns -%}"
        "{%- if turn['role'] != ['user', 'assistant'][loop.index0 % 2] -%}"
        "{{- raise_exception('Roles must alternate user, assistant, starting with user.') -}}"
        "{%- elif turn['role'] == 'user' -%}"
        "{%- set content = (system if loop.first else '') + turn['content'] -%}"
        f"{{{{- bos_token + '{B_INST} ' + content.strip() + ' {E_INST}' -}}}}"
        "{%- else -%}{{- ' ' + turn['content'].strip() + ' ' + eos_token -}}{%- endif -%}"
        "{%- endfor -%}"
    )


CHAT_TEMPLATE = chat_template(("<s>", "</s>", "<unk>"))
"""For a tokenizer with Llama 2's three control tokens."""
_BEFORE_CONTROLS, _AFTER_CONTROLS = CHAT_TEMPLATE.split("'<s>', '</s>', '<unk>'")


def is_llama2_template(source: str) -> bool:
    """Whether a template is `chat_template`'s, for any control tokens."""
    return source.startswith(_BEFORE_CONTROLS) and source.endswith(_AFTER_CONTROLS)
