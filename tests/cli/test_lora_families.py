"""LoRAs of three trainers' spellings for every layer of real layouts: all is merged, into the right rows, as plain arithmetic says."""

import torch

import lora_families
from support import TempFolder, qmill_json, read

RANK = 2


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Families(TempFolder):
    def weights(self, family):
        return {name: random(*shape, seed=i) for i, (name, shape) in enumerate(family.tensors.items())}

    def factors(self, layer, weight, seed):
        """(down, up) for the rows of `weight` that the layer is."""
        rows = layer.count or weight.shape[0]
        if weight.dim() == 2:
            return random(RANK, weight.shape[1], seed=seed), random(rows, RANK, seed=seed + 1)
        return random(RANK, *weight.shape[1:], seed=seed), random(rows, RANK, *[1] * (weight.dim() - 2), seed=seed + 1)

    def expected(self, weights, names, factors, scale):
        merged = {name: weight.double() for name, weight in weights.items()}
        for name, layer in names.items():
            down, up = factors[name]
            delta = scale * up.double().flatten(1) @ down.double().flatten(1)
            if layer.swapped:
                half = delta.shape[0] // 2
                delta = torch.cat((delta[half:], delta[:half]))
            weight = merged[f"{layer.base}.weight"].flatten(1).clone()
            weight[layer.first : layer.first + delta.shape[0]] += delta
            merged[f"{layer.base}.weight"] = weight.reshape(weights[f"{layer.base}.weight"].shape)
        return merged

    def check(self, family, spelling, names, prefix=""):
        """`names`: by name in the LoRA, spelled by `spelling`, a function to (name of A, name of B, name of alpha)."""
        weights = self.weights(family)
        factors, tensors = {}, {}
        for i, (name, layer) in enumerate(names.items()):
            factors[name] = self.factors(layer, weights[f"{layer.base}.weight"], 10_000 + 2 * i)
            down, up, alpha = spelling(name)
            tensors |= {down: factors[name][0], up: factors[name][1]}
            if alpha:
                tensors[alpha] = torch.tensor(3.0)
        # Something is to be quantized: a run without any layer is refused.
        model = self.model({prefix + name: tensor for name, tensor in weights.items()} | {"extra.weight": random(4, 4, seed=0)})
        output = self.folder / "out.safetensors"
        report = qmill_json("-i", model, "-o", output, "--overwrite", "--exclude-layers", "^(?!extra)", "--target", "any", "--merge-lora", self.model(tensors, "lora.safetensors"))
        account = report["merge"]["files"][0]
        for field in ("unmatched", "for_other_models", "mismatched"):
            self.assertEqual(account[field], [], field)
        self.assertEqual(set(account["layers"]), {prefix + layer.base for layer in names.values()})
        stored = read(output)[0]
        for name, expected in self.expected(weights, names, factors, 3 / RANK if alpha else 1).items():
            error = (stored[prefix + name].double() - expected).abs().max() / expected.abs().max()
            self.assertLess(error.item(), 1e-5, name)

    def own_names(self, family):
        return {base: lora_families.Layer(base) for base in family.linears()}

    def check_family(self, make):
        family = make()
        names = family.names()
        # The names reach every row of every layer: otherwise the test is at fault.
        reached = {base: torch.zeros(family.rows(base), dtype=torch.int) for base in family.linears()}
        for layer in names.values():
            reached[layer.base][layer.first : layer.first + (layer.count or family.rows(layer.base))] += 1
        self.assertEqual([base for base, rows in reached.items() if not (rows == 1).all()], [])
        under = lambda name: name.replace(".", "_")
        peft = lambda name: (f"{family.component}.{name}.lora_A.weight", f"{family.component}.{name}.lora_B.weight", None)
        kohya = "lora_unet" if family.component == "unet" else "lora_transformer"
        underscored = lambda name: tuple(f"{kohya}_{under(name)}.{end}" for end in ("lora_down.weight", "lora_up.weight", "alpha"))
        own = lambda name: tuple(f"lora_unet_{under(name)}.{end}" for end in ("lora_down.weight", "lora_up.weight", "alpha"))
        with self.subTest("diffusers, PEFT"):
            self.check(family, peft, names)
        with self.subTest("OneTrainer or kohya with diffusers' names"):
            self.check(family, underscored, names, "model.diffusion_model.")
        with self.subTest("kohya, musubi with the model's own names"):
            self.check(family, own, self.own_names(family))
        with self.subTest("LyCORIS with diffusers' names"):
            self.check(family, lambda name: tuple(f"lycoris_{under(name)}.{end}" for end in ("lora_down.weight", "lora_up.weight", "alpha")), names)
        with self.subTest("diffusers' names below ComfyUI's prefix"):
            self.check(family, lambda name: (f"diffusion_model.{name}.lora_A.weight", f"diffusion_model.{name}.lora_B.weight", None), names)


def method(make):
    return lambda self: self.check_family(make)


for each in lora_families.FAMILIES:
    setattr(Families, f"test_{each.__name__.lower()}", method(each))
