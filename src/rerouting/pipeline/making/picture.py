"""The stages of `rerouting data picture`, one after the other; making/stages.py says what they leave in the folder.

DIR/pictures.yaml                    every option
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

from rerouting.core.config import from_mapping, load_mapping
from rerouting.core.errors import UserError
from rerouting.core.finder import Component
from rerouting.core.recipes import recipe_path
from rerouting.core.rundir import hold
from rerouting.data.image_files import folder_of, listed
from rerouting.data.picture_set import PictureSet
from rerouting.pipeline.making.answers import AnswerMaker
from rerouting.pipeline.making.picture_card import HELD, card, recipe
from rerouting.pipeline.making.picturing import PictureRequests, descriptions, in_words, pictures
from rerouting.pipeline.making.rules import Completions, Evaluated
from rerouting.pipeline.making.splits import NAMES, part, split_of
from rerouting.pipeline.making.stages import TOP_P, Report, Stages, check_writing, claim, style_of
from rerouting.training.config import RunConfig


def picture(given: str, options: PictureSet, out: Path) -> Report:
    """Make the sets of some pictures, or go on with them.

    Args:
        given: a folder of pictures, or a file that lists them.
        options: how.
        out: folder of the sets.

    Raises:
        UserError: options that cannot be, no pictures, a folder that holds something else, or somebody to ask who
            cannot be had, or takes no pictures.
    """
    options = replace(options, name=options.name or _name_of(given))
    check(options)
    there = listed(given, options.limit)
    claim(options, out / "pictures.yaml")
    with hold(out, ".making"):
        shown = pictures(options, there)
        stages = Stages(out)
        usual = Component("local", {"model": _model_of(options), "top_p": TOP_P})
        writer = options.writer or usual
        describer = stages.asker("descriptions", options.describer or usual)
        evaluated, style = Evaluated.of(options), style_of(options, writer)
        maker = PictureRequests(options, stages.asker("requests", writer), style, evaluated)
        answerer = stages.asker("completions and answers", options.answerer or usual)
        answers = AnswerMaker(options, answerer, Completions(options))
        if options.shown == "description":
            answers.turns = in_words

        described = stages.keep("1_descriptions", descriptions(options, describer, shown))
        harmful = stages.keep("2_requests", maker.requests("must_not", described, []))
        benign = stages.keep("3_neighbours", maker.requests("allowed", described, harmful))
        splits = split_of([harmful, benign], options.validation, options.test, options.seed)
        made, _ = answers.completions(harmful, part(harmful, splits, "test"))
        made.kept = answers.targeted(made.kept, harmful)
        completed = stages.keep("4_completions", made)
        answered = stages.keep("5_answers", answers.allowed(benign))
        bad = {name: part(completed, splits, name) for name in NAMES}
        good = {name: part(answered, splits, name) for name in NAMES}
        asked = answers.targeted(part(harmful, splits, "test"), harmful, options.test_openings)
        stages.sets(
            {
                "circuit_breaker.jsonl": bad["train"],
                "retain.jsonl": good["train"],
                "validation_circuit_breaker.jsonl": bad["validation"],
                "validation_retain.jsonl": good["validation"],
                "test_harmful.jsonl": asked,
                "test_benign.jsonl": good["test"],
            }
        )
        folder = folder_of(given, None).resolve()
        return stages.finish(
            {"style": style, "shown": options.shown, "pictures": given, "evaluation": evaluated.report},
            partial(recipe, options, out, folder),
            partial(card, options),
        )


def check(options: PictureSet) -> None:
    """Refuse what cannot be made.

    Raises:
        UserError: says what is missing or impossible.
    """
    check_writing(options, {"requests": 1, "neighbours": 1})
    if not options.allowed or not any(options.must_not.values()):
        raise UserError(f"{options.name}: must_not or allowed has no example", "give at least two of each")
    recipe(options, Path(), Path(), dict.fromkeys(HELD, 1))


def _name_of(given: str) -> str:
    """A folder's or file's name without signs that no id may have."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", Path(given).expanduser().resolve().stem).strip("-") or "pictures"


def _model_of(options: PictureSet) -> str:
    """The model that will be trained."""
    file = recipe_path(options.recipe)
    return options.model or from_mapping(RunConfig, load_mapping(file), str(file)).model.name
