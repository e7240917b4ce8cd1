"""``finetune chat``: talk to a tuned model, in a cluster or on this machine."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import urllib3

from finetune_operator.api import conditions, names
from finetune_operator.cli import options
from finetune_operator.cli.answers import Answer, RefusedError, Request, send
from finetune_operator.cli.chat_client import PATH, Chat, Message
from finetune_operator.cli.cluster import Cluster
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.local import server
from finetune_operator.cli.local.folder import load_config, local_part
from finetune_operator.cli.shown_job import ShownJob

ANSWER_SECONDS = 600
UNAUTHORIZED = 401
# The API server takes Authorization for itself and does not pass it on.
PROXIED_KEY_HEADER = "X-Api-Key"

Post = Callable[[Mapping[str, Any]], Answer]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        metavar="NAME|DIR",
        help="a FineTuneJob, the folder of a local run (DIR/adapter asks its adapter though it is merged as well), "
        "or with --url the model's name",
    )
    parser.add_argument(
        "-m",
        "--message",
        action="append",
        metavar="TEXT",
        help="ask this and print the answer; more than one are turns of one chat",
    )
    parser.add_argument("--system", metavar="TEXT", help="system prompt")
    parser.add_argument("--max-tokens", type=int, default=512, metavar="N", help="longest answer; default: %(default)s")
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="X", help="0 (default) always answers the same"
    )
    parser.add_argument(
        "--url",
        type=base_url,
        help="base URL of an OpenAI-compatible endpoint to ask directly, such as http://host:8000",
    )
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="file with the key that the endpoint asks for"
    )
    options.add_cluster(parser)
    options.add_output(parser)


def base_url(text: str) -> str:
    """A URL with scheme and host."""
    if not re.match(r"https?://[^/]", text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a URL such as http://host:8000")
    return text


def execute(arguments: argparse.Namespace) -> int:
    key = read_key(arguments.api_key_file)
    # Asked for before a model is loaded, which takes long.
    is_at_terminal = sys.stdin.isatty() and arguments.output != "json"
    questions = arguments.message or ([] if is_at_terminal else [piped_question()])
    with endpoint(arguments, key) as (model, post):
        chat = Chat(post=post, model=model, temperature=arguments.temperature, max_tokens=arguments.max_tokens)
        history: list[Message] = [{"role": "system", "content": arguments.system}] if arguments.system else []
        if arguments.output == "json":
            answer_all(chat, history, questions, show=None)
            print(json.dumps({"model": model, "messages": history}, ensure_ascii=False, indent=1))
        elif questions:
            answer_all(chat, history, questions, show=print)
        else:
            converse(chat, history)
    return 0


@contextlib.contextmanager
def endpoint(arguments: argparse.Namespace, key: str | None) -> Iterator[tuple[str, Post]]:
    """The name of the model, and how to reach its chat completions. Raises CommandError."""
    authorization = {"Authorization": f"Bearer {key}"} if key else {}
    if arguments.url:
        yield arguments.name, direct(arguments.url, authorization)
    elif (part := local_part(Path(arguments.name))) is not None:
        config = load_config(part.root)
        print(f"starting the model of {part.root} …", file=sys.stderr)
        with server.running(config, part.mode) as url:
            yield config.name, direct(url, {})
    else:
        yield proxied(Cluster.of(arguments), arguments.name, key)


def direct(url: str, headers: Mapping[str, str]) -> Post:
    """Post to an endpoint that can be reached from here; the URL may or may not end in /v1."""
    pool = urllib3.PoolManager(retries=False)
    address = url.rstrip("/").removesuffix("/v1") + PATH
    sent = {"Content-Type": "application/json", **headers}
    return lambda body: send(pool, Request("POST", address, sent, body), explain, ANSWER_SECONDS)


def proxied(cluster: Cluster, name: str, key: str | None) -> tuple[str, Post]:
    """Post to a job's Service through the API server, so that no port has to be forwarded. Raises CommandError."""
    job = ShownJob.of(cluster.job(name))
    served = job.condition(conditions.SERVED)
    if not (job.spec.get("serving") or {}).get("enabled"):
        raise CommandError(f"{name}: is not served; set spec.serving, which may be changed at any time")
    if not job.holds(conditions.SERVED):
        why = (served.message or served.reason) if served else job.stage
        raise CommandError(f"{name}: does not answer now: {why}; `finetune wait {name} --for Served` waits for it")
    path = cluster.service_path(names.serve(name), "http") + PATH
    headers = {PROXIED_KEY_HEADER: key} if key else {}
    model = (job.status.serving and job.status.serving.model_name) or name

    def explain_either(status: int, text: str) -> CommandError:
        # The API server calls its own refusal of a user exactly so; any other 401 is the model server's.
        is_servers = status == UNAUTHORIZED and text != "Unauthorized"
        return explain(status, text) if is_servers else cluster.explain(status, text)

    def post(body: Mapping[str, Any]) -> Answer:
        return cluster.open(
            "POST", path, body=body, headers=headers, read_seconds=ANSWER_SECONDS, explain=explain_either
        )

    return model, post


def explain(status: int, text: str) -> CommandError:
    """What an endpoint's error status means."""
    advice = "; give the key with --api-key-file" if status == UNAUTHORIZED else ""
    return RefusedError(f"the endpoint answered {status}: {text}{advice}", status)


def read_key(file: Path | None) -> str | None:
    """The key in a file, without the newline at its end. Raises CommandError."""
    if file is None:
        return None
    key = file.read_text().strip()
    if not key or not key.isascii() or not key.isprintable():
        raise CommandError(f"{file}: found no key, expected one line of printable ASCII")
    return key


def piped_question() -> str:
    """All of standard input. Raises CommandError where there is nothing to ask."""
    question = sys.stdin.read().strip()
    if not question:
        raise CommandError("found nothing to ask: give --message, pipe a question, or start it at a terminal")
    return question


def answer_all(chat: Chat, history: list[Message], messages: Sequence[str], show: Callable[[str], None] | None) -> None:
    """Ask one message after the other and add them, with their answers, to the history."""
    for message in messages:
        history.append({"role": "user", "content": message})
        answer = chat.answer(history)
        history.append({"role": "assistant", "content": answer})
        if show is not None:
            show(answer)
            sys.stdout.flush()


def converse(chat: Chat, history: list[Message]) -> None:
    """Ask and answer until the end of input."""
    # Importing it gives input() line editing and history.
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401
    print("End with Ctrl-D.", file=sys.stderr)
    while True:
        try:
            message = input("> ")
        except EOFError:
            print()
            return
        if message.strip():
            history.append({"role": "user", "content": message})
            history.append({"role": "assistant", "content": print_stream(chat, history)})


def print_stream(chat: Chat, history: list[Message]) -> str:
    """Print the answer as it comes; Ctrl-C ends the answer, not the chat. Returns what was printed."""
    parts: list[str] = []
    with contextlib.suppress(KeyboardInterrupt):
        for part in chat.stream(history):
            parts.append(part)
            print(part, end="", flush=True)
    print()
    return "".join(parts)
