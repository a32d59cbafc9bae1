"""Every named family of vision-language models: found, adapted, trained, saved and merged, on tiny random ones."""

import pytest
import torch

from rerouting.core.errors import UserError
from rerouting.core.finder import Component
from rerouting.core.prompts import followed_by
from rerouting.core.records import Chat, Message
from rerouting.core.rundir import RunDir
from rerouting.data.formatting import render_prompt, tokenise
from rerouting.models.config import LoraConfig, ModelConfig
from rerouting.models.generation import generate
from rerouting.models.images import input_embeddings
from rerouting.models.layers import decoder_blocks
from rerouting.models.loading import load
from rerouting.models.lora import adapted_names, adapter_parameters, add_lora, load_adapter, save_adapter
from rerouting.models.merging import merge_to
from rerouting.models.scoring import response_nll
from rerouting.models.streaming import Reader, stream
from rerouting.models.target_rows import target_rows
from rerouting.models.trunk import Trunk
from rerouting.training.batching import collate
from rerouting.training.config import LossConfig, OptimConfig
from rerouting.training.loop import TrainingData, train
from tests.models.tiny_vision import BLOCKS, FAMILIES, VIDEO, processor_of, save, without_video

PATHS = {"idefics3": "model.text_model.layers", "smolvlm": "model.text_model.layers"}
LOSSES = LossConfig(
    target_layers=(2,),
    reroute=Component("angle"),
    retain=Component("relative"),
    schedule=Component("constant", {"reroute": 1.0, "retain": 1.0}),
)


@pytest.fixture(params=list(FAMILIES))
def family(request, monkeypatch):
    without_video(monkeypatch)
    if request.param in VIDEO:
        for place in ("loading", "merging"):
            read = lambda *_, **__: processor_of(request.param)  # noqa: E731
            monkeypatch.setattr(f"rerouting.models.{place}.load_processor", read)
    return request.param


@pytest.fixture
def base(family, tmp_path):
    save(family, tmp_path / "base")
    return load(ModelConfig(name=str(tmp_path / "base"), device="cpu", dtype="float32"))


def pictured(*images, name="a", text="Hi", response="Well"):
    return Chat(name, (Message("user", text, images=images),), response=response)


def examples(base, count=4):
    chats = [pictured(f"drawn:test/{at}", name=f"p{at}", text="Hi" * (at + 1)) for at in range(count)]
    chats += [pictured(name=f"t{at}", text="Say" * (at + 1)) for at in range(count)]
    return [tokenise(chat, base.tokenizer) for chat in chats]


def run(base, folder):
    """Two steps, of which the second is on pictures."""
    model = add_lora(base.model, LoraConfig(rank=2, alpha=2.0, dropout=0.0, init_b_std=0.02), 1)
    data = TrainingData(examples(base), examples(base), examples(base, 1), examples(base, 1))
    optim = OptimConfig(
        steps=2, batch_size=2, micro_batch=2, learning_rate=1e-2, max_benign_rise=99.0, take_turns=True
    )
    with RunDir.create(folder) as opened:
        pad = base.tokenizer.pad_token_id
        train(model, data, LOSSES, optim, opened, blocks=2, pad_id=pad, padded_length=16, seed=0)
    return model


def logits(loaded_tokenizer, model):
    """Logits at the response of a chat with a picture and of one without, through the scoring that measures use."""
    chats = [pictured("drawn:test/9"), pictured()]
    found = []
    for chat in chats:
        prompt = render_prompt(chat, loaded_tokenizer)
        ids = [*loaded_tokenizer("Well done")["input_ids"]]
        whole = followed_by(prompt, ids) if chat.images else [*prompt, *ids]
        found += response_nll(model, [(whole, len(prompt))], pad_id=loaded_tokenizer.pad_token_id)
    return torch.cat(found)


def test_the_trunk_is_the_language_decoders(family, base):
    found = decoder_blocks(base.model)
    assert found.path == PATHS.get(family, "model.language_model.layers") and len(found) == BLOCKS


def test_the_mask_begins_after_the_picture(base):
    example = tokenise(pictured("drawn:test/0"), base.tokenizer)
    marks = base.tokenizer.image_reader.marks
    places = [at for at, token in enumerate(example.ids) if token in marks]
    assert len(places) >= 4 and not any(example.mask[: places[-1] + 1])
    assert all(example.mask[places[-1] + 1 :]) and len(example.ids) > places[-1] + 6


def test_states_of_the_trunk_are_the_models_own(base):
    batch = collate(examples(base)[:2], base.tokenizer.pad_token_id, reader=base.model.image_reader)
    assert batch.media and "pixel_values" in batch.media
    seen = {}
    hook = (
        decoder_blocks(base.model)
        .blocks[1]
        .register_forward_hook(
            lambda module, args, output: seen.update(whole=output[0] if isinstance(output, tuple) else output)
        )
    )
    with torch.no_grad():
        base.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **batch.media)
        hook.remove()
        states = Trunk(base.model, 2)(batch.input_ids, batch.attention_mask, [2], media=batch.media)[2]
    real = batch.attention_mask.bool()
    assert torch.allclose(states[real], seen["whole"][real], atol=1e-5)


def test_a_picture_changes_the_answer_and_text_alone_stays_itself(base):
    prompts = [render_prompt(pictured(f"drawn:test/{at}"), base.tokenizer) for at in (0, 3)]
    plain = render_prompt(pictured(), base.tokenizer)
    alone = [generate(base.model, base.tokenizer, [one], max_new_tokens=4)[0] for one in [*prompts, plain]]
    together = generate(base.model, base.tokenizer, [prompts[0], plain, prompts[1]], max_new_tokens=4)
    assert together == [alone[0], alone[2], alone[1]]
    sequences = [(followed_by(prompt, [5, 6]), len(prompt)) for prompt in prompts]
    first, second = response_nll(base.model, sequences, pad_id=0)
    assert not torch.allclose(first, second)


def test_token_by_token_it_writes_what_generate_does(base):
    base.model.generation_config.eos_token_id = None
    for chat in (pictured("drawn:test/3"), pictured("drawn:test/3", "drawn:test/4", text="Say"), pictured()):
        prompt = render_prompt(chat, base.tokenizer)
        expected = generate(base.model, base.tokenizer, [prompt], max_new_tokens=5)[0]
        found = [step.token for step in stream(Reader(base.model, (1,)), prompt, max_new_tokens=5)]
        assert found == expected


def test_a_text_after_a_picture_stands_where_it_would_alone(base):
    base.model.generation_config.eos_token_id = None
    prompts = [
        render_prompt(chat, base.tokenizer) for chat in (pictured(text="Say" * 4), pictured("drawn:test/3"))
    ]
    alone = [generate(base.model, base.tokenizer, [prompt], max_new_tokens=5)[0] for prompt in prompts]
    generate(
        base.model, base.tokenizer, [prompts[1]] * 2, max_new_tokens=2
    )  # what M-RoPE families keep is of two
    voices = [stream(Reader(base.model), prompt, max_new_tokens=5) for prompt in prompts]
    steps = [(next(voices[0]), next(voices[1])) for _ in range(5)]  # two readers of one model, by turns
    assert [[pair[at].token for pair in steps] for at in (0, 1)] == alone


def test_two_steps_change_the_language_trunk_alone(family, base, tmp_path):
    before = {name: item.clone() for name, item in base.model.named_parameters()}
    model = run(base, tmp_path / "run")
    home = decoder_blocks(base.model).path
    names = adapted_names(model)
    assert names and all(name.startswith(f"{home}.") for name in names)
    assert not any(
        tower in name for name in names for tower in ("vision", "visual", "projector", "connector")
    )
    for name, item in model.named_parameters():
        if ".lora_" not in name:
            assert not item.requires_grad and item.grad is None
            own = name.removeprefix("base_model.model.").replace(".base_layer", "")
            assert torch.equal(item, before[own]), name
    assert all(item.requires_grad for item in adapter_parameters(model).values())


def test_saved_reloaded_and_merged_it_answers_the_same(base, tmp_path):
    plain = logits(base.tokenizer, base.model)
    model = run(base, tmp_path / "run").eval()
    trained = logits(base.tokenizer, model)
    assert not torch.allclose(trained, plain, atol=1e-3)
    save_adapter(model, tmp_path / "adapter")
    again = load(ModelConfig(name=str(tmp_path / "base"), device="cpu", dtype="float32"))
    reloaded = load_adapter(again.model, tmp_path / "adapter").eval()
    assert torch.allclose(logits(again.tokenizer, reloaded), trained, atol=1e-5)
    report = merge_to(tmp_path / "merged", tmp_path / "base", tmp_path / "adapter")
    assert report.agrees
    merged = load(ModelConfig(name=str(tmp_path / "merged"), device="cpu", dtype="float32"))
    assert torch.allclose(logits(merged.tokenizer, merged.model), trained, atol=1e-4)


def test_a_text_model_refuses_a_picture():
    from tests.data.tokenizers_of_families import CHATML, tiny

    with pytest.raises(UserError, match="takes no pictures"):
        tokenise(pictured("drawn:test/0"), tiny(CHATML))


def test_embeddings_stand_for_pictures_or_are_refused(family, base):
    prompt = render_prompt(pictured("drawn:test/0"), base.tokenizer)
    rows = target_rows([prompt], [[5, 6]], torch.device("cpu"))
    media = rows.media(base.model, [prompt])
    assert "pixel_values" in media
    if family in ("llava", "llava_next", "idefics3", "smolvlm"):
        found = input_embeddings(base.model, rows.ids, rows.mask, media)
        wanted = rows.losses(base.model, media=media)
        assert torch.allclose(rows.losses(base.model, found), wanted, atol=1e-4)
    else:  # positions or attention depend on where the pictures are
        with pytest.raises(UserError, match="image_pgd"):
            input_embeddings(base.model, rows.ids, rows.mask, media)
