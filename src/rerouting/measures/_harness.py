"""EleutherAI's lm-evaluation-harness, kept quiet: its tasks by name, and a task's documents under one model.

Source: github.com/EleutherAI/lm-evaluation-harness, MIT; tried with 0.4.13 alone. Its
`evaluate` is called and not `simple_evaluate`, which also asks the hub for the model's commit and lists the machine's
software. Deviation: log-probabilities are taken in float32 whatever the model's dtype is; in bfloat16 neighbouring
ones are equal.
"""

from __future__ import annotations

import importlib
import io
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers

from rerouting.core.errors import UserError
from rerouting.core.near import closest
from rerouting.measures._documents import Answered, answered, shown
from rerouting.models.memory import halved
from rerouting.targets.target import Target


@dataclass
class Asking:
    """How documents are asked.

    Attributes:
        seed: of the choice of examples, and of sampling where a task asks for it.
        limit: most documents of a task; None for all.
        batch: prompts at once; halves when memory runs out, and stays so.
        template: whether the chat template is applied, with the examples as earlier turns.
    """

    seed: int
    limit: int | None
    batch: int
    template: bool


@dataclass
class Task:
    """A task of the harness, or a group of them, which is scored as one.

    Attributes:
        name: as it was asked for.
        leaves: the harness's task objects, one or (MMLU) 57.
    """

    name: str
    leaves: list[Any] = field(default_factory=list)

    def metrics(self) -> list[str]:
        """What every leaf measures, in the first leaf's order."""
        each = [_metrics(leaf) for leaf in self.leaves]
        return [name for name in each[0] if all(name in other for other in each)]

    def is_mean(self, metric: str) -> bool:
        """Whether a metric is the mean of its documents' figures."""
        plain = importlib.import_module("lm_eval.api.metrics").mean
        return all(leaf.aggregation().get(metric.partition(",")[0]) is plain for leaf in self.leaves)

    def set_shots(self, shots: int | None) -> None:
        """Change the number of examples before each question; None keeps the task's own.

        Raises:
            UserError: the task's own file forbids examples.
        """
        for leaf in self.leaves:
            own = leaf.get_config("num_fewshot")
            if own == 0 and shots:
                raise UserError(
                    f"lm_eval: {leaf.task_name} is fixed at 0 shots by its own file, {shots} were asked for",
                    f"leave shots of {self.name} out",
                )
            leaf.set_config("num_fewshot", shots if shots is not None else own or 0)


def require_harness() -> None:
    """Refuse to go on without the harness.

    Raises:
        UserError: it is not installed.
    """
    if "lm_eval" not in sys.modules and find_spec("lm_eval") is None:
        raise UserError("the measure lm_eval needs lm-eval", "run: pip install 'rerouting[capability]'")


def load_tasks(names: Sequence[str], include_path: str) -> list[Task]:
    """Tasks by name, with their data.

    Args:
        names: of the harness's own tasks, groups and tags, or of those in `include_path`.
        include_path: folder with task files (.yaml), "" for none; data files in them are looked for from there.

    Raises:
        UserError: no such folder or task, a broken task file, or data that cannot be had.
    """
    folder = Path(include_path).expanduser().resolve() if include_path else None
    if folder is not None and not folder.is_dir():
        raise UserError(f"lm_eval: there is no folder {include_path}", "give the folder of your task files")
    with quiet(), chdir(folder) if folder else nullcontext():
        manager = _manager(names, folder)
        return [Task(name, _loaded(manager, name)) for name in names]


def task_of(config: dict[str, Any]) -> Task:
    """A task from the harness's own kind of config."""
    with quiet():
        made = importlib.import_module("lm_eval.api.task").ConfigurableTask(config=config)
    return Task(config["task"], [made])


def answer(leaf: Any, target: Target, asking: Asking) -> Answered:
    """Put a task's documents to a model, which stays as it was.

    Raises:
        UserError: the harness failed, or memory is too small for one prompt.
    """
    while True:
        try:
            with quiet() as heard:
                found = _evaluate(leaf, target, asking)
            break
        except UserError:
            raise
        except Exception as error:  # of the harness, the task's own code, the template, the device
            asking.batch = _smaller(error, asking.batch, leaf.task_name)
    cut = sum("runcat" in line and "left" in line.lower() for line in heard)
    return answered(found, leaf.task_name, cut)


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Keep the harness's bars and log off the terminal; its warnings are collected."""
    log, heard = logging.getLogger("lm_eval"), _Heard()
    level, propagate, handlers = log.level, log.propagate, log.handlers
    log.handlers, log.propagate = [heard], False
    log.setLevel(logging.WARNING)
    try:
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            yield heard.lines
    finally:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning's text."""
        self.lines.append(record.getMessage())


def _manager(names: Sequence[str], folder: Path | None) -> Any:
    """The harness's index of tasks: the folder's alone if that is enough, because reading all takes a while."""
    tasks = importlib.import_module("lm_eval.tasks")
    own: list[str] = []
    if folder is not None:
        manager = tasks.TaskManager(include_path=str(folder), include_defaults=False)
        own = list(manager.all_tasks)
        if all(_is_whole(manager, name) for name in names):
            return manager
    manager = tasks.TaskManager(include_path=str(folder) if folder else None)
    for name in names:
        if name not in manager.all_tasks:
            near = closest(name, own) or closest(name, manager.all_tasks)
            there = f"{folder} has: {', '.join(own) or 'no readable task'}; " if folder else ""
            raise UserError(
                f"lm_eval: unknown task {name!r}",
                f"{f'did you mean {near}? ' if near else ''}{there}`lm-eval ls tasks` lists the harness's "
                "own, and include_path takes a folder with yours",
            )
    return manager


def _is_whole(manager: Any, name: str) -> bool:
    """Whether a task, or every task of a group, is in the index."""
    entry = manager.task_index.get(name)
    members = (entry.cfg or {}).get("task") if entry is not None else None
    if not isinstance(members, list):
        return entry is not None
    return all(isinstance(member, str) and _is_whole(manager, member) for member in members)


def _loaded(manager: Any, name: str) -> list[Any]:
    try:
        return list(manager.load([name])["tasks"].values())
    except Exception as error:  # datasets, the hub, YAML and a task's own code raise many unrelated types
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if isinstance(error, ConnectionError) or "offline" in reason.lower():
            raise UserError(
                f"lm_eval: the data of {name} is on the hub, which cannot be reached ({reason})",
                "run once with network (the data is kept), give offline tasks with include_path, or ask for "
                "the bundled short_facts: {tasks: {short_facts: {}}}",
            ) from error
        raise UserError(
            f"lm_eval: task {name} cannot be loaded: {reason}",
            "check its file and data (gated data sets need HF_TOKEN)",
        ) from error


def _evaluate(leaf: Any, target: Target, asking: Asking) -> dict[str, Any]:
    wrapper = importlib.import_module("lm_eval.models.huggingface").HFLM
    side = target.tokenizer.padding_side
    leaf.set_fewshot_seed(asking.seed)
    transformers.set_seed(asking.seed)
    try:
        model = wrapper(
            pretrained=target.model,
            tokenizer=target.tokenizer,
            batch_size=asking.batch,
            softmax_dtype=torch.float32,
        )
        found: dict[str, Any] = importlib.import_module("lm_eval.evaluator").evaluate(
            lm=model,
            task_dict={"tasks": {leaf.task_name: leaf}},
            limit=asking.limit,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=asking.template,
            fewshot_as_multiturn=asking.template,
        )
        return found
    finally:
        target.tokenizer.padding_side = side


def _smaller(error: Exception, batch: int, name: str) -> int:
    try:
        return halved(error, batch)
    except UserError:
        raise
    except Exception as other:
        reason = f"{type(other).__name__}: {' '.join(str(other).split())[:200]}"
        if "unsafe" in reason.lower():
            raise UserError(
                f"lm_eval: {name} runs code that the model wrote", "leave it out; it is not run from here"
            ) from other
        raise UserError(
            f"lm_eval: the harness failed on {name}: {reason}", "mend or leave out that task"
        ) from other


def _metrics(leaf: Any) -> list[str]:
    filters = [each.name for each in leaf._filters]
    return [shown(metric, name) for name in filters for metric in leaf.aggregation()]
