"""The part of the command line that Python must read: which app, and how its processes live."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional


class UsageError(Exception):
    """The command line is wrong."""


@dataclass
class Options:
    """What was said, and what is left for Rust to read."""

    app: Optional[str] = None
    workdir: Optional[str] = None
    command: Optional[str] = None
    pool: Optional[str] = None
    max_tasks_per_child: Optional[int] = None
    max_memory_per_child: Optional[int] = None
    #: Modules to import beside those of the settings.
    include: tuple[str, ...] = ()
    #: The queues that are consumed, and those that are not.
    queues: tuple[str, ...] = ()
    exclude_queues: tuple[str, ...] = ()
    #: Whether a worker sends periodic tasks too, and what it is told of that.
    beat: bool = False
    schedule: Optional[str] = None
    scheduler: Optional[str] = None
    #: How beat is run in the background.
    detach: bool = False
    uid: Optional[str] = None
    gid: Optional[str] = None
    umask: Optional[str] = None
    #: What is said under the project's own options.
    user: dict[str, Any] = field(default_factory=dict)
    #: What Celery's own command line puts into the environment.
    environment: dict[str, str] = field(default_factory=dict)
    #: What is left for Rust, and all that there was.
    arguments: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)


#: Options before the command that take a value and that Rust has no use for.
OURS = {"-A": "app", "--app": "app", "--workdir": "workdir", "--loader": "loader", "--config": "config"}
#: Those that both read.
SHARED = {"-b": "CELERY_BROKER_URL", "--broker": "CELERY_BROKER_URL", "--result-backend": "CELERY_RESULT_BACKEND"}
ENVIRONMENT = {"loader": "CELERY_LOADER", "config": "CELERY_CONFIG_MODULE"}

#: Celery's names of the pools that there are.
POOLS = {"prefork": "prefork", "processes": "prefork", "solo": "solo", "threads": "threads"}
GREEN = ("eventlet", "gevent")


#: Options of the worker that both read: lists of names.
LISTS = {"-Q": "queues", "--queues": "queues", "-X": "exclude_queues", "--exclude-queues": "exclude_queues"}
#: Options of the worker, each with its field and what it counts.
NUMBERS = {"--max-tasks-per-child": "tasks", "--max-memory-per-child": "KiB"}


#: Options of a worker's beat, each with its field.
EMBEDDED = {"-s": "schedule", "--schedule-filename": "schedule", "--schedule": "schedule", "--scheduler": "scheduler"}
#: What beat leaves behind when it begins.
DAEMON = {"--uid": "uid", "--gid": "gid", "--umask": "umask"}
#: How a flag is given in the environment.
TRUE = ("1", "true", "t", "yes", "y", "on")
#: What else is read from there when it is not said: a worker's options, and those of beat, each with its field.
VARIABLES = {
    "worker": {
        "POOL": "pool", "INCLUDE": "include", "QUEUES": "queues", "EXCLUDE_QUEUES": "exclude_queues",
        "MAX_TASKS_PER_CHILD": "max_tasks_per_child", "MAX_MEMORY_PER_CHILD": "max_memory_per_child",
        "SCHEDULE_FILENAME": "schedule", "SCHEDULER": "scheduler",
    },
    "beat": {"DETACH": "detach", "UID": "uid", "GID": "gid", "UMASK": "umask"},
}  # fmt: skip


def split(arguments: list[str], environment: Mapping[str, str]) -> Options:
    """Reads what stands before the command, and of what stands after it what is about processes."""
    options = Options(app=environment.get("CELERY_APP") or environment.get("APP") or None, given=arguments)
    words = iter(arguments)
    for word in words:
        if not word.startswith("-") or word == "-":
            options.arguments.append(word)
            options.command = word
            if word == "worker":
                options.beat = environment.get("CELERY_WORKER_BEAT", "").lower() in TRUE
                _worker(words, options)
            elif word == "beat":
                _beat(words, options)
            options.arguments.extend(words)
            break
        _global(word, words, options)
    # Who asks for help is helped, whatever stands there.
    if not {"-h", "--help"}.intersection(options.arguments):
        _complete(options, environment)
    return options


def pool(name: str) -> str:
    """The pool of that name."""
    if name in GREEN:
        raise UsageError(f"the pool {name} is not there: use threads, or async def tasks in prefork")
    if name not in POOLS:
        raise UsageError(f"the pool {name} is not there: use prefork, threads or solo")
    return POOLS[name]


def _global(word: str, words: Iterator[str], options: Options) -> None:
    name, value = _named(word, [*OURS, *SHARED])
    if name in OURS:
        _keep(OURS[name], _value(name, value, words), options)
    elif name in SHARED:
        url = _value(name, value, words)
        options.environment[SHARED[name]] = url
        options.arguments.extend([name, url])
    elif word == "--skip-checks":
        options.environment["CELERY_SKIP_CHECKS"] = "true"
    else:
        options.arguments.append(word)


def _keep(which: str, value: str, options: Options) -> None:
    if which in ENVIRONMENT:
        options.environment[ENVIRONMENT[which]] = value
    else:
        setattr(options, which, value)


def _worker(words: Iterator[str], options: Options) -> None:
    for word in words:
        if word == "--beat" or (word.startswith("-B") and not word.startswith("-B=")):
            options.beat = True
            word = f"-{word[2:]}" if word[:2] == "-B" else "-"
            if word == "-":
                continue
        name, value = _named(word, list(EMBEDDED))
        if name is not None:
            setattr(options, EMBEDDED[name], _value(name, value, words))
            continue
        name, value = _named(word, ["-P", "--pool", "-I", "--include", *LISTS, *NUMBERS])
        if name in ("-P", "--pool"):
            options.pool = pool(_value(name, value, words))
        elif name in NUMBERS:
            number = _number(name, _value(name, value, words), name)
            setattr(options, name[2:].replace("-", "_"), number)
        elif name in ("-I", "--include"):
            options.include += _list(_value(name, value, words))
        elif name in LISTS:
            text = _value(name, value, words)
            setattr(options, LISTS[name], getattr(options, LISTS[name]) + _list(text))
            options.arguments.extend([name, text])
        else:
            options.arguments.append(word)


def _complete(options: Options, environment: Mapping[str, str]) -> None:
    """Takes from the environment what was not said (celery/bin/celery.py ``main``: ``auto_envvar_prefix``)."""
    command = options.command or ""
    for name, field_name in VARIABLES.get(command, {}).items():
        variable = f"CELERY_{command.upper()}_{name}"
        text = environment.get(variable)
        if text and not getattr(options, field_name):
            read = READERS.get(field_name)
            setattr(options, field_name, read(text, variable) if read else text)


def _beat(words: Iterator[str], options: Options) -> None:
    for word in words:
        name, value = _named(word, list(DAEMON))
        if name is not None:
            setattr(options, DAEMON[name], _value(name, value, words))
        elif word == "--detach":
            options.detach = True
        else:
            options.arguments.append(word)


def _named(word: str, names: list[str]) -> tuple[Optional[str], Optional[str]]:
    """Which of the options a word is, and the value if that stands in the same word."""
    for name in names:
        if word == name:
            return name, None
        if name.startswith("--") and word.startswith(f"{name}="):
            return name, word[len(name) + 1 :]
        if not name.startswith("--") and not word.startswith("--") and word.startswith(name):
            return name, word[len(name) :].removeprefix("=")
    return None, None


def _list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _value(name: str, value: Optional[str], words: Iterator[str]) -> str:
    if value is None:
        value = next(words, None)
    if value is None:
        raise UsageError(f"option {name} takes a value")
    return value


def _number(name: str, text: str, option: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise UsageError(f"{name}: {text} is no number of {NUMBERS[option]}")
    return number


#: How a field is read of a variable's text, where it is something else than text.
READERS: dict[str, Callable[[str, str], Any]] = {
    "pool": lambda text, variable: pool(text),
    "detach": lambda text, variable: text.lower() in TRUE,
    "max_tasks_per_child": lambda text, variable: _number(variable, text, "--max-tasks-per-child"),
    # No memory is no limit, as under Celery.
    "max_memory_per_child": lambda text, variable: None if text == "0" else _number(variable, text, "--max-memory-per-child"),
    **dict.fromkeys(("include", "queues", "exclude_queues"), lambda text, variable: _list(text)),
}
