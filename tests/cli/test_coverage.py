"""docs/api-coverage.md has a row for every part of the documented API, and every row names a test that exists."""

import json
import re
import unittest

from support import SOURCE, qmill

PAGE = SOURCE / "docs" / "api-coverage.md"

# The API that this project promises, by section of the page.
PROMISED = {
    "convert_to_int8": """input_file output_file comfy_quant filter_flags calib_samples seed fp16 fallback custom_layers exclude_layers
        custom_type custom_block_size custom_scaling_mode custom_simple custom_heur fallback_block_size fallback_simple
        full_precision_matrix_mult skip_inefficient_layers include_input_scale no_learned_rounding save_quant_metadata layer_config
        layer_config_fullmatch low_memory streaming_mode streaming_thresholds no_memory_limits report_quality quality_threshold smoothquant
        smoothquant_alpha calibration_data_path calibration_lora_path gptq_actorder gptq_fast gptq_turbo quip_actorder quip_hadamard
        quip_seed quip_store_transformed quip_requant_scheme quip_requant_tensor_per_row quip_checkpointed quip_checkpoint_threshold
        quip_checkpoint_segments merge_lora_path merge_lora_paths merge_lora_scale merge_lora_dampen converter_kwargs""",
    "UnifiedSafetensorsLoader": "low_memory keys metadata get_shape get_ndim get_tensor mark_processed close",
    "QuIPInt8Converter": """block_size device actorder use_hadamard seed use_triton lazy_updates store_transformed requant_scheme
        requant_tensor_use_per_row_scale streaming_mode streaming_thresholds no_memory_limits use_checkpointed_ldlq
        checkpointed_ldlq_threshold checkpoint_segments convert H activation_scales smoothquant_alpha""",
    "LearnedRoundingConverter": "block_size num_iter lr optimizer lr_schedule top_p min_k max_k convert activation_scales",
    "GPTQInt8Converter": "block_size device actorder lazy_updates use_triton convert H",
    "QualityReporter": "threshold add_layer get_report_string",
    "LoRA": "load_lora_tensors load_lora_for_merging merge_lora_into_weight merge_multiple_loras",
    "Layer configuration": "load_layer_config layer_patterns format block_size skip",
    "Constants, logging, types": """TARGET_INT8_DTYPE COMPUTE_DTYPE SCALE_DTYPE INT8_SYMMETRIC_MAX MODEL_FILTERS setup_logging
        WeightTensor ScaleTensor HessianMatrix FilterFlags LayerConfig""",
    "Environment variables": "ENABLE_MIXED_HADAMARD MIXED_HADAMARD_DTYPE STREAMING_AGGRESSIVENESS",
    "Flags of convert": """--input --output --comfy-quant --int8 --fp16 --full-precision-matrix-mult --input-scale --static-activations
        --save-quant-metadata --no-normalize-scales --verbose --exclude-layers --custom-layers --custom-type --custom-block-size
        --custom-scaling-mode --custom-simple --custom-heur --fallback --fallback-block-size --fallback-simple --heur --layer-config
        --fullmatch --simple --scaling-mode --block-size --optimizer --num-iter --lr --full-matrix --top-p --min-k --max-k --lr-schedule
        --lr-gamma --lr-patience --lr-factor --lr-min --lr-cooldown --lr-threshold --lr-adaptive-mode --lr-shape-influence
        --lr-threshold-mode --early-stop-loss --early-stop-lr --early-stop-stall --calib-samples --manual-seed --calibration-data
        --calibration-lora --smoothquant --smoothquant-alpha --report-quality --quality-threshold --gptq-actorder --gptq-fast --gptq-turbo
        --quip-actorder --quip-hadamard --quip-seed --quip-store-transformed --quip-requant-scheme --quip-requant-tensor-per-row
        --quip-checkpointed --quip-checkpoint-threshold --quip-checkpoint-segments --merge-lora --merge-loras --merge-lora-scale
        --merge-lora-dampen --dry-run --low-memory --no-memory-limits --streaming-mode --stream-hadamard-threshold
        --stream-hessian-threshold --stream-ldlq-threshold --stream-ortho-threshold --streaming --streaming-aggressive --bf16-compute
        --bf16-threshold --bf16-hadamard-threshold --bf16-hessian-threshold --verbose-pinned --help --FILTER""",
    "Other commands and forms": """--edit-quant --remove-keys --add-keys --quant-filter --help-experimental --help-filters --help-advanced
        calibrate batch dequantize verify""",
}


def rows():
    """section -> {name: test}"""
    sections = {}
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            section = sections.setdefault(line[3:], {})
        elif match := re.fullmatch(r"\| `([^`]+)` \| (.+) \| `([^`]+)` \|", line):
            name, what, test = match.groups()
            assert name not in section, f"{name} has two rows"
            section[name] = test
    return sections


def tests():
    """Every test of the project, as the page names them."""
    names = set()
    for path in (SOURCE / "tests").rglob("*_test.cpp"):
        names.update(f"{suite}.{name}" for suite, name in re.findall(r"^TEST(?:_[FP])?\((\w+), (\w+)\)", path.read_text(), re.M))
    for path in (SOURCE / "tests" / "cli").glob("test_*.py"):
        names.update(f"{path.stem}.{name}" for name in re.findall(r"^    def (test_\w+)\(self\)", path.read_text(), re.M))
    return names


class Coverage(unittest.TestCase):
    def test_every_promised_part_has_a_row(self):
        found = rows()
        for section, names in PROMISED.items():
            self.assertIn(section, found)
            for name in names.split():
                self.assertIn(name, found[section], section)

    def test_every_flag_of_convert_has_a_row(self):
        flags = json.loads(qmill("convert", "--help", "all", "--json")[0])["flags"]
        filters = {entry["name"].replace("_", "-") for entry in json.loads(qmill("filters", "list", "--json")[0])}
        expected = {f"--{flag['name']}" for flag in flags if flag["name"] not in filters} | {"--FILTER"}
        self.assertGreater(len(expected), 100)
        self.assertEqual(set(rows()["Flags of convert"]), expected)

    def test_every_row_names_a_test_that_exists(self):
        known = tests()
        self.assertGreater(len(known), 700)
        unknown = [f"{section}: {name}: {test}" for section, entries in rows().items() for name, test in entries.items() if test not in known]
        self.assertEqual(unknown, [])
