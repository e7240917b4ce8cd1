"""Keys without a meaning here: accepted, with a note that says why."""

from __future__ import annotations

from collections.abc import Mapping

_BY_REASON: Mapping[str, tuple[str, ...]] = {
    "the job has a folder of its own on its volume": ("overwrite_output_dir", "logging_dir"),
    "tokens are prepared once, in their own stage, and kept on the job's volume": (
        "overwrite_cache", "preprocessing_num_workers", "data_shared_file_system", "cache_dir",
    ),
    "training_loss.png is always drawn": ("plot_loss",),
    "it changes speed or memory, not the result; the trainer chooses for itself": (
        "flash_attn", "use_unsloth", "use_unsloth_gc", "enable_liger_kernel", "use_liger_kernel", "liger_kernel_config",
        "use_v1_kernels", "use_reentrant_gc", "gradient_checkpointing_kwargs", "low_cpu_mem_usage", "torch_compile",
        "torch_compile_backend", "torch_compile_mode", "torchdynamo", "torch_empty_cache_steps", "use_cache",
        "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor",
        "eval_accumulation_steps", "offload_folder", "jit_mode_eval", "half_precision_backend", "fp16_backend",
        "fp16_opt_level", "mp_parameters",
    ),
    "products of float32 numbers are computed as PyTorch does by default": ("tf32",),
    "the trainer starts and watches its processes itself": (
        "ddp_timeout", "ddp_backend", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_find_unused_parameters",
        "ddp_static_graph", "local_rank", "master_addr", "master_port", "ray_num_workers", "ray_init_kwargs", "ray_scope",
        "tpu_num_cores", "tpu_metrics_debug", "use_mps_device",
    ),
    "no code of a model's repository is run here; models that transformers knows need none": ("trust_remote_code",),
    "transformers has fast tokenizers only": ("use_fast_tokenizer",),
    "the log always has loss, learning rate, gradient norm and tokens": (
        "include_num_input_tokens_seen", "include_tokens_per_second", "include_effective_tokens_per_second",
        "logging_strategy", "logging_first_step", "logging_nan_inf_filter", "log_level", "log_level_replica",
        "log_on_each_node", "disable_tqdm", "print_param_status", "skip_memory_metrics", "debug", "run_name", "project",
        "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id",
    ),
    "checkpoints are always whole, in safetensors, and saved when the pod is told to stop": (
        "save_only_model", "save_safetensors", "save_on_each_node", "enable_jit_checkpoint", "ignore_data_skip",
        "restore_callback_states_from_checkpoint",
    ),
    "only the loss is evaluated": (
        "prediction_loss_only", "include_for_metrics", "include_inputs_for_metrics", "batch_eval_metrics",
        "eval_do_concat_batches", "eval_use_gather_object", "past_index", "use_legacy_prediction_loop",
    ),
    "it is for generating while evaluating, which is not done": (
        "eval_num_beams", "generation_max_length", "generation_num_beams", "generation_config",
    ),
    "the trainer knows its columns": ("remove_unused_columns", "label_names", "length_column_name"),
    "one device gives the same run again without it": ("full_determinism",),
    "clients send it with each request": (
        "do_sample", "temperature", "top_p", "top_k", "num_beams", "max_length", "max_new_tokens", "repetition_penalty",
        "length_penalty", "skip_special_tokens",
    ),
    "the server has its own settings": (
        "use_kv_cache", "vllm_maxlen", "vllm_gpu_util", "vllm_enforce_eager", "vllm_max_lora_rank", "vllm_config",
        "sglang_maxlen", "sglang_mem_fraction", "sglang_tp_size", "sglang_config", "sglang_lora_backend",
    ),
    "the merge streams the weights through the CPU, or through a GPU with merge.gpus 1": ("export_device",),
    "models and rows are text only": (
        "media_dir", "image_max_pixels", "image_min_pixels", "image_do_pan_and_scan", "crop_to_patches",
        "video_max_pixels", "video_min_pixels", "video_fps", "video_maxlen", "use_audio_in_video", "audio_sampling_rate",
        "freeze_vision_tower", "freeze_multi_modal_projector", "freeze_language_model",
    ),
    "it is for a stage other than sft": (
        "pref_beta", "pref_ftx", "pref_bco_weight", "pref_loss", "dpo_label_smoothing", "kto_chosen_weight",
        "kto_rejected_weight", "simpo_gamma", "ld_alpha", "ppo_buffer_size", "ppo_epochs", "ppo_score_norm", "ppo_target",
        "ppo_whiten_rewards", "ref_model", "ref_model_adapters", "ref_model_quantization_bit", "reward_model",
        "reward_model_adapters", "reward_model_quantization_bit", "reward_model_type",
    ),
}  # fmt: skip
NOTED: Mapping[str, str] = {key: reason for reason, keys in _BY_REASON.items() for key in keys}
"""Why each key has nothing to do."""

_BY_PARENT: Mapping[str, tuple[str, ...]] = {
    "streaming": ("buffer_size",),
    "add_special_tokens": ("init_special_tokens",),
    "pissa_init": ("pissa_iter", "pissa_convert"),
    "finetuning_type: freeze": ("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules"),
    "finetuning_type: oft": ("module_dropout", "oft_rank", "oft_block_size", "oft_target"),
    "use_galore": (
        "galore_target", "galore_rank", "galore_update_interval", "galore_scale", "galore_proj_type", "galore_layerwise",
    ),
    "use_apollo": (
        "apollo_target", "apollo_rank", "apollo_update_interval", "apollo_scale", "apollo_proj", "apollo_proj_type",
        "apollo_scale_type", "apollo_layerwise", "apollo_scale_front",
    ),
    "use_badam": (
        "badam_mode", "badam_start_block", "badam_switch_mode", "badam_switch_interval", "badam_update_ratio",
        "badam_mask_mode", "badam_verbose",
    ),
    "use_swanlab": (
        "swanlab_project", "swanlab_workspace", "swanlab_run_name", "swanlab_mode", "swanlab_api_key", "swanlab_logdir",
        "swanlab_lark_webhook_url", "swanlab_lark_secret",
    ),
    "use_asft_loss": ("asft_alpha",),
    "use_eaft_loss": ("eaft_alpha",),
    "use_hyper_parallel": ("hyper_parallel_args",),
    "use_kt": (
        "kt_weight_path", "kt_expert_checkpoint_path", "kt_use_lora_experts", "kt_lora_expert_num",
        "kt_lora_expert_intermediate_size",
    ),
    "fp8": ("fp8_backend", "fp8_enable_fsdp_float8_all_gather"),
    "fsdp": ("fsdp_config", "fsdp_min_num_params", "fsdp_transformer_layer_cls_to_wrap"),
    "export_quantization_bit": ("export_quantization_dataset", "export_quantization_nsamples", "export_quantization_maxlen"),
    "push_to_hub": (
        "hub_model_id", "hub_token", "hub_strategy", "hub_private_repo", "hub_always_push", "hub_revision",
        "push_to_hub_model_id", "push_to_hub_organization", "push_to_hub_token",
    ),
    "enable_torch_profiler": (
        "profiler_output_dir", "profiler_wait_steps", "profiler_warmup_steps", "profiler_active_steps", "profiler_repeat",
        "profiler_record_shapes", "profiler_profile_memory", "profiler_with_stack",
    ),
}  # fmt: skip
DEPENDENT: Mapping[str, str] = {key: parent for parent, keys in _BY_PARENT.items() for key in keys}
"""The refused key without which each key does nothing, in LLaMA-Factory as well."""
