"""List attacks, judges, measures, probes, data sets and the like, or one's options."""

from __future__ import annotations

import json

from jsonargparse import ArgumentParser, Namespace

KINDS = {
    "attacks": "attacks",
    "judges": "judges",
    "measures": "measures",
    "probes": "probes.kinds",
    "data": "data.sources",
    "assistants": "targets.assistants",
    "translators": "targets.translators",
}


def add_arguments(parser: ArgumentParser) -> None:
    """What to list."""
    parser.add_argument("kind", choices=tuple(KINDS), help="Which components.")
    parser.add_argument("name", nargs="?", default=None, help="One of them: its options are printed.")


def run(args: Namespace) -> int:
    """Print names with what they are, or one component's documentation."""
    from rerouting.core.finder import available, summary

    kind = KINDS[args.kind]
    if args.name:
        _show(kind, args.name)
        return 0
    names = available(kind)
    width = max(map(len, names))
    for name in names:
        print(f"{name:{width}}  {summary(kind, name)}")
    return 0


def _show(kind: str, name: str) -> None:
    import sys

    from rerouting.core.config import Parser
    from rerouting.core.finder import find

    found = find(kind, name)
    print(sys.modules[found.__module__].__doc__ or "")
    assert isinstance(found, type)
    parser = Parser(prog=name, usage=f"{{{name}: {{option: value, …}}}}", add_help=False)
    parser.add_class_arguments(found, None)
    parser.print_help()
    for budget, options in getattr(found, "budgets", {}).items():
        print(f"\nbudget {budget}: {json.dumps(options)}")
    if hasattr(found, "cases"):
        print(f"\nbehaviours by budget: {json.dumps(found.cases)}")
