"""The conversions whose bytes are pinned in sha256.json, each one command line of qmill with an output of its own.

conversions.py --command QMILL [--write sha256.json] [--whole OUT.json] [--keep FOLDER] [--threads N]

runs them all. --write pins what this qmill writes: only where bytes are to change. --whole writes the hashes of whole files, metadata
included; --keep keeps sources and outputs in a new folder. The pinned hashes are those of LibTorch 2.13.0 with MKL, on x86-64.
"""

import argparse
import json
import tempfile
from pathlib import Path

from runner import hash_of_file, hash_of_tensors, hashes_of, run_all
from sources import write_all


def each(prefix, line, variants):
    return {f"{prefix}_{name}": f"{line} {flags}".strip() for name, flags in variants.items()}


ROWS = "--calibration-data rows.safetensors"
WIDE = "convert wide.safetensors --calibration-data wide_rows.safetensors"
FULL = "--optimizer quip --quip-store-transformed --quip-transformed-layout full"
KEEP_SOME = "--exclude-layers odd|thin"
SOFT = "--lr 0.05 --num-iter 60"  # with the usual rate, soft integers win nothing from layers as small as these

FORMATS = each("int8", "convert model.safetensors", {
    "default": "",
    "explicit": "--int8 --convrot auto --no-learned-rounding",
    "plain": "--convrot off",
    "any": "--convrot any",
    "rotated_64": "--convrot 64",
    "rotated_4": "--convrot 4",
    "tensor": "--scaling-mode tensor",
    "axis": "--scaling-mode axis",
    "block_128": "--scaling-mode block",
    "block_16": "--block-size 16",
    "block_by_name": "--format int8_blockwise --block-size 8",
    "legacy": "--no-comfy-quant",
    "legacy_tensor": "--no-comfy-quant --scaling-mode tensor --input-scale",
    "legacy_tensor_vector": "--no-comfy-quant --scaling-mode tensor --input-scale --no-normalize-scales",
    "legacy_block": "--no-comfy-quant --block-size 32",
    "legacy_static": f"--no-comfy-quant --static-activations {ROWS}",
    "no_header_entry": "--no-save-quant-metadata",
    "full_precision": "--full-precision-matrix-mult",
}) | each("int4", "convert model.safetensors --format int4", {
    "default": "",
    "16": "--convrot 16",
    "256": "--convrot 256",
    "plain": "--convrot off",
    "full_precision": "--full-precision-matrix-mult",
    "gptq": f"{ROWS}",
    "gptq_plain": f"--convrot off --gptq-actorder {ROWS}",
    "gptq_no_search": f"--scale-search off {ROWS}",
    "quip": f"--optimizer quip {ROWS}",
    "quip_plain": f"--optimizer quip --convrot off {ROWS}",
    "learned": "--optimizer learned_rounding",
    "learned_rows": f"--optimizer learned_rounding {ROWS}",
    "adamw_rows": f"--optimizer adamw {SOFT} {ROWS}",
}) | each("fp8", "convert model.safetensors --format fp8", {
    "default": "",
    "full_precision": "--full-precision-matrix-mult",
    "gptq": ROWS,
    "search": f"--gptq-actorder --scale-search hessian {ROWS}",
    "learned_rows": f"--optimizer learned_rounding {ROWS}",
}) | {"fp8_e5m2": "convert model.safetensors --format float8_e5m2"} | each("mxfp8", "convert model.safetensors --format mxfp8", {
    "default": "",
    "gptq": ROWS,
    "search": f"--scale-search hessian {ROWS}",
}) | each("nvfp4", "convert model.safetensors --format nvfp4", {
    "default": "",
    "gptq": ROWS,
    "actorder": f"--gptq-actorder {ROWS}",
    "descent": f"--descent-passes 2 {ROWS}",
    "no_search": f"--scale-search off {ROWS}",
    "search": "--optimizer gptq --scale-search mse",
    "quip": f"--optimizer quip {ROWS}",
    "learned_rows": f"--optimizer learned_rounding {ROWS}",
    "adamw_rows": f"--optimizer adamw {SOFT} {ROWS}",
}) | each("w4a8", "convert model.safetensors --format w4a8", {
    "default": "",
    "group_32": "--block-size 32",
    "rotated_16": "--convrot 16",
    "gptq": ROWS,
    "no_search": f"--scale-search off {ROWS}",
    "quip": f"--optimizer quip {ROWS}",
    "learned": "--optimizer learned_rounding",
    "adamw_rows": f"--optimizer adamw {SOFT} {ROWS}",
}) | each("fp16", "convert model.safetensors", {
    "format": "--fp16",
    "optimizer": "--optimizer fp16",
    "keep_dtype": "--fp16 --keep-dtype bf16",
}) | each("keep_dtype", f"convert model.safetensors {KEEP_SOME}", {
    "f32": "--keep-dtype f32",
    "bf16": "--keep-dtype bf16",
    "f16": "--keep-dtype f16",
})

SOURCES = {
    "source_index": "convert shards/model.safetensors.index.json",
    "source_folder": "convert shards --format int4",
    "source_gguf": "convert model.gguf",
    "source_pytorch": "convert model.pt --convrot any",
    "source_rare": "convert rare.safetensors",
    "source_rare_int4": "convert rare.safetensors --format int4",
    "source_rare_fp16": "convert rare.safetensors --fp16 --fp16-overflow clamp --keep-dtype f16",
    "max_shard_size": "convert model.safetensors --max-shard-size 5GB",
    "source_flux_int4": "convert flux.safetensors --format int4",
    "template.json": "convert model.safetensors --dry-run create-template",
}

LAYERS = {
    "source_renamed": "convert umt5.safetensors --rename --filter auto",
    "target_comfyui": "convert model.safetensors --format int4 --target comfyui",
    "filter_structural": "convert model.safetensors --filter structural",
    "filter_auto": "convert t5.safetensors --filter auto",
    "filter_t5": "convert t5.safetensors --t5xxl --fp16",
    "embeddings_int8": "convert t5.safetensors --t5xxl --embeddings int8",
    "embeddings_fp8": "convert t5.safetensors --t5xxl --format int4 --embeddings fp8",
    "filter_several": "convert flux.safetensors --flux --filter generic_text --fallback fp16",
    "filter_legacy": "convert flux.safetensors --filter flux --no-comfy-quant --keep-dtype f32",
} | each("layers", "convert model.safetensors", {
    "exclude": KEEP_SOME,
    "fallback_fp16": f"{KEEP_SOME} --fallback fp16",
    "fallback_block": f"{KEEP_SOME} --fallback int8 --fallback-block-size 4",
    "fallback_gptq": f"{KEEP_SOME} --optimizer rtn --fallback gptq {ROWS}",
    "fallback_simple": f"{KEEP_SOME} --fallback int8 --fallback-simple {ROWS}",
    "fallback_quantizer": f"{KEEP_SOME} --fallback learned_rounding",
    "custom_fp16": "--custom-layers ^blocks --custom-type fp16",
    "custom_block": "--custom-layers ^blocks --custom-type int8 --custom-block-size 8",
    "custom_tensor": "--custom-layers ^blocks --custom-type int8 --custom-scaling-mode tensor",
    "custom_calibrated": f"--custom-layers ^blocks --custom-type gptq --format int4 --optimizer rtn {ROWS}",
    "custom_simple": f"--custom-layers ^blocks --custom-type int8 --custom-simple {ROWS}",
    "custom_heur": "--custom-layers mlp|odd|thin --custom-type int8 --custom-heur --quality-threshold 48",
    "heur": "--heur",
    "heur_threshold": "--heur --quality-threshold 48",
    "heur_block": "--heur --block-size 32",
    "config": "--layer-config layers.json",
    "config_calibrated": f"--layer-config layers.json {ROWS}",
    "config_search": "--layer-config full_names.json",
    "config_fullmatch": "--layer-config full_names.json --fullmatch",
})

GPTQ = each("gptq", f"convert model.safetensors {ROWS}", {
    "auto": "",
    "not": "--simple",
    "tensor": "--scaling-mode tensor",
    "axis": "--scaling-mode axis",
    "block": "--optimizer gptq --scaling-mode block --block-size 16",
    "plain": "--convrot off",
    "any": "--convrot any",
    "actorder": "--gptq-actorder",
    "seed": "--manual-seed 3",
    "damping": "--damping 0.05",
    "search": "--scale-search hessian",
    "search_tensor": "--scaling-mode tensor --scale-search hessian",
    "samples": "--calib-samples 150",
    "no_bias_correction": "--no-bias-correction",
    "keep_dtype": "--keep-dtype bf16",
    "legacy": "--no-comfy-quant",
    "smoothquant": "--convrot any --smoothquant",
    "smoothquant_alpha": "--convrot any --smoothquant --smoothquant-alpha 0.75",
    "one_by_one": "--no-gptq-fast",
    "turbo": "--gptq-turbo",
    "block_size": "--gptq-block-size 32",
    "block_size_of_optimizer": "--optimizer gptq --block-size 48",
}) | {
    "gptq_without_inputs": "convert model.safetensors --optimizer gptq --scale-search mse",
    "gptq_channels": "convert model.safetensors --calibration-data channels.json --smoothquant --convrot 4",
    "gptq_lora": "convert model.safetensors --calibration-lora kohya.safetensors --convrot any",
    "gptq_lora_and_rows": f"convert model.safetensors --calibration-lora kohya.safetensors {ROWS}",
    "gptq_wide": WIDE,
    "gptq_wide_in_pieces": f"{WIDE} --low-memory --stream-ldlq-threshold 131072 --stream-hadamard-threshold 131072 --stream-hessian-threshold 300",
    "gptq_statistics": "convert model.safetensors --calibration-data out/calibrate.safetensors",
    "gptq_statistics_channels": "convert model.safetensors --calibration-data out/calibrate_channels.json --smoothquant --convrot any",
}

QUIP = each("quip", f"convert model.safetensors --optimizer quip {ROWS}", {
    "rows": "",
    "no_actorder": "--no-quip-actorder",
    "transformed": "--quip-store-transformed",
    "transformed_16": "--quip-store-transformed --convrot 16",
    "requant_block": "--quip-requant-scheme block --block-size 8",
    "requant_tensor": "--no-quip-requant-tensor-per-row",
    "no_hadamard": "--no-quip-hadamard",
    "block_size": "--quip-block-size 32",
}) | {
    "quip_full": f"convert model.safetensors {FULL}",
    "quip_full_rows": f"convert model.safetensors {FULL} {ROWS}",
    "quip_full_run_seed": f"convert model.safetensors {FULL} --manual-seed 7",
    "quip_full_own_seed": f"convert model.safetensors {FULL} --quip-seed 8 --manual-seed 7",
    "quip_full_by_name": "convert model.safetensors --format hadamard_quip --optimizer quip",
    "quip_wide": f"{WIDE} --optimizer quip",
    "quip_wide_in_parts": f"{WIDE} --optimizer quip --quip-checkpointed --quip-checkpoint-threshold 512 --quip-checkpoint-segments 2",
}

LEARNED = each("learned", "convert model.safetensors --optimizer learned_rounding", {
    "default": "",
    "plain": "--convrot off",
    "tensor": "--scaling-mode tensor",
    "axis": "--scaling-mode axis",
    "block": "--block-size 16",
    "seed": "--manual-seed 3",
    "num_iter": "--num-iter 2",
    "lr": "--lr 0.002",
    "no_reset": "--lr-adaptive-mode no-reset --num-iter 30 --early-stop-stall 100",
    "exponential": "--lr-schedule exponential --early-stop-stall 20",
    "gamma": "--lr-schedule exponential --early-stop-stall 20 --lr-gamma 0.8",
    "lr_min": "--lr-schedule exponential --early-stop-stall 20 --lr-gamma 0.8 --lr-min 0.004",
    "plateau": "--lr-schedule plateau --lr-patience 1 --lr-cooldown 1",
    "patience": "--lr-schedule plateau --lr-patience 3 --lr-cooldown 1",
    "cooldown": "--lr-schedule plateau --lr-patience 1 --lr-cooldown 4",
    "factor": "--lr-schedule plateau --lr-patience 1 --lr-cooldown 1 --lr-factor 0.3",
    "shape": "--lr-schedule plateau --lr-patience 1 --lr-cooldown 1 --lr-shape-influence 4",
    "threshold": "--lr-threshold 0.2",
    "threshold_abs": "--lr-threshold 0.2 --lr-threshold-mode abs",
    "stop_loss": "--early-stop-loss 0.6",
    "stop_lr": "--early-stop-lr 0.003",
    "stop_stall": "--early-stop-stall 2",
    "top_p": "--top-p 0.9",
    "min_k": "--min-k 8",
    "max_k": "--max-k 16",
    "full_matrix": "--full-matrix",
    "adamw": f"--learned-rounding-variant adamw {SOFT}",
    "radam": f"--learned-rounding-variant radam {SOFT}",
    "rows": ROWS,
    "rows_tensor": f"--scaling-mode tensor {ROWS}",
    "rows_block": f"--block-size 16 {ROWS}",
    "rows_damping": f"--damping 0.3 --num-iter 1 {ROWS}",
    "rows_search": f"--scale-search hessian {ROWS}",
}) | {
    "adamw": "convert model.safetensors --optimizer adamw --exclude-layers mlp|square|tall",
    "radam": "convert model.safetensors --optimizer radam --lr 0.02 --num-iter 100",
    "adamw_rows": f"convert model.safetensors --optimizer adamw {SOFT} {ROWS}",
    "radam_rows": f"convert model.safetensors --optimizer radam {SOFT} --lr-schedule plateau {ROWS}",
    "learned_wide": "convert wide.safetensors --optimizer learned_rounding",
    "learned_wide_rows": f"{WIDE} --optimizer original",
}

LORAS = each("lora", f"convert model.safetensors {KEEP_SOME}", {
    "plain": "--merge-lora plain.safetensors",
    "kohya": "--merge-lora kohya.safetensors --format int4",
    "loha": "--merge-lora loha.safetensors",
    "lokr": "--merge-lora lokr.safetensors",
    "dora": "--merge-lora dora.safetensors",
    "dora_half": "--merge-lora dora.safetensors:0.5",
    "differences": "--merge-lora differences.safetensors",
    "cp_form": "--merge-lora cp_form.safetensors --fp16",
    "peft_folder": "--merge-lora peft",
    "scale": "--merge-lora plain.safetensors --merge-lora-scale 0.5",
    "negative": "--merge-lora plain.safetensors:0.8 --merge-lora-scale -1",
    "several": "--merge-loras plain.safetensors kohya.safetensors:0.5 dora.safetensors",
    "several_even": "--merge-loras plain.safetensors kohya.safetensors:0.5 dora.safetensors --no-merge-lora-dampen",
    "order": "--merge-lora plain.safetensors --merge-loras dora.safetensors kohya.safetensors:0.5",
    "keep_dtype": "--merge-lora plain.safetensors --keep-dtype f16",
    "fallback": "--merge-lora plain.safetensors --fallback fp16",
    "misfits": "--merge-lora misfits.safetensors --merge-lora-partial --merge-lora-skip-mismatched",
    "rows": f"--merge-loras plain.safetensors differences.safetensors {ROWS}",
})

QUANTIZED_SOURCES = each("again", "convert --dequantize-source", {
    "fp8_marked": "fp8_marked.safetensors",
    "fp8_scaled": "fp8_scaled.safetensors --format int4",
    "fp8_bare": "fp8_bare.safetensors --scaling-mode tensor",
    "blocks": "blocks.safetensors",
    "integers": "integers.safetensors --convrot 16",
    "int8": "out/int8_default.safetensors --format int4",
    "int8_block": "out/int8_block_16.safetensors --fp16",
    "int8_legacy": "out/int8_legacy_tensor.safetensors",
    "int8_lora": f"out/int8_any.safetensors --merge-lora plain.safetensors {ROWS}",
    "int4": "out/int4_default.safetensors --keep-dtype f32",
    "hadamard_quip": "out/quip_full.safetensors",
}) | {f"plain_{dtype}_{name}": f"dequantize {source}.safetensors --dtype {dtype}" for dtype, name, source in (
    ("bf16", "fp8_marked", "fp8_marked"),
    ("f16", "fp8_scaled", "fp8_scaled"),
    ("f32", "fp8_bare", "fp8_bare"),
    ("f32", "blocks", "blocks"),
    ("f16", "blocks", "blocks"),
    ("f32", "integers", "integers"),
    ("bf16", "int8", "out/int8_default"),
    ("f32", "int8_axis", "out/int8_axis"),
    ("f32", "int8_block", "out/int8_block_16"),
    ("f16", "int8_legacy", "out/int8_legacy_block"),
    ("f32", "int4", "out/int4_default"),
    ("bf16", "int4_plain", "out/int4_plain"),
    ("f32", "hadamard_quip", "out/quip_full"),
)}

OTHER_COMMANDS = {
    "calibrate": "calibrate rows.safetensors",
    "calibrate_wide": "calibrate wide_rows.safetensors",
    "calibrate_channels.json": "calibrate rows.safetensors",
    "edit_add": "edit out/int8_default.safetensors --add-keys \"'full_precision_matrix_mult': true, 'note': 'a, b'\"",
    "edit_filter": "edit out/int8_any.safetensors --add-keys '{\"note\": {\"made\": [1, 2.5]}}' --quant-filter blocks",
    "edit_remove": "edit out/int8_full_precision.safetensors --remove-keys full_precision_matrix_mult",
    "edit_header": "edit out/int8_no_header_entry.safetensors --save-quant-metadata",
    "edit_replace": "edit integers.safetensors --remove-keys params --add-keys \"'convrot': false\" --quant-filter ^a",
    "edit_old_form": "convert -i out/int4_default.safetensors --edit-quant --add-keys \"'note': 4\"",
}

CONVERSIONS = FORMATS | SOURCES | LAYERS | GPTQ | QUIP | LEARNED | LORAS | QUANTIZED_SOURCES | OTHER_COMMANDS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", required=True, type=Path, help="the qmill to run")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the hashes of the tensors")
    parser.add_argument("--whole", type=Path, metavar="FILE", help="write the hashes of whole files")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder for sources and outputs, instead of one that is removed")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of each qmill; the bytes are the same for any number")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=not given.keep)
        write_all(folder)
        failures = run_all(given.command.resolve(), folder, CONVERSIONS, given.threads)
        if failures:
            raise SystemExit("\n".join(f"{name}: {CONVERSIONS[name]}\n  {said}" for name, said in failures.items()))
        for file, hash_of in ((given.write, hash_of_tensors), (given.whole, hash_of_file)):
            if file:
                file.write_text(json.dumps(hashes_of(folder, CONVERSIONS, hash_of), indent=1, sort_keys=True) + "\n")
    print(f"{len(CONVERSIONS)} conversions")


if __name__ == "__main__":
    main()
