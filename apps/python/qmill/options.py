"""The options of `convert`, as types. Made by qmill._write_options from the table of options; do not edit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from typing_extensions import TypedDict

_Path = str | os.PathLike[str]


class QuantizeOptions(TypedDict, total=False):
    """Options of `quantize`. Comments: the default, and what it does."""

    # Default: 128. int8: edge of a block; w4a8: columns of a group. Without `scaling_mode`, it means block
    # scaling, or the option block_size of an optimizer that has one.
    block_size: int
    # Default: 'auto'. store in the regular-Hadamard basis: auto = groups of 256 where 256 divides the columns,
    # any = the largest of 256, 64, 16 that does, G = a power of 4.
    convrot: str | int
    # Default: 'int8'. int8, int4, fp8, mxfp8, nvfp4, w4a8 or fp16, or one of qmill plugins list.
    format: str
    # Default: False. short for `format fp16`.
    fp16: bool
    # Default: False. short for `format int8`.
    int8: bool
    # Default: 'row'. int8: one scale per row, tensor, block or axis; ComfyUI reads row, tensor.
    scaling_mode: Literal['row', 'tensor', 'block', 'axis']
    # Default: 'error'. values beyond the range of F16: an error, or clamped to the largest value.
    fp16_overflow: Literal['error', 'clamp']
    # Default: False. ask the reader to multiply in full precision.
    full_precision_matrix_mult: bool
    # number of values above which a weight is rotated in pieces, with the same result.
    stream_hadamard_threshold: int
    # number of values above which sample rows are read in pieces, with the same result.
    stream_hessian_threshold: int
    # number of values above which a weight is rounded with error feedback in pieces, with the same result.
    stream_ldlq_threshold: int
    # number of values above which a dense transform is applied in pieces, with the same result.
    stream_ortho_threshold: int
    # Default: 0. passes over all columns afterwards: each value moves to where the others make it cheapest; an
    # integer from 0 to 1000.
    descent_passes: int
    # Default: False. process the columns with the largest inputs first.
    gptq_actorder: bool
    # Default: 64. columns in a block; changes only the speed; an integer of at least 1.
    gptq_block_size: int
    # Default: True. work in blocks of columns; off: one column at a time, with the same codes.
    gptq_fast: bool
    # Default: False. a fused kernel for GPUs.
    gptq_turbo: bool
    # Default: 'original'. original: optimize integers; adamw, radam: then optimize soft integers, which is
    # slow.
    learned_rounding_variant: Literal['original', 'adamw', 'radam']
    # Default: True. process the columns with the largest inputs first.
    quip_actorder: bool
    # Default: 64. columns in a block; changes only the speed; an integer of at least 1.
    quip_block_size: int
    # Default: 4. number of parts of a wide layer; an integer of at least 1.
    quip_checkpoint_segments: int
    # Default: 8192. columns from which a layer is wide; an integer of at least 1.
    quip_checkpoint_threshold: int
    # Default: False. round wide layers in parts: the same codes, less memory.
    quip_checkpointed: bool
    # Default: True. use random Hadamard transforms; off: dense ones, which cannot be stored.
    quip_hadamard: bool
    # Default: 'tensor'. scales in the original basis if no scaling is chosen: block, or see
    # requant_tensor_per_row.
    quip_requant_scheme: Literal['tensor', 'block']
    # Default: True. with requant_scheme tensor: one scale per row; off: one for the tensor.
    quip_requant_tensor_per_row: bool
    # Default: -1. seed of the random signs; -1: the seed of the run; an integer of at least -1.
    quip_seed: int
    # Default: False. store the codes in the transformed basis.
    quip_store_transformed: bool
    # Default: 'convrot'. layout for store_transformed: regular Hadamard, or the whole matrix in a random
    # Hadamard basis (hadamard_quip).
    quip_transformed_layout: Literal['convrot', 'full']
    # Default: 'auto'. number added to the diagonal of the Hessian, times its mean; auto: chosen on the rows
    # kept apart, or 0.01.
    damping: Literal['auto'] | int | float
    # Default: 'auto'. which scales: off: by the largest value; mse: the smallest error of the weight; hessian:
    # the smallest error on real inputs; auto: hessian for formats of at most 16 values.
    scale_search: Literal['auto', 'hessian', 'mse', 'off']
    # Default: 1e-08. stops at this loss, as a fraction of the loss of rounding to nearest; a number from 0 to
    # 1000000000.
    early_stop_loss: float
    # Default: 1e-10. stops at this step; a number from 0 to 1000000000.
    early_stop_lr: float
    # Default: 5. stops after more than this many iterations in a row without a useful gain; an integer from 0
    # to 1000000000.
    early_stop_stall: int
    # Default: False. compute exact directions with LAPACK instead of approximate ones; slow.
    full_matrix: bool
    # Default: 0.008077300000003. size of a step; the default suits the noise of rounding; a number from 0 to
    # 1000000000.
    lr: float
    # Default: 'simple-reset'. adaptive: whether the step gets its full size again when the loss falls; no-reset
    # is slower and ends worse.
    lr_adaptive_mode: Literal['simple-reset', 'no-reset']
    # Default: 6. plateau: iterations after it shrank that are not counted; an integer from 0 to 1000000000.
    lr_cooldown: int
    # Default: 0.92. plateau: factor of the step; a number from 0 to 1.
    lr_factor: float
    # Default: 0.99. exponential: factor of each iteration; a number from 0 to 1.
    lr_gamma: float
    # Default: 1e-10. smallest step; a number from 0 to 1000000000.
    lr_min: float
    # Default: 9. plateau: iterations without gain before the step shrinks; an integer from 0 to 1000000000.
    lr_patience: int
    # Default: 'adaptive'. how the step shrinks: adaptive: by half if the loss did not fall; exponential:
    # always, by lr-gamma; plateau: by lr-factor after lr-patience iterations without gain.
    lr_schedule: Literal['adaptive', 'exponential', 'plateau']
    # Default: 1.0. plateau: how much faster the step shrinks for weights far from square; a number from 0 to
    # 100.
    lr_shape_influence: float
    # Default: 0.0. smallest fall of the loss that counts as a gain; a number from 0 to 1000000000.
    lr_threshold: float
    # Default: 'rel'. what lr-threshold is relative to: the best loss so far, or that of rounding to nearest.
    lr_threshold_mode: Literal['rel', 'abs']
    # Default: 1024. largest number of directions; an integer from 1 to 1000000000.
    max_k: int
    # Default: 64. smallest number of directions; an integer from 1 to 1000000000.
    min_k: int
    # Default: 1000. largest number of iterations; most layers need far fewer; an integer from 0 to 1000000000.
    num_iter: int
    # Default: 0.2. number of directions of the weight, as a fraction of its smaller side; a number from 0 to 1.
    top_p: float
    # Default: 0. seed of all random numbers; -1: a new seed, printed and stored.
    manual_seed: int
    # Default: False. another name of `simple`.
    no_learned_rounding: bool
    # Default: 'auto'. the quantization algorithm: auto, or one of qmill plugins list.
    optimizer: str
    # Default: False. plain rounding, even if the inputs are known.
    simple: bool
    # Default: 'auto'. auto, cpu, or cuda[:N]; this build computes on the CPU.
    device: str
    # Default: 0. 0: one per processor; the output is the same for every number.
    threads: int


class ConvertOptions(QuantizeOptions, total=False):
    """Options of `convert` and `plan`. Comments: the default, and what it does."""

    # Default: True. where the mean input is known, correct biases by the error of the mean output.
    bias_correction: bool
    # Default: 6144. most rows per layer to use, evenly spaced over the data.
    calib_samples: int
    # sample rows or statistics of the layers' inputs, .safetensors or .json (docs/calibration.md).
    calibration_data: _Path
    # for layers without data: keep the error small in directions of this LoRA.
    calibration_lora: _Path
    # Default: False. weight the columns by channel_max in layers without rows or a Hessian.
    smoothquant: bool
    # Default: 0.5. 0 to 1: how much of that comes from the inputs, not the weights.
    smoothquant_alpha: float
    # Default: 'auto'. compute in BF16 on a GPU; a CPU computes in F32.
    bf16_compute: Literal['auto', 'on', 'off']
    # Default: 500000. number of values from which a GPU computes in BF16.
    bf16_hadamard_threshold: int
    # Default: 1000000. number of values from which a GPU computes in BF16.
    bf16_hessian_threshold: int
    # Default: 1000000. number of values from which a GPU computes in BF16.
    bf16_threshold: int
    # Default: False. say what goes to a GPU through pinned memory.
    verbose_pinned: bool
    # Default: True. use ComfyUI's names and markers; off: legacy .scale_weight.
    comfy_quant: bool
    # Default: False. decode an input that is quantized already (docs/sources.md), instead of refusing it.
    dequantize_source: bool
    # Default: False. legacy names: write .scale_input, too.
    input_scale: bool
    # cast floating tensors that are not quantized.
    keep_dtype: Literal['f32', 'bf16', 'f16']
    # write files of at most this size and an index that names them: 5GB, 4GiB, 500MB or a number of bytes, at
    # least 1MB.
    max_shard_size: str
    # Default: False. legacy names: a single scale has one dimension instead of none.
    no_normalize_scales: bool
    # Default: False. replace the output if it exists.
    overwrite: bool
    # Default: False. give a text encoder with names of llama.cpp or its authors the names that ComfyUI looks
    # for (docs/sources.md).
    rename: bool
    # Default: True. write the markers to the header.
    save_quant_metadata: bool
    # Default: False. legacy names: .scale_input is the input_scale of the calibration data.
    static_activations: bool
    # Default: 'comfyui'. the program that the output is for: comfyui keeps layers that ComfyUI cannot load
    # quantized, such as those of CLIP and VAE; any keeps none for that reason.
    target: Literal['comfyui', 'any']
    # merge this LoRA into the model before anything else (docs/lora.md); FILE:0.8 sets its own strength.
    merge_lora: _Path
    # Default: True. weaken LoRA number i of several, counted from 0, by 0.9^i.
    merge_lora_dampen: bool
    # Default: False. merge what fits of a LoRA, even if it also has layers that the model does not have.
    merge_lora_partial: bool
    # Default: 1.0. strength of all LoRAs.
    merge_lora_scale: float
    # Default: False. leave out layers whose size in the LoRA is not that of the model.
    merge_lora_skip_mismatched: bool
    # merge several, in this order; `merge_lora` comes last.
    merge_loras: _Path | Sequence[_Path]
    # weights and results in memory at once, instead of `streaming_mode`.
    in_flight: int
    # Default: False. one layer at a time.
    low_memory: bool
    # Default: False. no limit at all.
    no_memory_limits: bool
    # Default: False. old name of `streaming_mode balanced`.
    streaming: bool
    # Default: False. old name of `streaming_mode aggressive`.
    streaming_aggressive: bool
    # Default: 'balanced'. off: read everything first; minimal, balanced, aggressive: 512, 128, 32 MiB of
    # weights and results at once, but at most 1/2, 1/4, 1/16 of the free memory; auto: by the size of the
    # model. The default is what STREAMING_AGGRESSIVENESS says (conservative, balanced, aggressive), if it is
    # set.
    streaming_mode: Literal['off', 'minimal', 'balanced', 'aggressive', 'auto']
    # publish nothing and exit with 3 if a layer's SQNR is below this.
    fail_below: float
    # Default: 'on'. measure every layer on the bytes as stored; off saves that time, and the report has no
    # figures.
    quality: Literal['on', 'off']
    # Default: 30.0. warn about layers with an SQNR below this.
    quality_threshold: float
    # Default: True. leave what is finished when a run ends early, for `resume`.
    keep_part: bool
    # Default: False. go on with what a run that ended early has left beside the output, if there is something.
    resume: bool
    # Default: True. wait until the file is on the disk before it gets its name.
    sync: bool
    # Default: False. Anima: keeps the language adapter, the embedders, the final layer, the first block, and
    # modulation of the second.
    anima: bool
    # Default: False. AuraFlow: keeps the first and last layers, the embedder of time, and the final modulation.
    aura: bool
    # Default: False. Boogu: keeps the embedders of images, time and captions, and the output.
    boogu: bool
    # Default: False. CLIP L, G and H text encoders: keeps token and position tables, the projection and norms.
    clip: bool
    # Default: False. CogVideoX: keeps the embedders of patches and time, and the output.
    cogvideox: bool
    # Default: False. Cosmos 1 and Predict 2: keeps the embedders of patches, positions and time, and the final
    # layer.
    cosmos: bool
    # block scaling for custom layers.
    custom_block_size: int
    # Default: False. `heur` for custom layers.
    custom_heur: bool
    # tensors whose name matches become `custom_type`.
    custom_layers: str
    # scaling of custom layers.
    custom_scaling_mode: Literal['row', 'tensor', 'block', 'axis']
    # Default: False. plain rounding for custom layers.
    custom_simple: bool
    # format (int8, fp16) or quantizer of custom layers; required with `custom_layers`.
    custom_type: str
    # Default: False. Chroma: keeps the distilled guidance, and the first and last layers.
    distillation_large: bool
    # Default: False. Chroma, smaller: keeps the distilled guidance only.
    distillation_small: bool
    # Default: 'off'. store the tables of tokens so by plain rounding, where the reader loads that, although
    # filters keep them (docs/rules.md); off: as other layers.
    embeddings: Literal['int8', 'fp8', 'off']
    # Default: False. Ernie-Image: keeps the embedders, the shared modulation, the final layers, and the first
    # and last block.
    ernie: bool
    # keep tensors whose name matches.
    exclude_layers: str
    # convert excluded layers to this format (int8, fp16) or with this quantizer, instead of keeping them.
    fallback: str
    # block scaling for excluded layers.
    fallback_block_size: int
    # Default: False. plain rounding for excluded layers.
    fallback_simple: bool
    # Default: 'none'. keep the layers that this filter names (qmill filters list); auto: the filter of this
    # model, or structural if the model is not known; structural: embeddings, first and last layers, modulation
    # and norms; none: keep nothing; several may be given.
    filter: str | Sequence[str]
    # Default: False. Flux.1 and related models: keeps the first and last layers, and the embedders of time,
    # guidance and pooled text.
    flux: bool
    # Default: False. Flux.2: keeps the first and last layers, the embedders of time and guidance, and the
    # shared modulation.
    flux2: bool
    # Default: False. patterns of the layer configuration must match whole names.
    fullmatch: bool
    # Default: False. Gemma 2 and 3 text encoders: keeps the token table, norms, head, and the layers after the
    # vision tower.
    gemma: bool
    # Default: False. Gemma 3n and 4: keeps inputs per layer, the vision and audio towers, token tables, norms
    # and head.
    gemma4: bool
    # Default: False. any diffusion transformer: keeps embedders and the first and last layers, by their usual
    # names.
    generic_diffusion: bool
    # Default: False. any text encoder: keeps token and position tables, norms, heads, routers, and projections
    # into other models.
    generic_text: bool
    # Default: False. keep layers that are small, do not divide into blocks, or round badly.
    heur: bool
    # Default: False. HiDream I1: keeps the embedders, caption projections, the gates of experts, and the final
    # layer.
    hidream: bool
    # Default: False. Hunyuan Video 1.0, 1.5 and Hunyuan Image: keeps all embedders and the final layer.
    hunyuan: bool
    # Default: False. Ideogram 4: keeps the first and last layers, the embedders of time and text, and the
    # shared part of modulation.
    ideogram4: bool
    # Default: False. Kandinsky 5 and 6, images and video: keeps the embedders and the output.
    kandinsky: bool
    # Default: False. Krea 2: keeps the first and last layer, the embedders of time and text, and the fusion of
    # text layers.
    krea2: bool
    # choices per layer, as JSON (docs/layer-config.md).
    layer_config: _Path | Mapping[str, Any]
    # Default: False. Lens: keeps the first and last layers, the embedder of time, and modulation.
    lens: bool
    # Default: False. Llama text encoders: keeps the token table, norms and head.
    llama: bool
    # Default: False. LoRA files: keeps alpha, scale and magnitudes.
    lora: bool
    # Default: False. LTX Video before 2: keeps the first and last layers, and the shared modulation.
    ltxv: bool
    # Default: False. LTX 2, video and audio: keeps the first and last layers, modulation, gates, connectors,
    # and two blocks at either end.
    ltxv2: bool
    # Default: False. Lumina 2 and NewBie: keeps the embedders, modulation, both refiners, and the final layer.
    lumina2: bool
    # Default: False. MiniMax H3: keeps the first and last layers, the embedder of time, and modulation, whose
    # sizes fit no fast kernel.
    minimax_h3: bool
    # Default: False. Mistral and Ministral text encoders: keeps the token table, norms, head, and the layers
    # before and after the vision tower.
    mistral: bool
    # Default: False. Mochi: keeps the embedders of patches, time and text, and the final layer.
    mochi: bool
    # Default: False. Chroma Radiance, larger: as radiance, and the outputs of attention in the double blocks.
    nerf_large: bool
    # Default: False. Chroma Radiance, smaller: keeps the distilled guidance and the NeRF.
    nerf_small: bool
    # Default: False. OmniGen2: keeps the embedders of images, time and captions, and the output.
    omnigen2: bool
    # Default: False. PixArt alpha and sigma: keeps the embedders, the shared modulation and the final layer.
    pixart: bool
    # Default: False. Qwen-Image, Edit and Layered: keeps the first and last layers, the embedder of time, and
    # the first image modulation.
    qwen: bool
    # Default: False. Qwen 3.5: keeps the first and last block, small projections, token table, head, and the
    # edges of the vision tower.
    qwen35: bool
    # Default: False. Qwen 2.5 and 3, VL or not: keeps the token table, norms, head, and the edges and MLPs of
    # the vision tower.
    qwen_text: bool
    # Default: False. Chroma Radiance: keeps the distilled guidance, the NeRF that draws pixels, and the first
    # layers.
    radiance: bool
    # Default: False. Stable Diffusion 3 and 3.5: keeps the embedders of patches, text, time and pooled text,
    # and the final layer.
    sd3: bool
    # Default: False. Stable Diffusion UNets (XL, 1 and 2): keeps the embedders of time and size, the first and
    # the last convolution.
    sdxl: bool
    # Default: False. SeedVR2: keeps the first and last layers, and the embedder of time.
    seedvr2: bool
    # Default: False. T5 encoders: keeps the token table, norms and position bias; removes the decoder and its
    # head.
    t5xxl: bool
    # Default: False. vision towers of multimodal encoders: keeps their MLPs, patch table and norms, whose sizes
    # fit no fast kernel.
    visual: bool
    # Default: False. Wan 2.1 and 2.2 with all variants: keeps the embedders, the head, and encoders of images,
    # audio, faces and motion.
    wan: bool
    # Default: False. Z-Image: keeps the embedders of patches, captions and time, modulation, and the final
    # layer.
    zimage: bool
    # Default: False. Z-Image, larger: as zimage, and both refiners.
    zimage_refiner: bool
