#!/usr/bin/env python3
"""Trains "abacus", a small transformer that does arithmetic.

The exercises are sums, differences and small products, written with a fixed
number of characters (see README.md). About 5 % of the operand pairs are held
out by a hash and never trained on. Writes abacus.safetensors (BF16) and
heldout.txt, and prints how well the rounded weights do on the latter.

    python train.py                train from scratch, then evaluate
    python train.py --check        evaluate the weights that are there
"""

import argparse
import math
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

VOCABULARY = "0123456789+-*="
CONTEXT = 12
PROMPT = 8  # "347+085=": given, not predicted
ANSWER = CONTEXT - PROMPT

WIDTH = 256
BLOCKS = 4
HEADS = 6
HEAD_WIDTH = 32
HIDDEN = 704

OPERATIONS = "+-*"
TRAINING_MIX = (3.0, 3.0, 1.0)  # sums, differences, products
HELD_OUT_EXERCISES = 2000

BATCH = 256
PEAK_RATE = 1.5e-3
WARM_UP = 200
WEIGHT_DECAY = 0.05
REPORT_EVERY = 250


# --- exercises ---------------------------------------------------------------


def operand_pairs(operation):
    """All pairs of operands (a, b) that occur with an operation."""
    a, b = torch.meshgrid(torch.arange(1000), torch.arange(1000), indexing="ij")
    a, b = a.reshape(-1), b.reshape(-1)
    if operation == "*":
        # Two digits times one digit, in either order.
        kept = (torch.maximum(a, b) < 100) & (torch.minimum(a, b) < 10)
        a, b = a[kept], b[kept]
    return a, b


def is_held_out(operation, a, b):
    """One pair in twenty, by the 32-bit finalizer of MurmurHash3."""
    mask = 0xFFFFFFFF
    h = (OPERATIONS.index(operation) * 1000 + a) * 1000 + b
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & mask
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & mask
    h = h ^ (h >> 16)
    return h % 20 == 0


def digits(numbers, count):
    """The last `count` decimal digits as columns, most significant first."""
    return [numbers // 10**place % 10 for place in reversed(range(count))]


def encode(operation, a, b):
    """Exercises as rows of CONTEXT token ids."""
    symbol = {c: torch.full_like(a, VOCABULARY.index(c)) for c in "+-*="}
    if operation == "-":
        result = a - b
        sign = torch.where(result < 0, symbol["-"], symbol["+"])
        answer = [sign, *digits(result.abs(), 3)]
    else:
        answer = digits(a + b if operation == "+" else a * b, 4)
    columns = [*digits(a, 3), symbol[operation], *digits(b, 3), symbol["="], *answer]
    return torch.stack(columns, dim=1).to(torch.uint8)


def exercises():
    """Per operation, the encoded training and held-out exercises."""
    training, held_out = [], []
    for operation in OPERATIONS:
        a, b = operand_pairs(operation)
        held = is_held_out(operation, a, b)
        tokens = encode(operation, a, b)
        training.append(tokens[~held])
        held_out.append(tokens[held])
    return training, held_out


def sample_held_out(held_out, seed):
    """All held-out products; the rest half sums and half differences."""
    generator = torch.Generator().manual_seed(seed)
    sums, differences, products = held_out
    remaining = HELD_OUT_EXERCISES - len(products)
    counts = (remaining - remaining // 2, remaining // 2, len(products))
    chosen = torch.cat(
        [
            tokens[torch.randperm(len(tokens), generator=generator)[:count]]
            for tokens, count in zip((sums, differences, products), counts)
        ]
    )
    return chosen[torch.randperm(len(chosen), generator=generator)]


def sample_batch(training, generator):
    mix = torch.tensor(TRAINING_MIX)
    operations = torch.multinomial(mix, BATCH, replacement=True, generator=generator)
    rows = []
    for operation, tokens in enumerate(training):
        count = int((operations == operation).sum())
        rows.append(tokens[torch.randint(len(tokens), (count,), generator=generator)])
    return torch.cat(rows).long()


def write_text(tokens, path):
    lines = ["".join(VOCABULARY[i] for i in row) + "\n" for row in tokens.tolist()]
    path.write_text("".join(lines), encoding="ascii", newline="\n")


def read_text(path):
    lines = path.read_text(encoding="ascii").splitlines()
    return torch.tensor([[VOCABULARY.index(c) for c in line] for line in lines])


# --- model -------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        inner = HEADS * HEAD_WIDTH
        self.q = nn.Linear(WIDTH, inner)
        self.k = nn.Linear(WIDTH, inner)
        self.v = nn.Linear(WIDTH, inner)
        self.out = nn.Linear(inner, WIDTH)

    def forward(self, x, last):
        """Attends from the last `last` positions to all positions up to each."""
        batch, length, _ = x.shape

        def heads(y):
            return y.view(batch, -1, HEADS, HEAD_WIDTH).transpose(1, 2)

        q, k, v = heads(self.q(x[:, -last:])), heads(self.k(x)), heads(self.v(x))
        scores = q @ k.transpose(2, 3) / math.sqrt(HEAD_WIDTH)
        future = torch.ones(last, length, dtype=torch.bool).triu(length - last + 1)
        weights = scores.masked_fill(future, -math.inf).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, last, -1))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(WIDTH, HIDDEN)
        self.down = nn.Linear(HIDDEN, WIDTH)

    def forward(self, x):
        return self.down(functional.gelu(self.up(x)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-5)
        self.attention = Attention()
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-5)
        self.mlp = Mlp()

    def forward(self, x, last):
        x = x[:, -last:] + self.attention(self.norm1(x), last)
        return x + self.mlp(self.norm2(x))


class Abacus(nn.Module):
    def __init__(self):
        super().__init__()
        self.token_embedding = nn.Embedding(len(VOCABULARY), WIDTH)
        self.position_embedding = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.final_norm = nn.LayerNorm(WIDTH, eps=1e-5)
        self.head = nn.Linear(WIDTH, len(VOCABULARY), bias=False)
        nn.init.normal_(self.token_embedding.weight, std=0.1)
        nn.init.normal_(self.position_embedding.weight, std=0.1)
        for block in self.blocks:
            for layer in (block.attention.out, block.mlp.down):
                layer.weight.data /= math.sqrt(2 * BLOCKS)

    def forward(self, tokens, last):
        """Logits at the last `last` positions.

        Only those are computed in the last block, which saves training time.
        """
        length = tokens.shape[1]
        x = self.token_embedding(tokens) + self.position_embedding.weight[:length]
        for i, block in enumerate(self.blocks):
            x = block(x, last if i == BLOCKS - 1 else length)
        return self.head(self.final_norm(x))


def answer_loss(logits, answers):
    return functional.cross_entropy(logits.flatten(0, 1), answers.flatten())


# --- evaluation --------------------------------------------------------------


@torch.no_grad()
def evaluate(model, tokens):
    """Loss over the answer characters, and which answers are exactly right.

    With all earlier characters right, greedy decoding sees what teacher
    forcing sees. So an answer is exactly right under greedy decoding if and
    only if the most likely character is right at every teacher-forced position.
    """
    losses, right = [], []
    for rows in tokens.long().split(250):
        answers = rows[:, PROMPT:]
        logits = model(rows[:, :-1], ANSWER)
        losses.append(answer_loss(logits, answers) * len(rows))
        right.append((logits.argmax(dim=-1) == answers).all(dim=1))
    return float(sum(losses)) / len(tokens), torch.cat(right)


def report(model, tokens):
    loss, right = evaluate(model, tokens)
    print(f"held-out loss {loss:.5f}, exactly right {right.float().mean():.2%}")
    for name, symbol in zip(("sums", "differences", "products"), OPERATIONS):
        of_kind = tokens[:, 3] == VOCABULARY.index(symbol)
        print(f"  {name}: {int(right[of_kind].sum())} of {int(of_kind.sum())}")


def save_weights(model, path):
    metadata = {
        "abacus.heads": str(HEADS),
        "abacus.blocks": str(BLOCKS),
        "abacus.width": str(WIDTH),
        "abacus.head_width": str(HEAD_WIDTH),
        "abacus.vocabulary": VOCABULARY,
        "abacus.context": str(CONTEXT),
    }
    weights = {k: v.to(torch.bfloat16) for k, v in model.state_dict().items()}
    save_file(weights, path, metadata=metadata)


def load_weights(path):
    model = Abacus()
    with safe_open(path, framework="pt") as file:
        weights = {k: file.get_tensor(k).float() for k in file.keys()}
    model.load_state_dict(weights)
    return model.eval()


# --- training ----------------------------------------------------------------


def learning_rate(step, steps):
    """Linear warm-up, then half a cosine down to zero."""
    if step < WARM_UP:
        return PEAK_RATE * (step + 1) / WARM_UP
    progress = (step - WARM_UP) / max(1, steps - WARM_UP)
    return PEAK_RATE * 0.5 * (1 + math.cos(math.pi * progress))


def make_optimizer(model):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def train(training, held_out, steps, seed, state_path):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = Abacus()
    optimizer = make_optimizer(model)
    first, elapsed = 0, 0.0
    if state_path and state_path.exists():
        state = torch.load(state_path)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        first, elapsed = state["step"], state["elapsed"]

    start = time.monotonic() - elapsed
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        batch = sample_batch(training, generator)
        loss = answer_loss(model(batch[:, :-1], ANSWER), batch[:, PROMPT:])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

        if (step + 1) % REPORT_EVERY == 0 or step + 1 == steps:
            held_loss, right = evaluate(model, held_out)
            elapsed = time.monotonic() - start
            print(
                f"step {step + 1} of {steps}, {elapsed / 60:.1f} min: "
                f"training loss {loss.item():.5f}, held-out loss {held_loss:.5f}, "
                f"exactly right {right.float().mean():.2%}",
                flush=True,
            )
            if state_path:
                state = {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "generator": generator.get_state(),
                    "step": step + 1,
                    "elapsed": elapsed,
                }
                torch.save(state, state_path)
    return model


def main():
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Trains or evaluates abacus.")
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=here, help="folder to write to")
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="FILE",
        help="keep the training state in FILE, and go on from it if it exists",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="only evaluate the weights and exercises that lie in --out",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    weights_path = options.out / "abacus.safetensors"
    text_path = options.out / "heldout.txt"
    if not options.check:
        options.out.mkdir(parents=True, exist_ok=True)
        training, held_out = exercises()
        chosen = sample_held_out(held_out, options.seed)
        write_text(chosen, text_path)
        model = train(training, chosen, options.steps, options.seed, options.resume)
        save_weights(model, weights_path)
    report(load_weights(weights_path), read_text(text_path))


if __name__ == "__main__":
    main()
