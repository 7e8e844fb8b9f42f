"""The LLMConfig that a replica builds from settings."""

import pickle
import pydoc

from serve_app.llm.config import build_llm_config
from serve_app.settings import PROJECT_ROOT, LanguageModelSettings


def build_config(**keys):
    return build_llm_config(LanguageModelSettings(name="one", **keys))


def test_urls_in_prompts_are_fetched_from_no_host_that_the_configuration_does_not_name():
    assert build_config().engine_kwargs["allowed_media_domains"] == ["none.invalid"]
    named = build_config(engine={"allowed_media_domains": ["pictures.example"]})
    assert named.engine_kwargs["allowed_media_domains"] == ["pictures.example"]


def test_a_token_is_in_nothing_that_is_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (tmp_path / "token").write_text("hf_secret")
    config = build_config(token_file=tmp_path / "token")
    assert config.runtime_env["env_vars"]["HF_TOKEN_PATH"] == str(tmp_path / "token")
    assert "hf_secret" not in repr(config)
    assert b"hf_secret" not in pickle.dumps(config)
    config.runtime_env["env_vars"]["HF_TOKEN"] = "hf_secret"  # as ray.serve.llm does
    callback_class = pydoc.locate(config.callback_config.callback_class)
    callback = callback_class(
        config, ctx_kwargs={"runtime_env": config.runtime_env}, **config.callback_config.callback_kwargs
    )
    assert callback.ctx.run_init_node, "a hub id is downloaded"
    assert "hf_secret" not in repr((config.runtime_env, callback.ctx.runtime_env))


def test_adapters_are_loaded_by_vllm_at_the_start_or_by_ray_serve_llm_on_request():
    weights = "model_repository/weights"
    modules = [{"name": "polite", "path": weights}, {"name": "far", "path": "a/b"}]
    config = build_config(engine={"lora_modules": modules})
    assert [(module.name, module.path) for module in config.engine_kwargs["lora_modules"]] == [
        ("polite", str(PROJECT_ROOT / weights)),
        ("far", "a/b"),
    ]
    assert config.engine_kwargs["enable_lora"]
    config = build_config(adapters={"folder": "s3://bucket/adapters", "max_per_replica": 4})
    assert config.lora_config.dynamic_lora_loading_path == "s3://bucket/adapters"
    assert config.lora_config.max_num_adapters_per_replica == 4
