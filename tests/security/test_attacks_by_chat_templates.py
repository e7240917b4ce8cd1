"""T10: chat templates that loop, grow, or reach for Python. They are found out on the CPU, before a GPU is asked for."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from attack_payload import Payload
from attacked_jobs import refused
from damaged_models import TOKENIZER, Damage, both, change, without, written
from finetune_operator.api import bounded
from finetune_operator.api.bounded import LimitReached
from finetune_operator.api.outcome import ExitCode
from finetune_trainer.prepare.stage import prepare
from job_cases import JobCase, checked, write_case
from tiny_models import CHAT_TEMPLATE

pytestmark = pytest.mark.threat("T10")
NO_END = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for less than the two seconds that a template has."""
    monkeypatch.setattr(bounded, "SECONDS", 0.3)


def template(text: str) -> Damage:
    return written("chat_template.jinja", text)


def named_templates(**templates: str) -> Damage:
    listed = [{"name": name, "template": text} for name, text in templates.items()]
    return both(without("chat_template.jinja"), lambda folder: change(folder / TOKENIZER, chat_template=listed))


def test_a_template_without_end_is_ended_after_two_seconds_of_computing(tmp_path: Path, base: Path) -> None:
    code, message = refused(tmp_path, base, template(NO_END))
    assert code is ExitCode.MODEL_UNUSABLE
    assert "the chat template cannot be rendered (LimitReached: it took more than 2 s of computing)" in message


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in range(99999) %}{% for m in messages * 99999 %}{% if loop.first %}{% continue %}{% endif %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% for i in range(3) %}{{ f(n - 1) if n else '' }}{% endfor %}{% endmacro %}{{ f(40) }}",
        "{% set n = namespace(x=9) %}{% for a in range(99999) %}{% set n.x = n.x * n.x %}{% endfor %}",
    ],
    ids=["loops", "a macro that calls itself", "numbers that grow"],
)
@pytest.mark.usefixtures("hurried")
def test_a_template_that_computes_for_hours_is_ended_by_the_timer(tmp_path: Path, base: Path, text: str) -> None:
    code, message = refused(tmp_path, base, template(text))
    assert code is ExitCode.MODEL_UNUSABLE
    assert "the chat template cannot be rendered (LimitReached: it took more than 0.3 s of computing)" in message


@pytest.mark.parametrize(
    "text",
    ["{{ (9 ** 999999999) % 7 }}", "{% if 9**999999999 %}x{% endif %}", "{% set n = 9 %}{% set m = n ** (n ** n) %}"],
)
def test_a_power_is_refused_before_jinja_computes_it_as_no_timer_would_end_it(
    tmp_path: Path, base: Path, text: str
) -> None:
    code, message = refused(tmp_path, base, template(text + CHAT_TEMPLATE))
    assert code is ExitCode.MODEL_UNUSABLE
    assert "the chat template raises to a power (**), which no limit would end" in message


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'x' * 40000000000 }}",
        "{{ 'x'|center(40000000000) }}",
        "{{ '%40000000000d' % 1 }}",
        "{% set n = namespace(x='xxxxxxxx') %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{{ ([messages] * 9999999999)|length }}",
        "{% for a in range(40) %}{{ 'x' * 100000000 }}{% endfor %}",
    ],
    ids=["a product", "a filter", "a format", "doubling", "a list", "output"],
)
def test_a_template_that_takes_all_memory_is_ended_by_its_limit(tmp_path: Path, base: Path, text: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    code, message = refused(tmp_path, base, template(text))
    assert code is ExitCode.MODEL_UNUSABLE
    assert "the chat template cannot be rendered (LimitReached: it took more than 512 MiB of memory)" in message
    assert resource.getrlimit(resource.RLIMIT_AS) == before, "the limit stays"


def test_a_template_that_calls_itself_is_ended_by_python(tmp_path: Path, base: Path) -> None:
    code, message = refused(tmp_path, base, template("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"))
    assert code is ExitCode.MODEL_UNUSABLE
    assert "the chat template cannot be rendered (RecursionError" in message


def test_a_template_of_brackets_within_brackets_is_refused(tmp_path: Path, base: Path) -> None:
    code, message = refused(tmp_path, base, template("{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}"))
    assert code is ExitCode.MODEL_UNUSABLE
    assert "the chat template cannot be rendered (" in message


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.mkdir(MARK) }}",
        "{{ lipsum.__globals__['os'].mkdir(MARK) }}",
        "{{ raise_exception.__globals__['__builtins__']['__import__']('os').mkdir(MARK) }}",
        "{{ strftime_now.__globals__['__builtins__']['eval']('1') }}",
        "{{ (''|attr('format'))('{0.__class__.__mro__}', 1) ~ (''|attr('__class__')).__mro__ }}",
        "{{ '{0.__class__.__mro__[1].__subclasses__}'.format(messages) ~ messages.__class__.__base__ }}",
        "{{ self.__init__.__globals__.__builtins__ }}",
        "{{ messages.append({'role': 'system', 'content': 'evil'}) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os.mkdir(MARK) }}",
        "{% extends '../config.json' %}",
    ],
    ids=lambda text: text[3:40],
)
def test_a_template_that_reaches_for_python_or_files_is_stopped_by_the_sandbox(
    tmp_path: Path, base: Path, payload: Payload, text: str
) -> None:
    code, message = refused(tmp_path, base, template(text.replace("MARK", repr(str(payload.mark)))))
    assert code is ExitCode.MODEL_UNUSABLE
    assert "the chat template cannot be rendered (" in message
    assert any(error in message for error in ("SecurityError", "UndefinedError", "TypeError")), message
    assert not payload.ran


def test_a_template_of_a_megabyte_is_refused_unrendered_under_whatever_name(tmp_path: Path, base: Path) -> None:
    code, message = refused(tmp_path, base, named_templates(default=CHAT_TEMPLATE, tool_use="x" * (1 << 20)))
    assert code is ExitCode.MODEL_UNUSABLE
    assert "the chat template has 1048576 characters, expected 65536 at most" in message


@pytest.mark.usefixtures("hurried")
def test_every_named_template_is_rendered_not_the_default_alone(tmp_path: Path, base: Path) -> None:
    code, message = refused(tmp_path, base, named_templates(default=CHAT_TEMPLATE, tool_use=NO_END))
    assert code is ExitCode.MODEL_UNUSABLE
    assert (
        "the chat template 'tool_use' cannot be rendered (LimitReached: it took more than 0.3 s of computing)"
        in message
    )


@pytest.mark.usefixtures("hurried")
def test_a_template_that_waits_for_its_row_is_ended_at_that_row(tmp_path: Path, base: Path) -> None:
    trap = f"{{% if messages[0].content == 'now' %}}{NO_END}{{% endif %}}{CHAT_TEMPLATE}"
    rows = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "x"}]}
        for text in ("a", "now")
    ]
    code, message = refused(tmp_path, base, template(trap), rows=rows)
    assert code is ExitCode.INVALID_DATA
    assert "rows.jsonl:2: the model's chat template refuses it: it took more than 0.3 s of computing" in message


@pytest.mark.usefixtures("hurried")
def test_a_template_that_waits_for_llama_factorys_probe_is_ended_too(tmp_path: Path, base: Path) -> None:
    trap = f"{{% if messages[0].role == 'system' %}}{NO_END}{{% endif %}}{CHAT_TEMPLATE}"
    spec = {"tokenization.compatibility": "LLaMAFactory"}
    code, message = refused(tmp_path, base, template(trap), spec=spec)
    assert code is ExitCode.MODEL_UNUSABLE
    assert "it took more than 0.3 s of computing" in message


def test_a_templates_own_tricks_with_the_clock_are_no_reason_to_refuse_it(tmp_path: Path, base: Path) -> None:
    case = JobCase("clock", model=template("{{ strftime_now('%Y') }}" + CHAT_TEMPLATE))
    assert prepare(checked(write_case(case, base, tmp_path)))["rows"] == 4


def compute_for_ever() -> None:
    while True:
        pass


def test_the_limits_are_gone_after_the_block() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(LimitReached), bounded.bounded(0.05):
        compute_for_ever()
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
